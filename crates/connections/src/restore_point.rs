//! Opens a restore point for a restore. What is wrong with another one does not make this one damaged.

use disk::DiskSnapshot;
use lifecycle::Problem;
use repository::{Reader, Repository};

use crate::problems::{damaged, from_repository};

/// Finds and opens the restore point of a disk snapshot; `None` where the repository has none.
///
/// # Errors
/// As the repository says: `RestorePointDamaged` where it is found and cannot be read; `RepositoryDamaged` where others cannot be read,
/// which hides whether it is there.
pub async fn restore_point(repository: &Repository, source: &DiskSnapshot) -> Result<Option<Reader>, Problem> {
    match repository.reader_of(source).await {
        Ok(found) => Ok(found),
        Err(error) => {
            repository.find(source).await.map_err(|e| from_repository("look for the restore point", &e))?;
            Err(damaged("read the restore point", &error))
        }
    }
}
