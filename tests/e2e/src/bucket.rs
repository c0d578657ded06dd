//! A bucket of one scenario, which may be taken away.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::World;

/// A bucket on the lab's S3 server; to that, a bucket is a folder.
pub struct Bucket {
    name: String,
    folder: PathBuf,
}

impl World {
    /// Makes a bucket whose name begins with `prefix`.
    ///
    /// # Errors
    /// When the S3 server refuses.
    pub async fn bucket(&self, prefix: &str) -> Result<Bucket> {
        let name = format!("{prefix}-{}", uuid::Uuid::new_v4().simple());
        self.restic_at(&name, "made-by-restic").run(&["init"]).await?; // it makes the bucket that is not there
        let folder = self.folder().join("s3").join(&name);
        Ok(Bucket { name, folder })
    }
}

impl Bucket {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes it away with all that is in it.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn remove(self) -> Result<()> {
        // out of the way at once, so that nobody makes a new file in what is being removed
        let away = self.folder.with_extension("removed");
        std::fs::rename(&self.folder, &away)?;
        std::fs::remove_dir_all(&away).with_context(|| format!("remove the bucket {}", self.name))
    }
}
