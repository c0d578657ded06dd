//! The record of one started process: enough to recognise it later, and to start it again as it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::proc::{Stat, boot_id, pids};
use super::{State, pid};

/// What is remembered of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its name in the lab.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was.
    pub started_ticks: u64,
    /// The start of the machine it runs on.
    pub boot_id: String,
    /// When it was started, for people (RFC 3339).
    pub started: String,
    /// The program.
    pub program: PathBuf,
    /// Programs and libraries whose change asks for a restart.
    pub made_from: BTreeMap<PathBuf, Fingerprint>,
    /// Whether what it has started dies with it.
    #[serde(default)]
    pub takes_children_along: bool,
}

/// Size and time of a file: enough to see that it was built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    bytes: u64,
    modified_ns: i128,
}

impl Fingerprint {
    /// Of a file that is there.
    ///
    /// # Errors
    /// When it is not.
    pub fn of(path: &Path) -> Result<Self> {
        let facts = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        let modified_ns = i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec());
        Ok(Self { bytes: facts.len(), modified_ns })
    }
}

impl Record {
    /// Takes down a process that was just started.
    pub(super) fn take(name: &str, number: i32, program: &Path, watched: &[PathBuf]) -> Result<Self> {
        let Some(stat) = Stat::of(number) else { bail!("{name} ended at once") };
        let mut made_from = BTreeMap::new();
        for file in watched {
            made_from.insert(file.clone(), Fingerprint::of(file)?);
        }
        Ok(Self {
            name: name.to_owned(),
            pid: number,
            started_ticks: stat.started_ticks,
            boot_id: boot_id(),
            started: jiff::Timestamp::now().to_string(),
            program: program.to_owned(),
            made_from,
            takes_children_along: false,
        })
    }

    pub(super) fn read(file: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| format!("understand {}", file.display()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let half_made = file.with_extension("partial");
        fs::write(&half_made, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&half_made, file).with_context(|| format!("write {}", file.display()))
    }

    /// Whether the process still runs. Another one that was given the same pid later does not count.
    pub fn state(&self) -> State {
        match Stat::of(self.pid) {
            Some(stat) if self.is_this(stat) && !stat.has_ended() => State::Running,
            _ => State::Ended,
        }
    }

    /// Whether a file it was made from has changed since it was started.
    pub fn is_outdated(&self) -> bool {
        self.made_from.iter().any(|(file, then)| Fingerprint::of(file).is_ok_and(|now| now != *then))
    }

    fn is_this(&self, stat: Stat) -> bool {
        stat.started_ticks == self.started_ticks && self.boot_id == boot_id()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        if self.state() != State::Running {
            return Ok(());
        }
        match kill_process(pid(self.pid)?, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("signal {} (pid {})", self.name, self.pid)),
        }
    }

    /// Other processes of the session that this one leads or led. A session keeps its number as long as somebody is in it,
    /// so members that are younger than the leader are its children, unless the number went to a stranger since.
    pub(super) fn rest_of_session(&self) -> Vec<Pid> {
        if self.boot_id != boot_id() || Stat::of(self.pid).is_some_and(|stat| !self.is_this(stat)) {
            return Vec::new();
        }
        let ours =
            |stat: &Stat| stat.session == self.pid && stat.started_ticks >= self.started_ticks && !stat.has_ended();
        let others = pids().into_iter().filter(|p| *p != self.pid);
        others.filter(|p| Stat::of(*p).is_some_and(|s| ours(&s))).filter_map(|p| pid(p).ok()).collect()
    }
}
