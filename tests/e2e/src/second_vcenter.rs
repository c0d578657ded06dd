//! A second vCenter beside a lab's own, which gets disks of the first as if they had always been its.
//!
//! The stand-in for the disk library knows the first one's store alone, so a link there leads to the other's; no vCenter double takes a
//! link for a disk of its own.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{Claim, Control, World, put_right};

/// Its name among the processes of the lab.
pub const SECOND_VCENTER: &str = "second-vcenter";

impl World {
    /// Starts a second vCenter that has the disk of this claim from now on, and the first one has not.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn second_vcenter_with(&self, claim: &Claim) -> Result<()> {
        let [first, second] = self.stores(claim)?;
        std::fs::create_dir_all(second.parent().context("a store has a folder")?)?;
        copy(&first, &second)?;
        self.control().remove_disk(claim.disk.as_str()).await?;
        std::os::unix::fs::symlink(&second, &first).context("let the disk library see a disk of the second vCenter")?;
        self.start_process(SECOND_VCENTER).await
    }

    /// Ends the second vCenter, and gives its disk back to the first: each step is done whatever became of the others, and also where
    /// [`World::second_vcenter_with`] came to none of it.
    ///
    /// # Errors
    /// The first step that failed, such as the first vCenter's start with the disk.
    pub async fn without_second_vcenter(&self, claim: &Claim) -> Result<()> {
        let [first, second] = self.stores(claim)?;
        let _ = self.kill(SECOND_VCENTER).await; // a scenario may have killed it, or never started it
        let _ = self.kill("vcenter").await;
        let given_back = match first.symlink_metadata() {
            Ok(found) if !found.is_symlink() => Ok(()), // it never left
            Ok(_) => std::fs::remove_file(&first)
                .with_context(|| format!("remove link {}", first.display()))
                .and_then(|()| copy(&second, &first)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => copy(&second, &first),
            Err(error) => Err(error).with_context(|| format!("look at {}", first.display())),
        };
        put_right(Ok(()), [given_back, self.start_process("vcenter").await])
    }

    /// The port that a process of the lab listens on.
    ///
    /// # Errors
    /// When it was never started.
    pub fn port(&self, process: &str) -> Result<u16> {
        let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(self.folder().join("lab.json"))?)?;
        let port = facts["ports"][process].as_u64().with_context(|| format!("{process} has no port"))?;
        Ok(u16::try_from(port)?)
    }

    /// The control address of the second vCenter.
    ///
    /// # Errors
    /// When it was never started.
    pub fn second_control(&self) -> Result<Control> {
        Ok(Control::new(&format!("http://127.0.0.1:{}", self.port(&format!("{SECOND_VCENTER}-control"))?)))
    }

    /// Where the two vCenters keep that disk.
    fn stores(&self, claim: &Claim) -> Result<[PathBuf; 2]> {
        let place = |store: &str| self.folder().join(store).join(claim.disk.as_str());
        Ok(["vcenter", SECOND_VCENTER].map(place))
    }
}

/// Copies a folder of a store as it is.
fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), &target)?),
        }
    }
    Ok(())
}
