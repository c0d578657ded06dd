//! The files that `ca-file` names and that are no keys of vCenter's Secret. Whoever replaces such a file leaves the Secret as it is, so they
//! are read again now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time;

/// Shortest time between two looks at the files.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// Longest time that a file is waited for. One that takes longer is read on meanwhile, and counts at a later look.
const WITHIN: Duration = Duration::from_secs(5);
/// No bundle of certificates is as large, in bytes.
const TOO_LARGE: u64 = 8 << 20;

/// A file's text, or why there is none.
type Content = Result<String, (ErrorKind, String)>;

/// The files as they were read last.
pub(crate) struct CaFiles {
    files: BTreeMap<PathBuf, Kept>,
    /// When they were looked at last.
    looked: Instant,
    /// Whether one has become another since they were [taken](Self::taken).
    changed: bool,
}

struct Kept {
    content: Content,
    /// It could not be read again.
    fails: bool,
    /// A reading that has not ended, or that nobody has asked for its end.
    reading: Option<Reading>,
}

struct Reading {
    told: oneshot::Receiver<Content>,
    /// It is waited for until then, and no more.
    until: time::Instant,
}

impl CaFiles {
    /// Reads these files.
    pub(crate) async fn read(paths: BTreeSet<PathBuf>, now: Instant) -> Self {
        let files = paths.into_iter().map(|path| (path, Kept::new())).collect();
        let mut all = Self { files, looked: now, changed: false };
        all.look().await;
        all.taken();
        all
    }

    /// Whether one of them has become another since they were taken. Asked again and again, they are looked at only so often.
    pub(crate) async fn changed(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked) >= EVERY {
            self.looked = now;
            self.look().await;
        }
        self.changed
    }

    /// Somebody follows what they say now.
    pub(crate) fn taken(&mut self) {
        self.changed = false;
    }

    /// The text of one of them.
    pub(crate) fn text(&self, path: &Path) -> io::Result<String> {
        let kept = self.files.get(path).ok_or(ErrorKind::NotFound)?;
        kept.content.clone().map_err(|(kind, why)| io::Error::new(kind, why))
    }

    /// Reads all of them at once.
    async fn look(&mut self) {
        let until = time::Instant::now() + WITHIN;
        for (path, kept) in &mut self.files {
            kept.begin(path, until);
        }
        for (path, kept) in &mut self.files {
            self.changed |= kept.end(path).await;
        }
    }
}

impl Kept {
    fn new() -> Self {
        let late = format!("no answer within {} s", WITHIN.as_secs());
        Self { content: Err((ErrorKind::TimedOut, late)), fails: false, reading: None }
    }

    /// Begins to read the file, unless the reading that was begun before goes on still.
    fn begin(&mut self, path: &Path, until: time::Instant) {
        if self.reading.is_some() {
            return;
        }
        let (tell, told) = oneshot::channel();
        let path = path.to_owned();
        let read = move || drop(tell.send(content(&path))); // nobody may be there to hear it
        // a thread of its own: one of the runtime's that hangs would hold up the end of the program
        drop(thread::Builder::new().name("ca-file".to_owned()).spawn(read));
        self.reading = Some(Reading { told, until });
    }

    /// Takes what was read; says whether it is another than before. What is not read in time leaves what was there.
    async fn end(&mut self, path: &Path) -> bool {
        let Some(reading) = &mut self.reading else { return false };
        let content = match time::timeout_at(reading.until, &mut reading.told).await {
            Ok(told) => told.unwrap_or_else(|_| Err((ErrorKind::Other, "the reading was given up".to_owned()))),
            Err(_) => return false,
        };
        self.reading = None;
        match (&self.content, &content) {
            // of a disk or a server that fails, or of a machine without threads: it is no other file for that
            (Ok(_), Err((kind, why))) if !matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidData) => {
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(file = %path.display(), why, "a ca-file cannot be read again; what was read of it before counts on");
                }
                false
            }
            (before, now) if before == now => {
                self.fails = false;
                false
            }
            _ => {
                (self.content, self.fails) = (content, false);
                true
            }
        }
    }
}

fn content(path: &Path) -> Content {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(TOO_LARGE).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 == TOO_LARGE => {
            Err((ErrorKind::InvalidData, format!("it has {TOO_LARGE} bytes or more")))
        }
        Ok(_) => Ok(text),
        Err(error) => Err((error.kind(), error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_file_is_not_read_each_time_that_somebody_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        std::fs::write(&path, "first").unwrap();
        let begun = Instant::now();
        let mut files = CaFiles::read(BTreeSet::from([path.clone()]), begun).await;
        assert_eq!(EVERY, Duration::from_secs(10), "as docs/velero.md says");
        std::fs::write(&path, "second").unwrap();
        assert!(!files.changed(begun + EVERY / 2).await);
        assert_eq!(files.text(&path).unwrap(), "first");
        assert!(files.changed(begun + EVERY).await);
        assert!(files.changed(begun + EVERY).await, "who was stopped before the new one was taken hears it again");
        files.taken();
        assert!(!files.changed(begun + EVERY * 2).await);
        assert_eq!(files.text(&path).unwrap(), "second");
    }

    /// A file system that fails for a while costs no session of vCenter.
    #[tokio::test]
    async fn a_file_that_cannot_be_read_for_a_while_counts_as_it_was_and_one_that_is_gone_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        std::fs::write(&path, "first").unwrap();
        let mut now = Instant::now();
        let mut files = CaFiles::read(BTreeSet::from([path.clone()]), now).await;
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap(); // reading a folder fails, for whoever asks
        now += EVERY;
        assert!(!files.changed(now).await);
        assert_eq!(files.text(&path).unwrap(), "first");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, [0x30, 0x82, 0xff]).unwrap();
        now += EVERY;
        assert!(files.changed(now).await, "another file is there, and it is no text");
        assert_eq!(files.text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        files.taken();
        std::fs::remove_file(&path).unwrap();
        now += EVERY;
        assert!(files.changed(now).await);
        assert_eq!(files.text(&path).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// As on a network's file system whose server is away. A named pipe has no answer until somebody writes to it.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_holds_nobody_up_and_counts_once_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut now = Instant::now();
        let mut files = CaFiles::read(BTreeSet::from([path.clone()]), now).await;
        let late = files.text(&path).unwrap_err();
        assert_eq!((late.kind(), late.to_string().as_str()), (ErrorKind::TimedOut, "no answer within 5 s"));
        let before = time::Instant::now();
        now += EVERY;
        assert!(!files.changed(now).await);
        assert!(before.elapsed() < WITHIN / 5, "it is not waited for twice");
        std::fs::write(&path, "there").unwrap(); // to the one who reads
        let until = Instant::now() + Duration::from_secs(30);
        while !files.changed(now).await {
            assert!(Instant::now() < until, "what was read is never told");
            now += EVERY;
            thread::yield_now();
        }
        assert_eq!(files.text(&path).unwrap(), "there");
    }
}
