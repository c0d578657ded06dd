//! Processes of a lab: started in sessions of their own, remembered in files, ended only when they are still the ones we
//! started. Knows nothing of what they are for.

mod launch;
mod proc;
mod record;

pub(crate) use launch::{Launch, tail};
pub use record::{Fingerprint, Record};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// The processes of one lab, by name.
#[derive(Debug, Clone)]
pub struct Processes {
    folder: PathBuf,
}

/// Whether a process of the lab runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It was started once and has ended.
    Ended,
}

impl Processes {
    /// The processes recorded below a lab's folder.
    pub fn new(lab: &Path) -> Self {
        Self { folder: lab.to_owned() }
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.folder.join("run").join(format!("{name}.json"))
    }

    /// The file with everything that the process of that name has printed.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// What is known of a process that was started once.
    ///
    /// # Errors
    /// When its record is there and cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Record>> {
        Record::read(&self.record_file(name))
    }

    /// Every process that was started once, in the order in which they were started last.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn all(&self) -> Result<Vec<Record>> {
        let Ok(entries) = fs::read_dir(self.folder.join("run")) else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                all.extend(Record::read(&path)?);
            }
        }
        all.sort_by_key(|r| (r.started_ticks, r.pid));
        Ok(all)
    }

    /// Whether the process of that name runs.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn runs(&self, name: &str) -> Result<bool> {
        Ok(self.find(name)?.is_some_and(|r| r.state() == State::Running))
    }

    /// Starts a process unless it runs; says whether it did.
    pub(crate) fn start(&self, launch: &Launch) -> Result<bool> {
        if self.runs(&launch.name)? {
            return Ok(false);
        }
        if let Some(before) = self.find(&launch.name)?.filter(|record| record.takes_children_along) {
            self.end_at_once(&before)?; // it ended by itself and may have left children
        }
        let record = launch.spawn(&self.log_file(&launch.name))?;
        record.write(&self.record_file(&launch.name))?;
        Ok(true)
    }

    /// SIGKILL for one process, and waits until it is gone. What it has started itself is left alone, as when the kernel
    /// kills a process for want of memory; unless its record says that it takes its children along.
    ///
    /// # Errors
    /// When there is no such process, or it does not run.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let Some(record) = self.find(name)? else { bail!("this lab never started a process {name:?}") };
        if record.state() != State::Running {
            bail!("{name} does not run");
        }
        if record.takes_children_along {
            self.end_at_once(&record)?;
        } else {
            record.signal(Signal::KILL)?;
        }
        self.gone(&record).await
    }

    /// Ends one process and what it has started: SIGTERM, and SIGKILL when it is still there after `patience`.
    ///
    /// # Errors
    /// When it survives SIGKILL.
    pub async fn end(&self, name: &str, patience: Duration) -> Result<()> {
        let Some(record) = self.find(name)? else { return Ok(()) };
        if record.state() == State::Running && !patience.is_zero() {
            record.signal(Signal::TERM)?;
            let _ =
                until(patience, "a process ends", async || Ok((record.state() == State::Ended).then_some(()))).await;
        }
        self.end_at_once(&record)?;
        self.gone(&record).await
    }

    /// SIGKILL for a process and the rest of its session, without waiting.
    pub(crate) fn end_at_once(&self, record: &Record) -> Result<()> {
        if record.state() == State::Running {
            record.signal(Signal::KILL)?;
        }
        for left in record.rest_of_session() {
            let _ = kill_process(left, Signal::KILL); // it may have ended meanwhile
        }
        Ok(())
    }

    async fn gone(&self, record: &Record) -> Result<()> {
        let what = format!("{} (pid {}) is gone after SIGKILL", record.name, record.pid);
        until(Duration::from_secs(10), &what, async || Ok((record.state() == State::Ended).then_some(()))).await
    }

    /// Ends every process of the lab and forgets them: the youngest first, but those named in `last` after all others, in
    /// that order. Who ends after what it needs may wait for it in vain.
    ///
    /// # Errors
    /// When one of them survives.
    pub async fn end_all(&self, patience: Duration, last: &[&str]) -> Result<()> {
        let mut all = self.all()?;
        all.reverse();
        all.sort_by_key(|record| last.iter().position(|name| *name == record.name).map_or(0, |place| place + 1));
        for record in all {
            self.end(&record.name, patience).await?;
            let file = self.record_file(&record.name);
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        Ok(())
    }
}

/// A pid as rustix wants it; 0 and negative ones mean groups and are never ours.
fn pid(number: i32) -> Result<Pid> {
    Pid::from_raw(number).filter(|_| number > 1).with_context(|| format!("{number} is no process of a lab"))
}

#[cfg(test)]
mod tests;
