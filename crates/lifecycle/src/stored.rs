//! What it means that a look for a backup has failed: there is none, or nobody can say. A backup of a disk snapshot may lie in either
//! format, whatever is written now; somebody may have chosen the other one since.

use api::conditions::{self, STORED, Status};
use api::parameters::RepositoryFormat;
use api::{Condition, Reason};

use crate::Problem;

/// What a look that failed says of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedLook {
    /// It is not there.
    Absent,
    /// It is not there, unless somebody has made the repository: whoever has backups of the original alone may never have had a key.
    AbsentUnlessMade,
    /// Nobody can say.
    Unknown,
}

/// Whether the conditions of an Upload, or of its Snapshot, say that the backup was read back: only the disk snapshot was left to delete.
pub fn was_stored(said: &[Condition]) -> bool {
    conditions::get(said, STORED).is_some_and(|stored| stored.status == Status::True.as_str())
}

/// Decides about a look in one format. `in_use` is the format that is written now; `None` where nobody can tell. `was_stored` is what
/// [`was_stored`] says: a backup that was there once is not missing because the bucket is for a while, as behind a wrong endpoint or a
/// store that came up without its volume.
pub fn failed_look(
    problem: &Problem,
    format: RepositoryFormat,
    in_use: Option<RepositoryFormat>,
    was_stored: bool,
) -> FailedLook {
    use RepositoryFormat::{Legacy, Restic};
    match (format, problem.reason) {
        (Legacy | Restic, Reason::BucketMissing) if was_stored => FailedLook::Unknown,
        (Legacy | Restic, Reason::BucketMissing) | (Restic, Reason::RepositoryMissing) => FailedLook::Absent,
        // what is there is no whole backup
        (Legacy, Reason::OldBackupIncomplete) => FailedLook::Absent,
        (Legacy, _) if is_outside_our_folder(problem, in_use) => FailedLook::Absent,
        (Restic, Reason::RepositoryPasswordMissing) => FailedLook::AbsentUnlessMade,
        (Legacy | Restic, _) => FailedLook::Unknown,
    }
}

/// Whether a look in the original's folders was refused since our keys are for our folder alone: they have never written there.
pub fn is_outside_our_folder(problem: &Problem, in_use: Option<RepositoryFormat>) -> bool {
    problem.reason == Reason::StoreAccessDenied && in_use == Some(RepositoryFormat::Restic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_called_missing_only_where_a_look_could_not_have_missed_it() {
        use FailedLook::{Absent, AbsentUnlessMade, Unknown};
        use Reason::{
            BucketMissing, OldBackupIncomplete, RepositoryDamaged, RepositoryMissing, RepositoryPasswordMissing,
            RepositoryPasswordWrong, StoreAccessDenied, StoreFailed, StoreUnreachable,
        };
        use RepositoryFormat::{Legacy, Restic};
        let cases = [
            ("the bucket was removed", BucketMissing, Restic, Some(Restic), Absent),
            ("the same, for the original's folders", BucketMissing, Legacy, Some(Legacy), Absent),
            ("nobody has ever backed up there", RepositoryMissing, Restic, Some(Restic), Absent),
            ("it never had a key", RepositoryPasswordMissing, Restic, Some(Legacy), AbsentUnlessMade),
            ("the key was taken away", RepositoryPasswordMissing, Restic, Some(Restic), AbsentUnlessMade),
            ("the key was changed", RepositoryPasswordWrong, Restic, Some(Restic), Unknown),
            ("damage may hide it", RepositoryDamaged, Restic, Some(Restic), Unknown),
            ("the store is away", StoreUnreachable, Restic, Some(Restic), Unknown),
            ("it fails", StoreFailed, Legacy, Some(Legacy), Unknown),
            ("the original's backup is not whole", OldBackupIncomplete, Legacy, Some(Restic), Absent),
            ("keys for our folder alone", StoreAccessDenied, Legacy, Some(Restic), Absent),
            ("keys that were taken away", StoreAccessDenied, Legacy, Some(Legacy), Unknown),
            ("nobody knows what is written", StoreAccessDenied, Legacy, None, Unknown),
            ("our own folder refuses", StoreAccessDenied, Restic, Some(Restic), Unknown),
        ];
        for (situation, reason, format, in_use, want) in cases {
            let problem = Problem::passing(reason, "look for the backup");
            assert_eq!(failed_look(&problem, format, in_use, false), want, "{situation}");
            let was_stored = if reason == BucketMissing { Unknown } else { want };
            assert_eq!(failed_look(&problem, format, in_use, true), was_stored, "{situation}, and it was stored");
        }
    }

    #[test]
    fn only_what_was_read_back_counts_as_stored() {
        let noon = api::Timestamp::from_second(43_200).expect("a time");
        for (status, want) in [(Status::True, true), (Status::False, false), (Status::Unknown, false)] {
            let mut said = Vec::new();
            conditions::set(&mut said, STORED, status, Reason::Uploaded, "", noon);
            assert_eq!(was_stored(&said), want, "{status:?}");
        }
        assert!(!was_stored(&[]), "nothing was said");
    }
}
