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

/// A process that stands still as long as the value lives, also where a scenario ends early.
struct Stopped(String);

impl Stopped {
    fn new(pid: String) -> Result<Self> {
        signal("-STOP", &pid)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = signal("-CONT", &self.0); // it may have ended
    }
}

fn signal(signal: &str, pid: &str) -> Result<()> {
    std::process::Command::new("kill").args([signal, pid]).stderr(std::process::Stdio::null()).status()?;
    Ok(())
}

impl World {
    /// SIGSTOP for a process of the lab for so long: connections stay open, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self, process: &str, time: Duration) -> Result<()> {
        let stopped = Stopped::new(self.pid(process).await?)?;
        tokio::time::sleep(time).await;
        drop(stopped);
        Ok(())
    }

    /// Gives a process a tenth of its time for so long.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn slow_down(&self, process: &str, time: Duration) -> Result<()> {
        let pid = self.pid(process).await?;
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until && Path::new("/proc").join(&pid).exists() {
            let stopped = Stopped::new(pid.clone())?;
            tokio::time::sleep(STILL).await;
            drop(stopped);
            tokio::time::sleep(RUNS).await;
        }
        Ok(())
    }

    /// SIGKILL for each process with the disk library that the lab's nodes have now; returns how many there were.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub async fn kill_helpers(&self) -> Result<usize> {
        let all: Vec<_> = helpers(self)?.into_iter().filter(|helper| helper.is_ours).collect();
        for helper in &all {
            self.output("kill", &["-KILL", &helper.pid]).await?; // it may have ended by itself
        }
        Ok(all.len())
    }

    /// SIGSTOP for each process with the disk library that the lab's nodes have now, for so long; returns how many there were.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub async fn pause_helpers(&self, time: Duration) -> Result<usize> {
        let stopped = self.stop_helpers()?;
        if !stopped.is_empty() {
            tokio::time::sleep(time).await;
        }
        Ok(stopped.len())
    }

    /// Gives each process with the disk library a tenth of its time for so long, those that start meanwhile, too; returns how many there
    /// were at a time at most.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub async fn slow_helpers(&self, time: Duration) -> Result<usize> {
        let (until, mut most) = (tokio::time::Instant::now() + time, 0);
        while tokio::time::Instant::now() < until {
            let stopped = self.stop_helpers()?;
            most = most.max(stopped.len());
            tokio::time::sleep(STILL).await;
            drop(stopped);
            tokio::time::sleep(RUNS).await;
        }
        Ok(most)
    }

    fn stop_helpers(&self) -> Result<Vec<Stopped>> {
        let ours = helpers(self)?.into_iter().filter(|helper| helper.is_ours);
        ours.map(|helper| Stopped::new(helper.pid)).collect()
    }

    /// Starts what has ended, as a kubelet would; returns the names.
    ///
    /// # Errors
    /// When one of them does not become ready: the others, which it may wait for, are started all the same.
    pub async fn revive(&self) -> Result<Vec<String>> {
        let all = self.ps().await?;
        let (mut started, mut failed) = (Vec::new(), None);
        for line in all.lines() {
            let [name, state, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("`lab ps` says {line}")
            };
            if state == "ended" {
                match self.start_process(name).await {
                    Ok(()) => started.push(name.to_owned()),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(started), Err)
    }
}
