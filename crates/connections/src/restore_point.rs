//! Opens a restore point for a restore. What is wrong with another one does not make this one damaged.

use disk::DiskSnapshot;
use lifecycle::Problem;
use repository::{Error, Reader, Repository};

use crate::problems::{damaged, from_repository};

/// Finds and opens the restore point of a disk snapshot; `None` where the repository has none, or has none any more.
///
/// # Errors
/// As the repository says: `RestorePointDamaged` where it is found and cannot be read; `RepositoryDamaged` where others cannot be read,
/// which hides whether it is there.
pub async fn restore_point(repository: &Repository, source: &DiskSnapshot) -> Result<Option<Reader>, Problem> {
    match repository.reader_of(source).await {
        Ok(found) => Ok(found),
        Err(error) => {
            let found = repository.find(source).await.map_err(|e| from_repository("look for the restore point", &e))?;
            unread(&error, found.is_some()).map_or(Ok(None), Err)
        }
    }
}

/// What is wrong with a restore point that could not be read. Nothing where a second look finds it no more: it was deleted meanwhile,
/// and its data may be gone as well.
fn unread(error: &Error, is_there: bool) -> Option<Problem> {
    is_there.then(|| damaged("read the restore point", error))
}

#[cfg(test)]
mod tests {
    use api::Reason;
    use repository::Damage;

    use super::*;

    /// Somebody would look for what damaged the bucket.
    #[test]
    fn a_restore_point_that_is_deleted_while_it_is_read_is_missing_and_not_damaged() {
        let object = "data/5e/5eed".to_owned();
        let error = Error::Damaged { act: "read a pack".to_owned(), source: Damage::ObjectMissing { object } };
        assert_eq!(unread(&error, false), None);
        assert_eq!(unread(&error, true).map(|problem| problem.reason), Some(Reason::RestorePointDamaged));
    }
}
