//! Objects as files below a folder. A put writes a temporary file, flushes it and renames it.
//!
//! File work runs on blocking threads. Names of temporary files end in `.tmp-…` and are never listed; those that a killed
//! writer left go with [`Store::sweep`].

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use direct::DirectFile;
use rustix::io::Errno;

use super::{Body, Error, ErrorKind, Object, PutNew, Store};

/// A folder as a store.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

const TEMPORARY: &str = ".tmp-";

/// A temporary file that nobody has written to for so long belongs to nobody any more: a put of 16 MiB takes seconds.
const ABANDONED: Duration = Duration::from_secs(3600);

impl FolderStore {
    /// Takes `root` as it is; nothing is created before the first put.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Runs file work where it may block, and names what failed.
    async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
        done.map_err(|cause| {
            let kind = match cause.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::AccessDenied,
                _ => ErrorKind::Failed,
            };
            Error::new(kind, operation, key, self.place(), cause)
        })
    }
}

/// Writes beside the target and flushes, so that a crash leaves no half object under its real name.
fn write_beside(target: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let folder = target.parent().ok_or_else(|| io::Error::other("the key has no folder"))?;
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!("{name}{TEMPORARY}{}", uuid::Uuid::new_v4().simple()));
    let file = match File::create_new(&temporary) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            File::create_new(&temporary)?
        }
        other => other?,
    };
    let file = DirectFile::new(file);
    let written = file.write_all_at(bytes, 0).and_then(|()| file.file().sync_all());
    if let Err(cause) = written {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
        return Err(cause);
    }
    Ok(temporary)
}

/// A rename is durable once its folder is.
fn sync_folder(target: &Path) -> io::Result<()> {
    target.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(target, bytes)?;
    fs::rename(&temporary, target).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    sync_folder(target)
}

/// What file systems without hard links say: FAT and exFAT, several of FUSE, and those with a small limit.
const NO_HARD_LINKS: [Errno; 4] = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK];

/// A hard link, unlike a rename, fails when the name is taken. `link` makes it.
fn create(target: &Path, bytes: &[u8], link: fn(&Path, &Path) -> io::Result<()>) -> io::Result<PutNew> {
    let temporary = write_beside(target, bytes)?;
    let linked = link(&temporary, target);
    let _ = fs::remove_file(&temporary);
    let created = match linked {
        Err(cause) if Errno::from_io_error(&cause).is_some_and(|errno| NO_HARD_LINKS.contains(&errno)) => {
            create_in_place(target, bytes)
        }
        linked => linked,
    };
    match created {
        Ok(()) => sync_folder(target).map(|()| PutNew::Created),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(PutNew::Exists),
        Err(cause) => Err(cause),
    }
}

/// Where there are no hard links. A kill in the middle leaves a part of the object, which does not decrypt: the price of
/// never overwriting another one.
fn create_in_place(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(target)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(target); // the first error is the one to report
    })
}

/// Whether a name is one that we have made: others may keep files beside a repository.
fn is_temporary(name: &str) -> bool {
    let unique = name.rsplit_once(TEMPORARY).map_or("", |(_, unique)| unique);
    unique.len() == 32 && unique.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Removes temporary files that nobody has written to for `age`; says how many.
fn sweep(folder: &Path, age: Duration) -> io::Result<usize> {
    let gone_is_fine = |cause: &io::Error| cause.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(folder) {
        Err(cause) if gone_is_fine(&cause) => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let data = match entry.metadata() {
            Err(cause) if gone_is_fine(&cause) => continue,
            other => other?,
        };
        if data.is_dir() {
            removed += sweep(&entry.path(), age)?;
        } else if is_temporary(&entry.file_name().to_string_lossy())
            && data.modified()?.elapsed().unwrap_or_default() > age
        {
            match fs::remove_file(entry.path()) {
                Err(cause) if gone_is_fine(&cause) => {}
                other => other.map(|()| removed += 1)?,
            }
        }
    }
    Ok(removed)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Object>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = match entry.file_type() {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue, // removed since the listing began
            other => other?,
        };
        let path = entry.path();
        if kind.is_dir() {
            walk(root, &path, found)?;
        } else if !is_temporary(&entry.file_name().to_string_lossy()) {
            let size = match entry.metadata() {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                other => other?.len(),
            };
            let below = path.strip_prefix(root).map_err(io::Error::other)?;
            found.push(Object { key: below.to_string_lossy().into_owned(), size });
        }
    }
    Ok(())
}

#[async_trait]
impl Store for FolderStore {
    fn place(&self) -> String {
        format!("folder {}", self.root.display())
    }

    async fn get(&self, key: &str) -> Result<Bytes, Error> {
        let path = self.path(key);
        self.work("get", key, move || fs::read(path).map(Bytes::from)).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, Error> {
        let path = self.path(key);
        self.work("get", key, move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact(&mut bytes)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    async fn put(&self, key: &str, body: Body) -> Result<(), Error> {
        let path = self.path(key);
        self.work("put", key, move || replace(&path, &body.bytes)).await
    }

    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, Error> {
        let path = self.path(key);
        self.work("put", key, move || create(&path, &body.bytes, |from, to| fs::hard_link(from, to))).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        let path = self.path(key);
        self.work("look at", key, move || match fs::metadata(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(|metadata| Some(metadata.len())),
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let (root, folder) = (self.root.clone(), self.path(prefix));
        self.work("list", prefix, move || {
            let mut found = Vec::new();
            walk(&root, &folder, &mut found)?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let path = self.path(key);
        self.work("delete", key, move || match fs::remove_file(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
        .await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        let root = self.root.clone();
        self.work("sweep", "", move || sweep(&root, ABANDONED)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_repository_can_be_made_where_there_are_no_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        let unable: [fn(&Path, &Path) -> io::Result<()>; 2] = [
            |_, _| Err(io::Error::from_raw_os_error(1)),  // EPERM: FAT
            |_, _| Err(io::Error::from_raw_os_error(95)), // EOPNOTSUPP: FUSE
        ];
        assert_eq!(create(&config, b"first", unable[0]).unwrap(), PutNew::Created);
        for link in unable {
            assert_eq!(create(&config, b"second", link).unwrap(), PutNew::Exists);
        }
        assert_eq!(fs::read(&config).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
        let full = |_: &Path, _: &Path| Err(io::Error::from_raw_os_error(28));
        assert!(create(&folder.path().join("other"), b"x", full).is_err(), "another failure is one");
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_goes_and_what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::new(folder.path());
        store.put("data/aa/pack", Bytes::from_static(b"pack").into()).await.unwrap();
        let below = folder.path().join("data/aa");
        let (dead, written) = (format!("dead.tmp-{:032x}", 1), format!("written.tmp-{:032x}", 2));
        let somebodys = "plan.tmp-2024.txt";
        for (name, age) in [(dead.as_str(), 7200), (&written, 60), ("old", 7200), (somebodys, 7200)] {
            let file = File::create(below.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert_eq!(store.sweep().await.unwrap(), 1);
        let mut left: Vec<_> = fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["old", "pack", somebodys, &written]);
        assert_eq!(FolderStore::new(folder.path().join("nowhere")).sweep().await.unwrap(), 0);
    }
}
