//! Ids of backups as they stand in custom resources: `pvc:shop/data-0:<base64 of ivd:disk:snapshot>` and its parts.
//!
//! ```text
//! id   = type ":" name [ ":" snapshot ]       type = "ivd" | "pvc" | "paravirt-pv"
//! ivd  : name = disk                           snapshot = disk snapshot
//! else : name = namespace "/" claim, or volume snapshot = unpadded base64 of another id
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use disk::{DiskId, DiskSnapshot, DiskSnapshotId, ParseIdError};

/// Written without padding; read with or without, since hand-made ids carry it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How deep ids may lie inside ids: claim, guest volume, disk, and one to spare.
const DEEPEST: usize = 4;

/// Why a text is not the id of a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseEntityError {
    /// Fewer than two parts, or a type we do not know.
    #[error("`{0}` is not an id: it should read `pvc:<namespace>/<claim>:<snapshot>` or `ivd:<disk>:<snapshot>`")]
    NotAnEntity(String),
    /// An id, and none of a disk where only those are taken.
    #[error("`{0}` is no `ivd:` id, and only `ivd:<disk>` or `ivd:<disk>:<snapshot>` is taken here")]
    NotADisk(String),
    /// A claim is named by its namespace and name.
    #[error("`{0}` is not `<namespace>/<claim>`")]
    NotAClaim(String),
    /// The id has no snapshot part, or one too many, which counts as none.
    #[error("`{0}` names no snapshot")]
    NoSnapshot(String),
    /// The snapshot part is not base64 of an id.
    #[error("the snapshot part `{0}` is not base64 of an id")]
    NotBase64(String),
    /// Ids inside ids without end.
    #[error("ids lie too deep inside each other")]
    TooDeep,
    /// The disk part.
    #[error("read the id of a disk")]
    Disk(#[from] ParseIdError),
}

/// A disk, or a disk snapshot: `ivd:<disk>` or `ivd:<disk>:<disk snapshot>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DiskEntity {
    /// The disk.
    pub disk: DiskId,
    /// Its snapshot, if one is named.
    pub snapshot: Option<DiskSnapshotId>,
}

impl DiskEntity {
    /// The disk snapshot, if one is named.
    pub fn disk_snapshot(&self) -> Option<DiskSnapshot> {
        Some(DiskSnapshot { disk: self.disk.clone(), snapshot: self.snapshot.clone()? })
    }
}

impl From<DiskId> for DiskEntity {
    fn from(disk: DiskId) -> Self {
        Self { disk, snapshot: None }
    }
}

impl From<DiskSnapshot> for DiskEntity {
    fn from(snapshot: DiskSnapshot) -> Self {
        Self { disk: snapshot.disk, snapshot: Some(snapshot.snapshot) }
    }
}

impl fmt::Display for DiskEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "ivd:{}:{snapshot}", self.disk),
            None => write!(f, "ivd:{}", self.disk),
        }
    }
}

impl FromStr for DiskEntity {
    type Err = ParseEntityError;

    fn from_str(text: &str) -> Result<Self, ParseEntityError> {
        match text.parse()? {
            EntityId::Disk(disk) => Ok(disk),
            EntityId::Claim { .. } | EntityId::GuestVolume { .. } => Err(ParseEntityError::NotADisk(text.to_owned())),
        }
    }
}

/// Any id that stands in a custom resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntityId {
    /// `ivd:…`
    Disk(DiskEntity),
    /// `pvc:<namespace>/<claim>[:<snapshot>]`
    Claim {
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
        /// The snapshot part as it is written.
        snapshot: Option<String>,
    },
    /// `paravirt-pv:<volume>[:<snapshot>]`, in guest clusters.
    GuestVolume {
        /// Name of the guest's volume.
        volume: String,
        /// The snapshot part as it is written.
        snapshot: Option<String>,
    },
}

impl EntityId {
    /// The disk snapshot the id leads to, through however many ids it is wrapped in.
    pub fn disk_snapshot(&self) -> Result<DiskSnapshot, ParseEntityError> {
        let mut id = self.clone();
        for _ in 0..DEEPEST {
            let wrapped = match &id {
                Self::Disk(disk) => {
                    return disk.disk_snapshot().ok_or_else(|| ParseEntityError::NoSnapshot(id.to_string()));
                }
                Self::Claim { snapshot, .. } | Self::GuestVolume { snapshot, .. } => {
                    snapshot.as_deref().ok_or_else(|| ParseEntityError::NoSnapshot(id.to_string()))?
                }
            };
            id = unwrap_id(wrapped)?;
        }
        Err(ParseEntityError::TooDeep)
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = match self {
            Self::Disk(disk) => return disk.fmt(f),
            Self::Claim { namespace, claim, snapshot } => {
                write!(f, "pvc:{namespace}/{claim}")?;
                snapshot
            }
            Self::GuestVolume { volume, snapshot } => {
                write!(f, "paravirt-pv:{volume}")?;
                snapshot
            }
        };
        snapshot.as_ref().map_or(Ok(()), |s| write!(f, ":{s}"))
    }
}

impl FromStr for EntityId {
    type Err = ParseEntityError;

