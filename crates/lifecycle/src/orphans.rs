//! The mark on disk snapshots in vSphere that says whose they are: a repeated step finds the first one's by it, and what
//! a killed driver has left is found when its Snapshot was deleted meanwhile.
//!
//! A mark names cluster, Velero namespace, purpose and Snapshot. Anything else in a description is somebody else's,
//! marks of earlier versions included: they named no purpose, and in local mode the disk snapshot is the backup.
//!
//! The other kinds of leftovers have a module each: [`points`], [`parts`], [`repositories`], [`claims`], [`leases`], [`new_disks`];
//! [`Settings`] are the user's.

pub mod claims;
pub mod leases;
pub mod new_disks;
pub mod parts;
pub mod points;
pub mod repositories;
mod settings;

use std::collections::{HashMap, HashSet};

use api::{Snapshot, SnapshotPhase, Upload, labels, names};
use disk::DiskSnapshot;

use crate::snapshot::is_local;

pub use settings::Settings;

/// What may be left over, as the metric and doctor name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A disk snapshot in vSphere that nobody will delete.
    DiskSnapshot,
    /// The lease of a transfer that has ended.
    Lease,
    /// A lock in a repository that nobody renews.
    Lock,
    /// An upload in parts that is open in a bucket.
    OpenUpload,
    /// A restore point whose backup is gone.
    RestorePoint,
    /// A BackupRepository whose claim is gone.
    Repository,
    /// A BackupRepositoryClaim that no storage location asks for.
    RepositoryClaim,
    /// A disk that Velero took for a backup of an old version, and that no volume has.
    NewDisk,
}

impl Kind {
    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskSnapshot => "disk-snapshot",
            Self::Lease => "lease",
            Self::Lock => "lock",
            Self::OpenUpload => "open-upload",
            Self::RestorePoint => "restore-point",
            Self::Repository => "repository",
            Self::RepositoryClaim => "repository-claim",
            Self::NewDisk => "new-disk",
        }
    }
}

/// Every mark of ours begins with it; the number grows when the rest is written another way.
const PREFIX: &str = "velero-plugin-for-vsphere/2";
/// Purpose: an Upload reads it and deletes it.
const UPLOAD: &str = "upload";
/// Purpose: it is the backup.
const LOCAL: &str = "local";

/// Who takes disk snapshots: an installation. Several may share one vCenter.
#[derive(Debug, Clone, Copy)]
pub struct Installation<'i> {
    /// The cluster: uid of namespace kube-system.
    pub cluster: &'i str,
    /// The Velero namespace.
    pub namespace: &'i str,
}

/// A disk snapshot that this installation took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// It.
    pub disk_snapshot: DiskSnapshot,
    /// Uid of the Snapshot it was taken for.
    pub snapshot_uid: String,
    /// Whether it is the backup: in local mode.
    pub is_backup: bool,
}

impl Installation<'_> {
    /// The description of the disk snapshot that is taken for this Snapshot.
    pub fn token(&self, snapshot: &Snapshot) -> String {
        let purpose = if is_local(snapshot) { LOCAL } else { UPLOAD };
        format!("{}/{purpose}/{}", self.prefix(), snapshot.metadata.uid.as_deref().unwrap_or_default())
    }

    /// The disk snapshot, where its description says that we took it.
    pub fn recognise(&self, disk_snapshot: DiskSnapshot, description: &str) -> Option<Taken> {
        let rest = description.trim().strip_prefix(&self.prefix())?.strip_prefix('/')?;
        let (purpose, uid) = rest.split_once('/')?;
        let is_backup = match purpose {
            UPLOAD => false,
            LOCAL => true,
            _ => return None,
        };
        let valid = !uid.is_empty() && !uid.contains('/');
        valid.then(|| Taken { disk_snapshot, snapshot_uid: uid.to_owned(), is_backup })
    }

    fn prefix(&self) -> String {
        format!("{PREFIX}/{}/{}", self.cluster, self.namespace)
    }
}

