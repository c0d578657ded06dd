//! What the driver's sweeps would remove, told without removing it.

use super::{Finding, Matter};
use crate::orphans::Kind;

/// How many are named.
const NAMED: usize = 5;

/// A finding about one kind of leftovers.
pub fn judge(kind: Kind, found: &[String]) -> Finding {
    let (one, all, why, fix) = match kind {
        Kind::DiskSnapshot => (
            "disk snapshot",
            "disk snapshots",
            "It grows with every write to its volume, and counts among those that the volume may have.",
            "The driver deletes it within an hour. If it stays, see the driver's log.",
        ),
        Kind::Lease => (
            "lease of a transfer that has ended",
            "leases of transfers that have ended",
            "It does no harm.",
            "The driver deletes it within minutes.",
        ),
        Kind::Lock => (
            "lock that nobody renews",
            "locks that nobody renews",
            "It keeps `restic prune` and `restic check` out.",
            "The driver removes it within an hour.",
        ),
        Kind::OpenUpload => (
            "upload in parts that nobody goes on with",
            "uploads in parts that nobody goes on with",
            "The store keeps its parts, bills them, and shows them in no list of objects.",
            "The driver aborts it within hours, once it is as old as the setting orphan-age says.",
        ),
        Kind::RestorePoint => (
            "restore point whose Velero backup is gone",
            "restore points whose Velero backups are gone",
            "It takes space until somebody deletes it; nothing does so by itself.",
            "Delete it with `restic forget` if nobody needs it, or set orphaned-restore-points to `remove` in the ConfigMap \
             velero-vsphere-plugin-config: then the driver does.",
        ),
        Kind::Repository => (
            "BackupRepository whose claim is gone",
            "BackupRepositories whose claims are gone",
            "It does no harm; the backups in the bucket do not need it.",
            "The driver deletes it within hours, once it is as old as the setting orphan-age says.",
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
        assert_eq!(judge(Kind::DiskSnapshot, &[]).verdict, Verdict::Ok);
        let one = judge(Kind::DiskSnapshot, &["disk:snap".to_owned()]);
        assert_eq!((one.verdict, one.seen.as_str()), (Verdict::Warning, "1 disk snapshot: disk:snap"));
        let many: Vec<_> = (0..40).map(|n| format!("lease-{n}")).collect();
        let told = judge(Kind::Lease, &many);
        assert!(told.seen.ends_with("lease-4, and 35 more"), "{}", told.seen);
    }
}
