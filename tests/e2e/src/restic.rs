//! restic as an independent judge of a repository in the lab's bucket.

use std::path::Path;

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::World;

/// restic on the repository of one source namespace.
pub struct Restic<'w> {
    world: &'w World,
    repository: String,
}

impl World {
    /// restic on the repository of claims that are backed up from `namespace`.
    pub fn restic(&self, namespace: &str) -> Restic<'_> {
        self.restic_at(self.var("S3_BUCKET"), &format!("plugins/vsphere-restic-repo/{namespace}"))
    }

    /// restic on a repository under a prefix of a bucket.
    pub(crate) fn restic_at(&self, bucket: &str, prefix: &str) -> Restic<'_> {
        Restic { world: self, repository: format!("s3:{}/{bucket}/{prefix}", self.var("S3_ENDPOINT")) }
    }
}

impl Restic<'_> {
    /// Runs restic and returns its standard output.
    ///
    /// # Errors
    /// When restic says no; the error holds its words.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let out = self.command().args(arguments).output().await?;
        if !out.status.success() {
            bail!("restic {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// `restic check --read-data`.
    ///
    /// # Errors
    /// When restic finds anything wrong.
    pub async fn check(&self) -> Result<()> {
        self.run(&["check", "--read-data", "--no-cache"]).await.map(drop)
    }

    /// Ids of the snapshots in the repository; empty when there is no repository yet.
    ///
    /// # Errors
    /// When restic cannot read them.
    pub async fn snapshots(&self) -> Result<Vec<serde_json::Value>> {
        Ok(serde_json::from_str(&self.run(&["snapshots", "--json", "--no-cache", "--no-lock"]).await?)?)
    }

    /// The documented one-liner: a restore point as a raw disk, without us.
    ///
    /// # Errors
    /// When a command of the pipe fails.
    pub async fn dump(&self, snapshot: &str, target: &Path) -> Result<()> {
        let line = format!(
            "set -o pipefail; restic dump --no-cache --no-lock {snapshot} /extents | tar xO | dd of='{}' bs=1M iflag=fullblock conv=sparse status=none",
            target.display()
        );
        let out = self.command_for("bash").args(["-c", &line]).output().await?;
        if !out.status.success() {
            bail!("{line}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(())
    }

    fn command(&self) -> Command {
        self.command_for("restic")
    }

    fn command_for(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("RESTIC_REPOSITORY", &self.repository);
        for name in ["RESTIC_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
            command.env(name, self.world.var(name));
        }
        command.env("AWS_DEFAULT_REGION", self.world.var("AWS_REGION"));
        command
    }
}
