//! Where objects lie: a bucket, a folder, or one of these with faults.
//!
//! A store knows keys and bytes. It knows nothing of restic, of chunks or of disks, and retries nothing that its own
//! client does not retry: retry lives in one layer.

mod checksum;
mod encryption;
mod faulty;
mod folder;
mod multipart;
mod no_key;
mod parts;
mod probe;
mod region;
mod retry;
mod s3;
#[cfg(test)]
mod suite;
mod unverified;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

pub use checksum::Checksum;
pub use encryption::{CustomerKey, StoreEncryption};
pub use faulty::{Fault, FaultyStore, Operation};
pub use folder::FolderStore;
pub use multipart::{Multipart, Part};
pub use no_key::NoKey;
pub use parts::OpenUpload;
pub use probe::{Ability, Did};
pub use s3::S3Store;

/// What a store says about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such object.
    NotFound,
    /// No such bucket.
    BucketMissing,
    /// The key is unknown, wrong, or not allowed to do this.
    AccessDenied,
    /// No answer, or none in time.
    Unreachable,
    /// Any other answer.
    Failed,
}

/// A failed operation on one object or prefix.
#[derive(Debug, thiserror::Error)]
#[error("{operation}{} in {place}{}", shown(key), kind.clause())]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    key: String,
    place: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The key as a message shows it: a look at all that is there has none.
fn shown(key: &str) -> String {
    if key.is_empty() { " all".to_owned() } else { format!(" `{key}`") }
}

impl ErrorKind {
    fn clause(self) -> &'static str {
        match self {
            Self::NotFound => ": it does not exist",
            Self::BucketMissing => ": the bucket does not exist",
            Self::AccessDenied => ": access denied",
            Self::Unreachable => ": no answer",
            Self::Failed => "",
        }
    }
}

impl Error {
    /// Puts together what failed (`operation` is a verb: `get`, `put`, …) and why.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        key: &str,
        place: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, operation, key: key.to_owned(), place: place.into(), source: source.into() }
    }

    /// The word for it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Key below the store's root, with `/`.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
}

/// What became of an object that must not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutNew {
    /// It is ours.
    Created,
    /// There was one already; nothing was changed.
    Exists,
}

/// Bytes to be stored, with their SHA-256 where it is known anyway, so that nobody computes it twice.
#[derive(Debug, Clone)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub sha256: Option<[u8; 32]>,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, sha256: None }
    }
}

/// Objects under keys. Puts are atomic: a reader sees all of an object or nothing.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Names the place for messages, without secrets.
    fn place(&self) -> String;

    /// Puts of 16 MiB that are worth having under way at once.
    fn puts_in_flight(&self) -> usize {
        2
    }

    /// The whole object.
    async fn get(&self, key: &str) -> Result<Bytes, Error>;

    /// `length` bytes from `offset`; an error when the object ends before.
    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, Error>;

    /// Creates or replaces.
    async fn put(&self, key: &str, body: Body) -> Result<(), Error>;

    /// Creates, and leaves an existing object alone.
    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, Error>;

    /// Length in bytes; `None` when there is no such object.
    async fn size(&self, key: &str) -> Result<Option<u64>, Error>;

    /// Every object whose key begins with `prefix` (which ends in `/` or is empty), sorted by key.
    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error>;

    /// Removes; an object that is already gone is fine.
    async fn delete(&self, key: &str) -> Result<(), Error>;

    /// Removes what puts that were killed left behind, where a store has such: nothing that a listing shows. Says how many.
    async fn sweep(&self) -> Result<usize, Error> {
        Ok(0)
    }
}
