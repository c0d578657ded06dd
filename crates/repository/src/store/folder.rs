//! Objects as files below a folder. A put writes a temporary file, flushes it and renames it.
//!
//! File work runs on blocking threads. Names of temporary files end in `.tmp-…` and are never listed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Body, Error, ErrorKind, Object, PutNew, Store};

/// A folder as a store.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

const TEMPORARY: &str = ".tmp-";

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
    let mut file = match File::create_new(&temporary) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            File::create_new(&temporary)?
        }
        other => other?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
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

/// A hard link, unlike a rename, fails when the name is taken.
fn create(target: &Path, bytes: &[u8]) -> io::Result<PutNew> {
    let temporary = write_beside(target, bytes)?;
    let linked = fs::hard_link(&temporary, target);
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_folder(target).map(|()| PutNew::Created),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(PutNew::Exists),
        Err(cause) => Err(cause),
    }
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
        } else if !entry.file_name().to_string_lossy().contains(TEMPORARY) {
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
        self.work("put", key, move || create(&path, &body.bytes)).await
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
}
