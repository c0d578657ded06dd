//! A file that a restore makes: written under another name, so that whatever has the asked-for name is complete.
//!
//! `NAME.partial` lies beside `NAME`. Dropped before [`Partial::complete`], it is removed; a SIGKILL leaves it, and nothing
//! else. A lock on the file tells one that is being written from one that was left.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::{Refused, exit};

/// What the name ends in until the restore is complete.
const ENDING: &str = ".partial";

/// A file that holds half a restore.
#[derive(Debug)]
pub(crate) struct Partial {
    /// `None`: it is no longer ours to remove.
    path: Option<PathBuf>,
    target: PathBuf,
    /// Locked for as long as the restore runs.
    file: File,
}

impl Partial {
    /// Makes the file for `target`, which is not there, with `size` bytes of holes. What a killed restore left is refused,
    /// or replaced where that is `allowed`.
    pub(crate) fn make(target: &Path, size: u64, allowed: bool) -> Result<Self> {
        if target.symlink_metadata().is_ok() {
            return Err(Refused::new("it is a link to a file that is missing", "name that file itself").into());
        }
        let path = beside(target);
        let file = match File::create_new(&path) {
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                remove_left_behind(&path, allowed)?;
                File::create_new(&path)
            }
            made => made,
        };
        let refused = |cause: io::Error| {
            Refused::new(format!("make {}: {cause}", path.display()), "name a file in a folder that exists")
        };
        let file = file.map_err(refused)?;
        let made = Self { path: Some(path), target: target.to_owned(), file };
        // where files cannot be locked, nobody finds ours to be abandoned unless told to by --force
        let _ = made.file.try_lock();
        made.file.set_len(size).context("give the file its size")?;
        Ok(made)
    }

    /// Where it is until it is complete.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().expect("it has its path until it is complete or removed")
    }

    /// Gives it its name: everything was written and flushed. It never takes the place of another file.
    pub(crate) fn complete(mut self) -> Result<()> {
        let path = self.path.take().expect("it has its path until it is complete or removed"); // from here on it stays
        let taken = || Refused {
            message: format!(
                "name it: meanwhile something else has the name; the complete restore is {}",
                path.display()
            ),
            fix: "give it another name".into(),
            code: exit::FAILED,
        };
        match fs::hard_link(&path, &self.target) {
            Ok(()) => fs::remove_file(&path).with_context(|| format!("remove its other name {}", path.display()))?,
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => return Err(taken().into()),
            // a file system without hard links
            Err(_) if self.target.symlink_metadata().is_ok() => return Err(taken().into()),
            Err(_) => {
                let act = || format!("name it: the complete restore is {}", path.display());
                fs::rename(&path, &self.target).with_context(act)?;
            }
        }
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).context("make its name durable")
    }

    /// Removes it; says what is left, as part of a sentence.
    pub(crate) fn remove(mut self) -> String {
        let path = self.path.take().expect("it has its path until it is complete or removed");
        match fs::remove_file(&path) {
            Ok(()) => "the file is removed again".to_owned(),
            Err(cause) => format!("{} is incomplete and could not be removed: {cause}", path.display()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // gone already is fine, and there is nobody left to tell otherwise
            let _ = fs::remove_file(path);
        }
    }
}

fn beside(target: &Path) -> PathBuf {
    let mut name = OsString::from(target);
    name.push(ENDING);
    name.into()
}

fn remove_left_behind(path: &Path, allowed: bool) -> Result<()> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("look at {name}, which is in the way"))?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        let message = format!("another restore is writing {name}");
        return Err(Refused::new(message, "wait until it ends, or name another file").into());
    }
    if !allowed {
        let message = format!("{name} is in the way: a restore that was killed has left it");
        return Err(Refused::new(message, "remove it, or add --force to replace it").into());
    }
    // ours is the lock on the very file that has the name, so nobody else removes it or has just made it
    let (locked, named) = (file.metadata()?, path.symlink_metadata()?);
    if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
        fs::remove_file(path).with_context(|| format!("remove {name}, which a killed restore has left"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn a_file_that_came_meanwhile_is_not_overwritten_and_the_restore_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("disk.raw");
        let partial = Partial::make(&target, 7, false).unwrap();
        fs::write(&target, "precious").unwrap();
        let said = format!("{:#}", partial.complete().unwrap_err());
        assert!(said.contains("disk.raw.partial"), "{said}");
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(fs::metadata(beside(&target)).unwrap().len(), 7);
    }

    #[test]
    fn a_restore_that_runs_is_not_taken_for_one_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("disk.raw");
        let running = Partial::make(&target, 7, false).unwrap();
        for allowed in [false, true] {
            let said = format!("{:#}", Partial::make(&target, 7, allowed).unwrap_err());
            assert!(said.contains("another restore is writing"), "{said}");
        }
        running.complete().unwrap();
        assert!(target.exists() && !beside(&target).exists());

        let other = folder.path().join("other.raw");
        fs::write(beside(&other), "left by a SIGKILL").unwrap();
        assert!(format!("{:#}", Partial::make(&other, 7, false).unwrap_err()).contains("killed"));
        drop(Partial::make(&other, 7, true).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what is not complete goes");
    }
}
