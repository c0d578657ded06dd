//! Processes of the lab that stand still, hardly get on, or die together with what they have started; and somebody who starts
//! again what has ended, as a kubelet does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::World;
use crate::left::helpers;

/// How long a slowed process stands still at a time.
const STILL: Duration = Duration::from_millis(90);
/// How long it runs in between.
const RUNS: Duration = Duration::from_millis(10);

impl World {
    /// SIGSTOP for a process of the lab: connections stay open, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self, process: &str) -> Result<()> {
        let pid = self.pid(process).await?;
        self.run("kill", &["-STOP", &pid]).await.map(drop)
    }

    /// Lets a paused process go on; one that has ended meanwhile is left as it is.
    ///
    /// # Errors
    /// When the lab's processes cannot be listed.
    pub async fn go_on(&self, process: &str) -> Result<()> {
        let pid = self.pid(process).await?;
        self.output("kill", &["-CONT", &pid]).await.map(drop)
    }

    /// Gives a process a tenth of its time for so long.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn slow_down(&self, process: &str, time: Duration) -> Result<()> {
        let pid = self.pid(process).await?;
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until && Path::new("/proc").join(&pid).exists() {
            self.output("kill", &["-STOP", &pid]).await?;
            tokio::time::sleep(STILL).await;
            self.output("kill", &["-CONT", &pid]).await?;
            tokio::time::sleep(RUNS).await;
        }
        Ok(())
    }

    /// SIGKILL for each process with the disk library that the lab's nodes have now; returns how many there were.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub async fn kill_helpers(&self) -> Result<usize> {
        let all = helpers(self)?;
        for helper in &all {
            self.output("kill", &["-KILL", &helper.pid]).await?; // it may have ended by itself
        }
        Ok(all.len())
    }

    /// Starts what has ended, as a kubelet would; returns the names.
    ///
    /// # Errors
    /// When one of them does not become ready.
    pub async fn revive(&self) -> Result<Vec<String>> {
        let all = self.ps().await?;
        let mut started = Vec::new();
        for line in all.lines() {
            let [name, state, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("`lab ps` says {line}")
            };
            if state == "ended" {
                self.start_process(name).await?;
                started.push(name.to_owned());
            }
        }
        Ok(started)
    }
}