/// Those of `taken` that nobody will delete: their Snapshot is gone or has ended, and no Upload is for them. Snapshots
/// and Uploads must have been listed after the disk snapshots: one that is not listed yet would count as gone.
///
/// One that was taken as the backup goes only where its Snapshot is there and says that there is no backup: what the Snapshot was for is in
/// Velero's hands, and stays when the object goes.
pub fn find(taken: Vec<Taken>, snapshots: &[Snapshot], uploads: &[Upload]) -> Vec<Taken> {
    let of_uid: HashMap<&str, &Snapshot> =
        snapshots.iter().filter_map(|s| Some((s.metadata.uid.as_deref()?, s))).collect();
    let ended = |snapshot: &Snapshot| snapshot.phase().is_some_and(SnapshotPhase::is_terminal);
    let is_none =
        |snapshot: &Snapshot| matches!(snapshot.phase(), Some(SnapshotPhase::SnapshotFailed | SnapshotPhase::Canceled));
    let named: HashSet<&str> = uploads.iter().filter_map(|u| u.metadata.name.as_deref()).collect();
    let label = |upload: &Upload| upload.metadata.labels.as_ref()?.get(labels::SNAPSHOT_UID).cloned();
    let uploaded: HashSet<String> = uploads.iter().filter_map(label).collect();
    let is_orphan = |taken: &Taken| {
        let of = of_uid.get(taken.snapshot_uid.as_str());
        let needed = match taken.is_backup {
            true => !of.is_some_and(|snapshot| is_none(snapshot)),
            false => of.is_some_and(|snapshot| !ended(snapshot)),
        };
        let has_upload = named.contains(names::upload(&taken.disk_snapshot.snapshot).as_str())
            || uploaded.contains(&taken.snapshot_uid);
        !needed && !has_upload
    };
    taken.into_iter().filter(is_orphan).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{SnapshotSpec, SnapshotStatus, UploadSpec};

    const HERE: Installation<'_> = Installation { cluster: "c1", namespace: "velero" };

    fn snapshot(uid: &str, repository: &str) -> Snapshot {
        let spec = SnapshotSpec { backup_repository: repository.to_owned(), ..SnapshotSpec::default() };
        let mut snapshot = Snapshot::new("snap", spec);
        snapshot.metadata.uid = Some(uid.to_owned());
        snapshot
    }

    fn of(description: &str) -> Option<String> {
        HERE.recognise("d:s".parse().unwrap(), description).map(|taken| taken.snapshot_uid)
    }

    #[test]
    fn a_disk_snapshot_of_another_cluster_or_program_is_not_ours() {
        assert_eq!(of(&HERE.token(&snapshot("u1", "br-1"))).as_deref(), Some("u1"));
        let elsewhere = [
            Installation { cluster: "c2", ..HERE },
            Installation { cluster: "c11", ..HERE },
            Installation { cluster: "c1/velero", namespace: "" },
            Installation { namespace: "velero-2", ..HERE },
        ];
        for theirs in elsewhere {
            assert_eq!(of(&theirs.token(&snapshot("u1", "br-1"))), None, "{theirs:?}");
        }
        let others = [
            "",
            "AstrolabeSnapshot",
            "velero-plugin-for-vsphere/c1/u1", // an earlier version's: it may be a backup in local mode
            "velero-plugin-for-vsphere/2/c1/velero/upload/",
            "velero-plugin-for-vsphere/2/c1/velero/upload/u1/more",
            "velero-plugin-for-vsphere/3/c1/velero/upload/u1",
        ];
        for description in others {
            assert_eq!(of(description), None, "{description}");
        }
    }

    #[test]
    fn a_backup_in_local_mode_is_left_over_only_where_its_snapshot_says_that_there_is_none() {
        let at = |phase: &str| {
            let status = SnapshotStatus { phase: Some(phase.into()), ..SnapshotStatus::default() };
            Snapshot { status: Some(status), ..snapshot("u1", "") }
        };
        let token = HERE.token(&snapshot("u1", ""));
        let taken = HERE.recognise("d:s".parse().unwrap(), &token).unwrap();
        assert!(taken.is_backup, "{token}");
        let cases = [
            ("its Snapshot was deleted: the backup is in Velero's hands", vec![], false),
            ("others' objects are there", vec![snapshot("u2", "")], false),
            ("its Snapshot waits for the driver", vec![snapshot("u1", "")], false),
            ("it is the backup", vec![at("Snapshotted")], false),
            ("a phase of a later version", vec![at("Archived")], false),
            ("it was taken while vCenter was on its way out", vec![at("SnapshotFailed")], true),
            ("it was cancelled, and vCenter was away", vec![at("Canceled")], true),
        ];
        for (situation, snapshots, left) in cases {
            assert_eq!(!find(vec![taken.clone()], &snapshots, &[]).is_empty(), left, "{situation}");
        }
    }

    #[test]
    fn only_what_nobody_will_delete_counts_as_left_over() {
        let at = |phase: &str| {
            let status = SnapshotStatus { phase: Some(phase.into()), ..SnapshotStatus::default() };
            Snapshot { status: Some(status), ..snapshot("u1", "br-1") }
        };
        let labelled = |uid: &str| {
            let mut upload = Upload::new("upload-other", UploadSpec::default());
            upload.metadata.labels = Some([(labels::SNAPSHOT_UID.to_owned(), uid.to_owned())].into());
            upload
        };
        let named = Upload::new("upload-s", UploadSpec::default());
        let cases = [
            ("its Snapshot was deleted before the Upload was made", vec![], vec![], true),
            ("others' objects are there", vec![snapshot("u2", "br-1")], vec![labelled("u2")], true),
            ("its Snapshot waits for the driver", vec![snapshot("u1", "br-1")], vec![], false),
            ("its Snapshot is begun", vec![at("New")], vec![], false),
            ("its Snapshot failed while vCenter was away", vec![at("SnapshotFailed")], vec![], true),
            ("its Snapshot was deleted while the Upload copies", vec![], vec![named], false),
            ("an Upload for the same Snapshot", vec![], vec![labelled("u1")], false),
        ];
        for (situation, snapshots, uploads, left) in cases {
            let (disk_snapshot, snapshot_uid) = ("d:s".parse().unwrap(), "u1".to_owned());
            let taken = Taken { disk_snapshot, snapshot_uid, is_backup: false };
            assert_eq!(!find(vec![taken], &snapshots, &uploads).is_empty(), left, "{situation}");
        }
    }
}
