//! What is served, and how vCenter is reached.

use std::path::PathBuf;

use disk::{DiskId, DiskSnapshotId};
use secrecy::SecretString;

/// How the library reaches vCenter. Debug output leaves the password out.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Where the user put the VDDK distribution: holds `lib64/libvixDiskLib.so.N` or `libvixDiskLib.so.N`.
    pub library_dir: PathBuf,
    /// Name of vCenter, as in its certificate.
    pub server: String,
    /// Port of vCenter, 443.
    pub port: u16,
    /// SHA-1 of vCenter's certificate, upper-case hexadecimal with colons. The library checks nothing else.
    pub thumbprint: String,
    /// User of vCenter.
    pub user: String,
    /// Its password; goes to the helper on standard input and nowhere else.
    pub password: SecretString,
    /// Managed object id of the disk's datastore, such as `datastore-39`. Read it right before each launch.
    pub datastore: String,
}

/// Whether the disk is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Writes are refused.
    Read,
    /// One writer; the disk must be detached and without snapshots.
    Write,
}

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The disk.
    pub disk: DiskId,
    /// Its snapshot; `None` is the disk itself.
    pub snapshot: Option<DiskSnapshotId>,
    /// Read or write.
    pub access: Access,
    /// Who accesses, for vCenter's records: at most 50 characters.
    pub identity: String,
}

impl Target {
    /// The name under which the disk is exported: `disk`, or `disk:snapshot`.
    pub fn export_name(&self) -> String {
        match &self.snapshot {
            Some(snapshot) => format!("{}:{snapshot}", self.disk),
            None => self.disk.to_string(),
        }
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.access == Access::Write && self.snapshot.is_some() {
            return Some("a snapshot cannot be written");
        }
        if self.identity.is_empty() || self.identity.chars().count() > 50 {
            return Some("the identity must have 1 to 50 characters");
        }
        None
    }
}
