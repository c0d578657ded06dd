//! What the driver's sweeps would remove, told without removing it. Locks that nobody renews are not among it: the driver removes them
//! as it meets them.

use super::{Finding, Matter};
use crate::orphans::Kind;

/// How many are named.
const NAMED: usize = 5;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// [`Kind::DiskSnapshot`].
    DiskSnapshot,
    /// [`Kind::Lease`].
    Lease,
    /// [`Kind::OpenUpload`].
    OpenUpload,
    /// [`Kind::RestorePoint`].
    RestorePoint {
        /// Whether the settings let the driver delete them.
        removed: bool,
    },
    /// [`Kind::Repository`].
    Repository,
    /// [`Kind::RepositoryClaim`].
    RepositoryClaim,
    /// [`Kind::NewDisk`].
    NewDisk,
}

impl Left {
    /// What the metric calls it.
    pub fn kind(self) -> Kind {
        match self {
            Self::DiskSnapshot => Kind::DiskSnapshot,
            Self::Lease => Kind::Lease,
            Self::OpenUpload => Kind::OpenUpload,
            Self::RestorePoint { .. } => Kind::RestorePoint,
            Self::Repository => Kind::Repository,
            Self::RepositoryClaim => Kind::RepositoryClaim,
            Self::NewDisk => Kind::NewDisk,
        }
    }
}

/// A finding about one kind of leftovers.
pub fn judge(left: Left, found: &[String]) -> Finding {
    let (one, all, why, fix) = match left {
        Left::DiskSnapshot => (
            "disk snapshot",
            "disk snapshots",
            "It grows with every write to its volume, and counts among those that the volume may have.",
            "The driver deletes it within an hour. If it stays, see the driver's log.",
        ),
        Left::Lease => (
            "lease of a transfer that has ended",
            "leases of transfers that have ended",
            "It does no harm.",
            "The driver deletes it within minutes.",
        ),
        Left::OpenUpload => (
            "upload in parts that nobody goes on with",
            "uploads in parts that nobody goes on with",
            "The store keeps its parts, bills them, and shows them in no list of objects.",
            "The driver aborts it within hours, once it is as old as the setting orphan-age says.",
        ),
        Left::RestorePoint { removed } => (
            "restore point whose Velero backup is gone",
            "restore points whose Velero backups are gone",
            match removed {
                false => "It takes space until somebody deletes it; nothing does so by itself.",
                true => "It takes space until it is deleted.",
            },
            match removed {
                false => {
                    "Delete it with `restic forget` if nobody needs it, or set orphaned-restore-points to `remove` in the ConfigMap \
                     velero-vsphere-plugin-config: then the driver does."
                }
                true => {
                    "The driver deletes it, as orphaned-restore-points says, once it has found it so for orphan-age. Whoever needs it sets \
                     that to `keep` in the ConfigMap velero-vsphere-plugin-config before."
                }
            },
        ),
        Left::Repository => (
            "BackupRepository whose claim is gone",
            "BackupRepositories whose claims are gone",
            "It does no harm; the backups in the bucket do not need it.",
            "The driver deletes it within hours, once it is as old as the setting orphan-age says.",
        ),
        Left::RepositoryClaim => (
            "BackupRepositoryClaim that no storage location asks for",
            "BackupRepositoryClaims that no storage locations ask for",
            "Its location was changed or deleted. The backups in the bucket do not need it, but `vsphere-backup list` finds them by its \
             BackupRepository.",
            "The driver deletes it with its BackupRepository once it has found it so for as long as the setting orphan-age says. A storage \
             location with the same settings keeps it.",
        ),
        Left::NewDisk => (
            "disk that Velero took for a restore and that no volume has",
            "disks that Velero took for a restore and that no volumes have",
            "Velero was killed before it made the volume, or could not make it. The disk takes its space in vSphere.",
            "The driver deletes it once it has found it so for as long as the setting orphan-age says. Who wants to keep it makes a \
             PersistentVolume for it in this cluster before.",
        ),
    };
    let Some(first) = found.first() else { return Finding::ok(Matter::Leftovers, format!("no {one}")) };
    let seen = match found.len() {
        1 => format!("1 {one}: {first}"),
        count => {
            let more = if count > NAMED { format!(", and {} more", count - NAMED) } else { String::new() };
            format!("{count} {all}: {}{more}", found[..count.min(NAMED)].join(", "))
        }
    };
    Finding::warning(Matter::Leftovers, seen, why, fix)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_is_left_over_is_named_and_never_floods_the_screen() {
        assert_eq!(judge(Left::DiskSnapshot, &[]).verdict, Verdict::Ok);
        let one = judge(Left::DiskSnapshot, &["disk:snap".to_owned()]);
        assert_eq!((one.verdict, one.seen.as_str()), (Verdict::Warning, "1 disk snapshot: disk:snap"));
        let many: Vec<_> = (0..40).map(|n| format!("lease-{n}")).collect();
        let told = judge(Left::Lease, &many);
        assert!(told.seen.ends_with("lease-4, and 35 more"), "{}", told.seen);
    }

    #[test]
    fn nobody_is_told_that_a_restore_point_stays_when_the_driver_will_delete_it() {
        let told = |removed| judge(Left::RestorePoint { removed }, &["3fa2b1 of /shop/data".to_owned()]);
        let (kept, removed) = (told(false), told(true));
        assert!(kept.why.contains("nothing does so by itself") && kept.fix.contains("`remove`"), "{kept:?}");
        assert!(!removed.why.contains("by itself"), "{removed:?}");
        assert!(removed.fix.contains("The driver deletes it") && removed.fix.contains("`keep`"), "{removed:?}");
    }
}
