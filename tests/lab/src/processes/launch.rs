//! Starts one program in a session of its own, with its own environment and its output in a file.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::proc::Stat;
use super::record::Record;

/// A program that is about to be started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Its name in the lab.
    pub(crate) name: String,
    /// The program, as an absolute path.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its whole environment: nothing is inherited, as in a container.
    pub(crate) env: BTreeMap<String, String>,
    /// The folder it starts in.
    pub(crate) folder: PathBuf,
    /// Further files whose change asks for a restart.
    pub(crate) watched: Vec<PathBuf>,
    /// Whether what it has started dies with it, as the processes of a container do with the first one.
    pub(crate) takes_children_along: bool,
}

impl Launch {
    pub(super) fn spawn(&self, log: &Path) -> Result<Record> {
        for folder in [log.parent().unwrap_or(log), &self.folder] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let mut watched = self.watched.clone();
        watched.push(self.program.clone());
        watched.sort();
        watched.dedup();
        let mut out = OpenOptions::new().create(true).append(true).open(log)?;
        writeln!(out, "--- {} started {}", self.name, jiff::Timestamp::now())?;
        // `setsid` replaces itself, so the pid stays: Rust's own call for it would need unsafe code
        let mut child = Command::new("setsid")
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let number = i32::try_from(child.id()).context("a pid is an i32")?;
        let mut record = Record::take(&self.name, number, &self.program, &watched);
        match &mut record {
            Ok(record) => record.takes_children_along = self.takes_children_along,
            Err(_) => drop(child.kill()),
        }
        wait_for_session(number);
        // collects the process when it ends while we still live; else the machine's first process does
        std::thread::Builder::new().name("collect".to_owned()).stack_size(64 << 10).spawn(move || child.wait())?;
        record
    }
}

/// Until the child leads its session, a signal to our own group would still reach it.
fn wait_for_session(number: i32) {
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while Stat::of(number).is_some_and(|stat| stat.session != number && !stat.has_ended()) {
        if std::time::Instant::now() > end {
            return;
        }
        std::thread::sleep(Duration::from_millis(1)); // pause between two looks
    }
}

/// The last lines of a log since its process was started last.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    const LOOK_BACK: u64 = 64 << 10; // bytes; more does not fit on a screen
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LOOK_BACK)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|e| format!("(no log: {e})"));
    let all: Vec<&str> = text.lines().collect();
    let start = all.iter().rposition(|line| line.starts_with("--- ")).unwrap_or(0);
    all[start.max(all.len().saturating_sub(lines))..].join("\n")
}
