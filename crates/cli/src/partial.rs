//! A file that a restore makes: written under another name, so that whatever has the asked-for name is complete.
//!
//! `NAME.partial` lies beside `NAME`. Dropped before [`Partial::complete`], it is removed; a SIGKILL leaves it, and nothing
//! else. A lock on the file tells one that is being written from one that was left. Only what is still our very file is given
//! its name or removed: whatever else has come to lie at its path is somebody else's.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
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
        // where files cannot be locked, nobody finds ours to be abandoned unless told to by --force
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(written_by_another(&path)); // it was found unlocked, a moment after it was made
        }
        let made = Self { path: Some(path), target: target.to_owned(), file };
        if !made.has_its_name() {
            return Err(written_by_another(made.path())); // it was taken for abandoned before it was locked
        }
        made.file.set_len(size).context("give the file its size")?;
        Ok(made)
    }

    fn path(&self) -> &Path {
        self.path.as_deref().expect("it has its path until it is complete or removed")
    }

    /// A path of the locked file itself, whatever lies beside the target meanwhile. Of this process only.
    pub(crate) fn path_to_write(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether what lies at its path is the very file that was made and locked.
    fn has_its_name(&self) -> bool {
        let Some(path) = &self.path else { return false };
        let same = || Ok::<_, io::Error>(is_same(&self.file.metadata()?, &path.symlink_metadata()?));
        same().unwrap_or(false)
    }

    /// Gives it its name: everything was written and flushed. It never takes the place of another file.
    pub(crate) fn complete(mut self) -> Result<()> {
        if !self.has_its_name() {
            let message = format!("name it: {} is no longer the file that was written", self.path().display());
            self.path = None; // it is not ours to remove
            let fix = "see what else writes to that folder, then restore again".into();
            return Err(Refused { message, fix, code: exit::FAILED }.into());
        }
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
            Err(_) => match rename_anew(&path, &self.target) {
                Ok(()) => {}
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => return Err(taken().into()),
                Err(cause) => {
                    let act = format!("name it: the complete restore is {}", path.display());
                    return Err(anyhow::Error::from(cause).context(act));
                }
            },
        }
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).context("make its name durable")
    }

    /// Removes it; says what is left, as part of a sentence.
    pub(crate) fn remove(mut self) -> String {
        if !self.has_its_name() {
            let left = format!("{} is no longer the file that was written, and is left alone", self.path().display());
            self.path = None;
            return left;
        }
        let path = self.path.take().expect("it has its path until it is complete or removed");
        match fs::remove_file(&path) {
            Ok(()) => "the file is removed again".to_owned(),
            Err(cause) => format!("{} is incomplete and could not be removed: {cause}", path.display()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.has_its_name() {
            return;
        }
        if let Some(path) = self.path.take() {
            // gone already is fine, and there is nobody left to tell otherwise
            let _ = fs::remove_file(path);
        }
    }
}

/// Renames, and never onto another file. Where the file system cannot promise that, it is looked at before.
fn rename_anew(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match to.symlink_metadata() {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn written_by_another(path: &Path) -> anyhow::Error {
    let message = format!("another restore is writing {}", path.display());
    Refused::new(message, "wait until it ends, or name another file").into()
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
        return Err(written_by_another(path));
    }
    if !allowed {
        let message = format!("{name} is in the way: a restore that was killed has left it");
        return Err(Refused::new(message, "remove it, or add --force to replace it").into());
    }
    // ours is the lock on the very file that has the name, so nobody else removes it or has just made it
    if is_same(&file.metadata()?, &path.symlink_metadata()?) {
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
    /// What a second `restore --force` does where files cannot be locked: it takes the first one's file for abandoned.
    #[test]
    fn two_restores_to_one_name_never_mix_their_restore_points() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("disk.raw");
        let ends: [fn(Partial); 3] = [|first| drop(first.complete()), |first| drop(first.remove()), drop::<Partial>];
        for end in ends {
            let first = Partial::make(&target, 7, false).unwrap();
            fs::remove_file(beside(&target)).unwrap();
            let second = Partial::make(&target, 7, false).unwrap();
            fs::write(first.path_to_write(), "first").unwrap();
            fs::write(second.path_to_write(), "second").unwrap();
            end(first);
            assert!(!target.exists(), "the second one's file has got its name half written");
            second.complete().unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"second");
            fs::remove_file(&target).unwrap();
        }
    }

    #[test]
    fn without_hard_links_a_file_that_came_meanwhile_is_not_overwritten_either() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "restored").unwrap();
        fs::write(&to, "precious").unwrap();
        assert_eq!(rename_anew(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"precious");
        fs::remove_file(&to).unwrap();
        rename_anew(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"restored");
    }
}
