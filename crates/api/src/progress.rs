//! How far a job is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tolerant;

/// How far a copy is, in bytes. Zeros are left out, so an unstarted one is `{}`.
///
/// A merge patch that takes a count back to zero must carry `null` for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Size of the disk.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i64>")]
    pub total_bytes: u64,
    /// Bytes of the disk that are settled: copied, known already, or known to be empty. Equals totalBytes at the end.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i64>")]
    pub bytes_done: u64,
    /// Bytes that were read from the source.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i64>")]
    pub bytes_read: u64,
    /// Bytes that were written to the target: to the bucket after compression, or to the volume.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i64>")]
    pub bytes_stored: u64,
    /// Bytes of the disk settled per second, lately; over the whole transfer once it has ended.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i64>")]
    pub bytes_per_second: u64,
}
