//! A bucket of one scenario, which may be taken away.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

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

    /// Gives it to an account, by its key's id: the keys of all others are refused from then on.
    ///
    /// # Errors
    /// When the S3 server refuses.
    pub async fn give_to(&self, world: &World, account: &str) -> Result<()> {
        let root = world.environment_of("s3").await?;
        let root = |name: &str| root.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let mut admin = Command::new(world.peer("versitygw").await?);
        admin.args(["admin", "change-bucket-owner", "--bucket", &self.name, "--owner", account]);
        admin.env("ADMIN_ACCESS_KEY_ID", root("ROOT_ACCESS_KEY").context("the S3 server's own account")?);
        admin.env("ADMIN_SECRET_ACCESS_KEY", root("ROOT_SECRET_KEY").context("the S3 server's own account")?);
        admin.env("ADMIN_ENDPOINT_URL", world.var("S3_ENDPOINT")).env("ADMIN_REGION", world.var("AWS_REGION"));
        let output = admin.output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "give bucket {} to {account}: {said}", self.name);
        Ok(())
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
