//! Where disks lie, and what is allocated in them.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::types::{
    Block, FAIL, FILE_ALREADY_LOCKED, FILE_ERROR, FILE_NOT_FOUND, FILE_READ_ONLY, INVALID_ARG, OPERATION_DISABLED,
    SECTOR, VixError,
};

/// `stand-in.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    /// The vCenter double's store.
    pub store: PathBuf,
    /// The one user that may connect; anyone when absent.
    pub user: Option<String>,
    /// SHA-256 of the password in hexadecimal; any password when absent.
    pub password_sha256: Option<String>,
    /// vCenter's thumbprint; any when absent.
    pub thumbprint: Option<String>,
}

impl Settings {
    pub(crate) fn admits(&self, user: &str, password: &str) -> bool {
        let digest = ring::digest::digest(&ring::digest::SHA256, password.as_bytes());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.user.as_deref().is_none_or(|wanted| wanted == user)
            && self.password_sha256.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&digest))
    }
}

/// An open file of a disk or a snapshot.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    pub(crate) writable: bool,
    /// Whole sectors.
    pub(crate) sectors: u64,
}

impl Image {
    pub(crate) fn open(store: &Path, disk: &str, snapshot: Option<&str>, writable: bool) -> Result<Self, VixError> {
        if writable && snapshot.is_some() {
            return Err(FILE_READ_ONLY);
        }
        let folder = store.join(plain(disk)?);
        let path = match snapshot {
            Some(snapshot) => folder.join("snapshots").join(format!("{}.raw", plain(snapshot)?)),
            None => folder.join("disk.raw"),
        };
        let file = OpenOptions::new().read(true).write(writable).open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FILE_NOT_FOUND,
            _ => FILE_ERROR,
        })?;
        if writable {
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => FILE_ALREADY_LOCKED,
                TryLockError::Error(_) => FILE_ERROR,
            })?;
        }
        let sectors = file.metadata().map_err(|_| FILE_ERROR)?.len() / SECTOR;
        Ok(Self { file, writable, sectors })
    }

    pub(crate) fn read(&self, start: u64, into: &mut [u8]) -> Result<(), VixError> {
        self.file.read_exact_at(into, start * SECTOR).map_err(|_| FILE_ERROR)
    }

    pub(crate) fn write(&self, start: u64, from: &[u8]) -> Result<(), VixError> {
        self.file.write_all_at(from, start * SECTOR).map_err(|_| FILE_ERROR)
    }

    pub(crate) fn flush(&self) -> Result<(), VixError> {
        self.file.sync_data().map_err(|_| FILE_ERROR)
    }

    /// Allocated ranges in sectors, rounded out to chunks, between two multiples of a chunk.
    pub(crate) fn allocated(&self, start: u64, count: u64, chunk: u64) -> Result<Vec<Block>, VixError> {
        let (end, grain) = ((start + count) * SECTOR, chunk * SECTOR);
        let mut at = start * SECTOR;
        let mut blocks: Vec<Block> = Vec::new();
        while at < end {
            let Some(data) = self.seek(at, libc::SEEK_DATA)? else { break };
            if data >= end {
                break;
            }
            let hole = self.seek(data, libc::SEEK_HOLE)?.unwrap_or(end);
            let first = data / grain * chunk;
            let last = (hole.min(end).div_ceil(grain) * chunk).min(start + count);
            match blocks.last_mut() {
                Some(block) if block.offset + block.length >= first => block.length = last - block.offset,
                _ => blocks.push(Block { offset: first, length: last - first }),
            }
            at = last * SECTOR;
        }
        Ok(blocks)
    }

    /// The next data or hole; `None` when there is no more data.
    fn seek(&self, from: u64, whence: i32) -> Result<Option<u64>, VixError> {
        let from = i64::try_from(from).map_err(|_| INVALID_ARG)?;
        // SAFETY: only the position of our own file descriptor changes, which positioned reads and writes ignore
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), from, whence) };
        match u64::try_from(found) {
            Ok(found) => Ok(Some(found)),
            Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(_) => Err(FILE_ERROR),
        }
    }
}

/// Notes that `identity` accesses the disk. A note that is there already is a leftover.
pub(crate) fn note_access(store: &Path, disk: &str, identity: &str) -> Result<(), VixError> {
    let note = access_note(store, disk, identity)?;
    std::fs::create_dir_all(note.parent().ok_or(FAIL)?).map_err(|_| FILE_ERROR)?;
    match OpenOptions::new().write(true).create_new(true).open(note) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(OPERATION_DISABLED),
        Err(_) => Err(FILE_ERROR),
    }
}

/// Removes the note; one that is not there is fine.
pub(crate) fn remove_access_note(store: &Path, disk: &str, identity: &str) -> Result<(), VixError> {
    match std::fs::remove_file(access_note(store, disk, identity)?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FILE_ERROR),
        _ => Ok(()),
    }
}

fn access_note(store: &Path, disk: &str, identity: &str) -> Result<PathBuf, VixError> {
    let identity: String = identity.chars().map(|c| if c == '/' { '_' } else { c }).collect();
    Ok(store.join(".vddk-access").join(format!("{}.{identity}", plain(disk)?)))
}

/// An id becomes a part of a path.
fn plain(id: &str) -> Result<&str, VixError> {
    if id.is_empty() || id.starts_with('.') || id.contains('/') { Err(INVALID_ARG) } else { Ok(id) }
}
