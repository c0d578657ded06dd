//! Looks whether a backup is in the store, in either format. `lifecycle::stored` says what a look means that failed. Reads only.

use api::parameters::RepositoryFormat;
use api::{BackupRepository, Reason};
use disk::DiskSnapshot;
use lifecycle::Problem;
use lifecycle::stored::{FailedLook, failed_look};

use crate::Repositories;
use crate::problems::{from_look_for_original, from_repository};

/// What is done, as a problem says it.
const ACT: &str = "look for the backup";

/// Whether the backup of a disk snapshot is in the store: in the original's layout, or in the repository of claims `from` a namespace; an
/// error there is why nobody knows which. `was_stored`: whether it was read back once, as [`lifecycle::stored::was_stored`] tells.
///
/// # Errors
/// Why nobody can say: it was not found in one format, and the look in the other one failed.
pub async fn is_stored(
    repositories: &Repositories,
    described: &BackupRepository,
    from: Result<&str, Problem>,
    taken: &DiskSnapshot,
    was_stored: bool,
) -> Result<bool, Problem> {
    let theirs = is_in_originals_layout(repositories, described, taken, was_stored).await;
    if let Ok(true) = theirs {
        return Ok(true);
    }
    let from = match from {
        Ok(from) => from,
        Err(unknown) => return theirs.and(Err(unknown)), // a store that is away may have it in the original's layout
    };
    let ours = is_in_repository(repositories, described, from, taken, was_stored).await;
    together(theirs, ours)
}

/// What the two looks say: one that has found it needs no other, and it is missing where both say so.
fn together(theirs: Result<bool, Problem>, ours: Result<bool, Problem>) -> Result<bool, Problem> {
    match (theirs, ours) {
        (Ok(true), _) | (_, Ok(true)) => Ok(true),
        (_, Err(unknown)) | (Err(unknown), Ok(false)) => Err(unknown),
        (Ok(false), Ok(false)) => Ok(false),
    }
}

async fn is_in_originals_layout(
    repositories: &Repositories,
    described: &BackupRepository,
    taken: &DiskSnapshot,
    was_stored: bool,
) -> Result<bool, Problem> {
    let looking = async {
        let found = repositories.original(described).await?.open(taken).await;
        found.map(|disk| disk.is_some()).map_err(|e| from_look_for_original(ACT, &e))
    };
    let problem = match looking.await {
        Ok(found) => return Ok(found),
        Err(problem) => problem,
    };
    let in_use = repositories.format(described).await.ok();
    match failed_look(&problem, RepositoryFormat::Legacy, in_use, was_stored) {
        FailedLook::Absent | FailedLook::AbsentUnlessMade => {
            if problem.reason == Reason::OldBackupIncomplete {
                tracing::warn!(%problem, "what is there is no whole backup");
            }
            Ok(false)
        }
        FailedLook::Unknown => Err(problem),
    }
}

async fn is_in_repository(
    repositories: &Repositories,
    described: &BackupRepository,
    from: &str,
    taken: &DiskSnapshot,
    was_stored: bool,
) -> Result<bool, Problem> {
    let repository = match repositories.open(described, from).await {
        Ok(repository) => repository,
        Err(problem) => {
            let in_use = repositories.format(described).await.ok();
            return match failed_look(&problem, RepositoryFormat::Restic, in_use, was_stored) {
                FailedLook::Absent => Ok(false),
                FailedLook::AbsentUnlessMade if !repositories.is_made(described, from).await? => Ok(false),
                FailedLook::AbsentUnlessMade | FailedLook::Unknown => Err(problem),
            };
        }
    };
    let found = repository.find(taken).await;
    found.map(|point| point.is_some()).map_err(|e| from_repository(ACT, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_one_look_has_found_is_not_missing_because_the_other_failed() {
        let away = || Err(Problem::passing(Reason::StoreUnreachable, ACT));
        let keyless = || Err(Problem::passing(Reason::RepositoryPasswordMissing, ACT));
        let cases = [
            ("in ours, and nobody can say of the original's layout", away(), Ok(true), Ok(true)),
            ("in the original's layout, and nobody can say of ours", Ok(true), keyless(), Ok(true)),
            (
                "not in ours, and nobody can say of the original's layout",
                away(),
                Ok(false),
                Err(Reason::StoreUnreachable),
            ),
            (
                "not in the original's layout, and nobody can say of ours",
                Ok(false),
                away(),
                Err(Reason::StoreUnreachable),
            ),
            ("nobody can say of either", away(), keyless(), Err(Reason::RepositoryPasswordMissing)),
            ("in neither", Ok(false), Ok(false), Ok(false)),
        ];
        for (situation, theirs, ours, want) in cases {
            assert_eq!(together(theirs, ours).map_err(|problem| problem.reason), want, "{situation}");
        }
    }
}
