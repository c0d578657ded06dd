//! The claim as it was, in protobuf: what a Snapshot keeps in `status.metadata` and a restore reads.
//!
//! Plain protobuf of `k8s.io.api.core.v1.PersistentVolumeClaim` without an envelope. We write what the original's
//! code generator writes, byte for byte, and keep fields that are newer than we are when a claim is [rewritten](rewrite).

mod convert;
mod unknown;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use prost::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a blob is not a claim.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// JSON carries bytes in base64.
    #[error("read the claim's metadata as base64")]
    Base64(#[from] base64::DecodeError),
    /// Not protobuf, or cut off.
    #[error("read the claim's metadata as protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// Protobuf, but of something else.
    #[error("the metadata names no claim: it is not a PersistentVolumeClaim")]
    NotAClaim,
    /// A time outside of what a calendar holds.
    #[error("the metadata holds an impossible time: {seconds} s")]
    Time {
        /// Seconds since 1970.
        seconds: i64,
    },
}

/// A claim in protobuf and base64, as it stands in JSON. Nothing is checked until it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blob(String);

impl Blob {
    /// The blob of a claim.
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        Self::from_bytes(&encode(claim))
    }

    /// Wraps protobuf.
    pub fn from_bytes(protobuf: &[u8]) -> Self {
        Self(STANDARD.encode(protobuf))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The protobuf.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(STANDARD.decode(&self.0)?)
    }

    /// The claim.
    pub fn claim(&self) -> Result<PersistentVolumeClaim, Error> {
        decode(&self.bytes()?)
    }
}

impl JsonSchema for Blob {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Blob".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "byte"})
    }
}

/// A claim as protobuf, byte for byte as the original writes it.
pub fn encode(claim: &PersistentVolumeClaim) -> Vec<u8> {
    wire::PersistentVolumeClaim::from(claim).encode_to_vec()
}

/// Reads a claim. Fields that we do not know are skipped; [`rewrite`] keeps them.
pub fn decode(protobuf: &[u8]) -> Result<PersistentVolumeClaim, Error> {
    let claim = PersistentVolumeClaim::try_from(wire::PersistentVolumeClaim::decode(protobuf)?)?;
    match claim.metadata.name.as_deref() {
        None | Some("") => Err(Error::NotAClaim),
        Some(_) => Ok(claim),
    }
}

/// Changes a claim in place, and keeps every field that we do not know.
pub fn rewrite(protobuf: &[u8], change: impl FnOnce(&mut PersistentVolumeClaim)) -> Result<Vec<u8>, Error> {
    let mut claim = decode(protobuf)?;
    let before = claim.metadata.managed_fields.clone();
    change(&mut claim);
    let mut written = wire::PersistentVolumeClaim::from(&claim);
    if claim.metadata.managed_fields == before {
        // raw JSON inside: a detour through values could order it differently
        written.metadata.managed_fields = wire::PersistentVolumeClaim::decode(protobuf)?.metadata.managed_fields;
    }
    Ok(unknown::keep(protobuf, &written.encode_to_vec(), &unknown::CLAIM)?)
}
