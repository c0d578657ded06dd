//! What it means that a look for a backup has failed: there is none, or nobody can say. A backup of a disk snapshot may lie in either
//! format, whatever is written now; somebody may have chosen the other one since.

use api::Reason;
use api::parameters::RepositoryFormat;

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

/// Decides about a look in one format. `in_use` is the format that is written now; `None` where nobody can tell.
pub fn failed_look(problem: &Problem, format: RepositoryFormat, in_use: Option<RepositoryFormat>) -> FailedLook {
    use RepositoryFormat::{Legacy, Restic};
    match (format, problem.reason) {
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
            assert_eq!(failed_look(&problem, format, in_use), want, "{situation}");
        }
    }
}
