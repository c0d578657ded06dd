//! The processes of our plugin that Velero has started in a lab.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::world::LOOK;
use crate::{DEADLINE, World};

impl World {
    fn plugin(&self) -> PathBuf {
        self.folder().join("pods/velero/plugins/velero-plugin-for-vsphere")
    }

    /// Process ids of our plugin that live now.
    ///
    /// # Errors
    /// When the plugin is not there.
    pub fn plugins(&self) -> Result<Vec<u32>> {
        let program = self.plugin().canonicalize().context("find the plugin among Velero's")?;
        let mut found = Vec::new();
        for process in std::fs::read_dir("/proc")?.flatten() {
            let Ok(id) = process.file_name().to_string_lossy().parse() else { continue };
            if std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == program) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// SIGKILL for the one plugin process that is at work, as soon as there is one.
    ///
    /// # Errors
    /// When there is none in time, or more than one.
    pub async fn kill_plugin(&self) -> Result<()> {
        let due = tokio::time::Instant::now() + DEADLINE;
        loop {
            match self.plugins()?[..] {
                [] if tokio::time::Instant::now() > due => bail!("Velero has started no plugin"),
                [] => tokio::time::sleep(LOOK).await,
                [id] => return self.run("kill", &["-KILL", &id.to_string()]).await.map(drop),
                ref several => bail!("the plugin runs {} times", several.len()),
            }
        }
    }

    /// A host of our plugin on Velero's own plugin library, built where it is not there yet: that takes a minute in which a
    /// scenario must have nothing under way.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn plugin_host(&self) -> Result<PathBuf> {
        self.peer("plugin-host-1.7.0").await
    }

    /// Calls a method of our plugin as Velero would, on that host and in Velero's environment.
    ///
    /// # Errors
    /// When the plugin answers with an error.
    pub async fn call_plugin(&self, host: &Path, method: &str, question: &[&str]) -> Result<()> {
        let mut command = Command::new(host);
        command.args(["-call", method]).args(question.iter().flat_map(|field| ["-field", *field]));
        command.arg(self.plugin()).env_clear().envs(self.environment_of("velero").await?).current_dir(self.folder());
        let output = command.output().await?;
        ensure!(output.status.success(), "the host said {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).context("read the host's report")?;
        let call = &report["calls"][method];
        ensure!(call["code"] == 0, "{method} answered {call:#}");
        Ok(())
    }

    /// Most memory that any plugin process of now has held at one time, in KiB; 0 when there is none.
    ///
    /// # Errors
    /// When the plugin is not there.
    pub fn plugin_memory_kib(&self) -> Result<u64> {
        let peak = |id: u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?; // it may have ended meanwhile
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        Ok(self.plugins()?.into_iter().filter_map(peak).max().unwrap_or_default())
    }
}