    fn from_str(text: &str) -> Result<Self, ParseEntityError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (kind, name, snapshot) = match parts[..] {
            [kind, name] => (kind, name, None),
            [kind, name, snapshot] => (kind, name, Some(snapshot)),
            [kind, name, ..] => (kind, name, None), // as the original reads it
            _ => return Err(ParseEntityError::NotAnEntity(text.to_owned())),
        };
        let wrapped = snapshot.map(str::to_owned);
        match kind {
            "ivd" => {
                let snapshot = snapshot.map(str::parse).transpose()?;
                Ok(Self::Disk(DiskEntity { disk: name.parse()?, snapshot }))
            }
            "pvc" => {
                let (namespace, claim) = claim_name(name)?;
                Ok(Self::Claim { namespace, claim, snapshot: wrapped })
            }
            "paravirt-pv" => Ok(Self::GuestVolume { volume: name.to_owned(), snapshot: wrapped }),
            _ => Err(ParseEntityError::NotAnEntity(text.to_owned())),
        }
    }
}

/// The backup of a claim: `pvc:<namespace>/<claim>:<base64 of ivd:disk:snapshot>`, what `status.snapshotID` holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PvcSnapshotId {
    /// Namespace the claim was backed up from.
    pub namespace: String,
    /// Name of the claim.
    pub claim: String,
    /// The disk at that moment.
    pub disk_snapshot: DiskSnapshot,
}

impl fmt::Display for PvcSnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrapped = BASE64.encode(format!("ivd:{}", self.disk_snapshot));
        write!(f, "pvc:{}/{}:{wrapped}", self.namespace, self.claim)
    }
}

impl FromStr for PvcSnapshotId {
    type Err = ParseEntityError;

    fn from_str(text: &str) -> Result<Self, ParseEntityError> {
        let id: EntityId = text.parse()?;
        let disk_snapshot = id.disk_snapshot()?;
        match id {
            EntityId::Claim { namespace, claim, .. } => Ok(Self { namespace, claim, disk_snapshot }),
            EntityId::Disk(_) | EntityId::GuestVolume { .. } => Err(ParseEntityError::NotAClaim(text.to_owned())),
        }
    }
}

fn claim_name(text: &str) -> Result<(String, String), ParseEntityError> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [namespace, claim] if !namespace.is_empty() && !claim.is_empty() => {
            Ok((namespace.to_owned(), claim.to_owned()))
        }
        _ => Err(ParseEntityError::NotAClaim(text.to_owned())),
    }
}

fn unwrap_id(wrapped: &str) -> Result<EntityId, ParseEntityError> {
    let bad = || ParseEntityError::NotBase64(wrapped.to_owned());
    let bytes = BASE64.decode(wrapped).map_err(|_| bad())?;
    String::from_utf8(bytes).map_err(|_| bad())?.parse()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail where it stands

    use super::*;

    const VANILLA: &str = "pvc:shop/data-0:aXZkOjJiNmQwZjVlLTFjM2EtNGU1Ny05ZDFiLTBhOGM2ZjNlN2Q0MjpjOWYxZDdhYS02MGIyLTRjMWUtOGYzZC01ZTJiOWE3MTRjMDY";
    const DISK: &str = "2b6d0f5e-1c3a-4e57-9d1b-0a8c6f3e7d42:c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06";

    #[test]
    fn a_backup_of_the_original_leads_to_its_disk_snapshot() {
        let id: PvcSnapshotId = VANILLA.parse().unwrap();
        assert_eq!((id.namespace.as_str(), id.claim.as_str()), ("shop", "data-0"));
        assert_eq!(id.disk_snapshot.to_string(), DISK);
        assert_eq!(id.to_string(), VANILLA);
    }

    #[test]
    fn a_guest_cluster_backup_leads_to_the_same_disk_snapshot() {
        let inner = BASE64.encode(format!("ivd:{DISK}"));
        let middle = BASE64.encode(format!("paravirt-pv:pvc-0d1c2b3a-1111-4222-8333-444455556666:{inner}"));
        let id: EntityId = format!("pvc:shop/data-0:{middle}").parse().unwrap();
        assert_eq!(id.disk_snapshot().unwrap().to_string(), DISK);
    }

    #[test]
    fn backups_up_to_1_0_2_are_named_by_the_disk_alone() {
        let id: EntityId = format!("ivd:{DISK}").parse().unwrap();
        assert_eq!(id.disk_snapshot().unwrap().to_string(), DISK);
        assert_eq!("ivd:disk".parse::<DiskEntity>().unwrap().to_string(), "ivd:disk");
        let refused = VANILLA.parse::<DiskEntity>().unwrap_err().to_string();
        assert!(refused.contains("only `ivd:<disk>`") && !refused.contains("pvc:<namespace>"), "{refused}");
    }

    #[test]
    fn nonsense_is_refused_with_the_part_that_is_wrong() {
        for (text, why) in [
            ("", "is not an id"),
            ("pvc", "is not an id"),
            ("vmdk:x:y", "is not an id"),
            ("pvc:shop:x", "`shop` is not `<namespace>/<claim>`"),
            ("pvc:a/b/c:x", "is not `<namespace>/<claim>`"),
            ("pvc:shop/data-0", "names no snapshot"),
            ("pvc:shop/data-0:a:b", "names no snapshot"),
            ("pvc:shop/data-0:%%%", "is not base64"),
        ] {
            let error = text.parse::<PvcSnapshotId>().unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_id_that_wraps_itself_comes_to_an_end() {
        let mut id = format!("ivd:{DISK}");
        for _ in 0..10 {
            id = format!("paravirt-pv:v:{}", BASE64.encode(&id));
        }
        assert_eq!(id.parse::<EntityId>().unwrap().disk_snapshot(), Err(ParseEntityError::TooDeep));
    }
}
