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
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use api::Reason;
    use repository::store::{ErrorKind, Fault, FaultyStore, FolderStore, Operation};
    use repository::{Damage, DiskFacts, NewRestorePoint, WriterOptions};
    use secrecy::SecretString;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    /// Somebody would look for what damaged the bucket.
    #[test]
    fn a_restore_point_that_is_deleted_while_it_is_read_is_missing_and_not_damaged() {
        let object = "data/5e/5eed".to_owned();
        let error = Error::Damaged { act: "read a pack".to_owned(), source: Damage::ObjectMissing { object } };
        assert_eq!(unread(&error, false), None);
        assert_eq!(unread(&error, true).map(|problem| problem.reason), Some(Reason::RestorePointDamaged));
    }

    /// The first look finds it; then its data goes, and in one case the restore point as well: a deletion and a maintenance run.
    #[tokio::test]
    async fn a_restore_point_that_goes_between_two_looks_is_missing_and_one_that_stays_without_its_data_is_damaged() {
        for (is_deleted, want) in [(true, Ok(false)), (false, Err(Reason::RestorePointDamaged))] {
            let folder = tempfile::tempdir().unwrap();
            let store = FaultyStore::new(Arc::new(FolderStore::new(folder.path())));
            let key = SecretString::from("a key for tests");
            let writing = repository::initialise(Arc::new(store.clone()), &key).await.unwrap();
            let source: DiskSnapshot = "disk:snap".parse().unwrap();
            let facts = DiskFacts { snapshot: Some(source.clone()), ..DiskFacts::of_size(1 << 20) };
            let point = NewRestorePoint::new("a-cluster", "/shop/claim", api::Timestamp::now(), facts);
            let writer = writing.writer(point, WriterOptions::default()).await.unwrap();
            writer.put_zero(0..writer.chunk_count()).await.unwrap();
            let written = writer.commit().await.unwrap();

            let reading = repository::open(Arc::new(store.clone()), &key).await.unwrap();
            store.fail(Fault::always(Operation::Get, "data/", ErrorKind::NotFound).until_healed());
            let looking =
                tokio::spawn(async move { restore_point(&reading, &source).await.map(|found| found.is_some()) });
            let begun = Instant::now();
            while store.struck() == 0 {
                assert!(
                    begun.elapsed() < WITHIN && !looking.is_finished(),
                    "the first look finds it and reads its data"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            std::fs::remove_dir_all(folder.path().join("data")).unwrap();
            if is_deleted {
                writing.forget(&written.id).await.unwrap();
            }
            store.heal();
            let told = tokio::time::timeout(WITHIN, looking).await.expect("both looks come to their end").unwrap();
            assert_eq!(told.map_err(|problem| problem.reason), want, "deleted: {is_deleted}");
        }
    }
}
