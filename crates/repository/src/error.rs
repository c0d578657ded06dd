//! What can go wrong with a repository, and which word says so in a status.

use crate::keys::{self, Untried};
use crate::store;

/// A damaged object or chunk, named so that a person can look for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// An object that something refers to is not in the store.
    #[error("object {object} is missing")]
    ObjectMissing {
        /// Its key below the repository.
        object: String,
    },
    /// An object has another length than its index says.
    #[error("object {object} is {found} bytes long instead of {expected}")]
    Length {
        /// Its key below the repository.
        object: String,
        /// Bytes the index promises.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// An object cannot be decrypted: it was changed, or belongs to another key.
    #[error("object {object} does not decrypt")]
    Sealed {
        /// Its key below the repository.
        object: String,
    },
    /// An object decrypts, and its content is not what the format asks for.
    #[error("object {object} is malformed: {cause}")]
    Malformed {
        /// Its key below the repository.
        object: String,
        /// What is wrong in it.
        cause: String,
    },
    /// A chunk inside a pack cannot be decrypted or is not what its id says.
    #[error("chunk {chunk} in pack {pack} at byte {offset} is damaged: {cause}")]
    Chunk {
        /// The chunk's id in hex.
        chunk: String,
        /// The pack's id in hex.
        pack: String,
        /// Where it begins in the pack, in bytes.
        offset: u64,
        /// What is wrong.
        cause: String,
    },
    /// No index file knows a chunk that a restore point needs.
    #[error("no index lists chunk {chunk}")]
    NotIndexed {
        /// The chunk's id in hex.
        chunk: String,
    },
    /// The pieces of a restore point do not fit together.
    #[error("restore point {point} is not a disk as we write it: {cause}")]
    Image {
        /// The restore point's id in hex.
        point: String,
        /// What is wrong.
        cause: String,
    },
}

/// Why an operation on a repository failed. [`Error::kind`] is the short word for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not do what was asked.
    #[error("{act}")]
    Store {
        /// What was being done, as a verb phrase.
        act: String,
        /// The store's answer.
        source: store::Error,
    },
    /// There are key files, and the password opens none of them.
    #[error("open the repository at {location}: the password fits none of its keys{}", keys::told(untried))]
    PasswordWrong {
        /// The store.
        location: String,
        /// Key files that no password could be tried with: one of them may be the repository's own.
        untried: Vec<Untried>,
    },
    /// There is no `config` object.
    #[error("open the repository at {location}: there is none (no `config`)")]
    NotARepository {
        /// The store.
        location: String,
    },
    /// The repository is of a version we do not know.
    #[error("open the repository at {location}: its format version {version} is not 2")]
    Unsupported {
        /// The store.
        location: String,
        /// The version found in `config`.
        version: u32,
    },
    /// Another program, or another maintenance run, works on the repository and does not let us.
    #[error("lock the repository: {by} has locked it{} since {since}", if *.exclusive { " exclusively" } else { "" })]
    Locked {
        /// Host, user and process of the other program.
        by: String,
        /// Whether it keeps everyone out, or only who wants to be alone.
        exclusive: bool,
        /// When it took or renewed its lock.
        since: jiff::Timestamp,
    },
    /// Stored data is not what was written.
    #[error("{act}")]
    Damaged {
        /// What was being done, as a verb phrase.
        act: String,
        /// What was found.
        source: Damage,
    },
    /// No such restore point.
    #[error("find restore point {wanted}: there is none")]
    PointMissing {
        /// The id or identity asked for.
        wanted: String,
    },
    /// A name that begins several restore points.
    #[error("find restore point {wanted}: {count} begin like this")]
    PointAmbiguous {
        /// The beginning asked for.
        wanted: String,
        /// How many there are.
        count: usize,
    },
    /// Chunks that other restore points had stored are gone; put them again ([`crate::Writer::put_chunk`] takes them), then commit again.
    #[error("check the new restore point: {} chunks have vanished from the repository", .chunks.len())]
    SendAgain {
        /// Numbers of the chunks on this disk.
        chunks: Vec<u64>,
    },
    /// Index files vanished each time between their listing and their reading.
    #[error("read the index: its files were replaced again and again while they were read")]
    IndexUnsteady,
    /// Our exclusive lock was not renewed in time, so another program may rely on having the repository to itself.
    #[error("free space: the lock was last renewed at {renewed}, too long ago to go on")]
    LockLost {
        /// When the lock was last renewed.
        renewed: jiff::Timestamp,
    },
    /// Nobody could look whether another program has the repository to itself.
    #[error("look whether our lock holds")]
    LockUnproven {
        /// Why.
        source: std::sync::Arc<Error>,
    },
    /// Our lock could not be removed in time.
    #[error("remove our lock: no answer within {} s; it counts for nothing once it is 30 minutes old", within.as_secs())]
    LockStays {
        /// How long was waited.
        within: std::time::Duration,
    },
    /// The caller asked to stop.
    #[error("cancelled by request")]
    Cancelled,
    /// The caller gave something that cannot be part of this disk.
    #[error("write restore point: {cause}")]
    InvalidUse {
        /// What is wrong with it.
        cause: String,
    },
    /// The writer has failed before; this repeats the first cause.
    #[error("write restore point: an earlier step failed: {first}")]
    WriterFailed {
        /// The first error's message, with its causes.
        first: String,
        /// Its kind.
        kind: ErrorKind,
    },
}

/// One word per cause, for reasons in a status and labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bucket does not exist.
    BucketMissing,
    /// The store refused our key.
    AccessDenied,
    /// The store did not answer, or not in time.
    Unreachable,
    /// The store answered with another error.
    StoreFailed,
    /// The password opens no key.
    PasswordWrong,
    /// There is no repository.
    NotARepository,
    /// The repository has an unknown version.
    Unsupported,
    /// Another program has it exclusively.
    Locked,
    /// Stored data is broken.
    Damaged,
    /// The restore point is not there, or its name is not unique.
    PointMissing,
    /// Known chunks vanished while we wrote: send them again.
    SendAgain,
    /// A mistake of the caller.
    InvalidUse,
    /// The caller asked to stop.
    Cancelled,
}

impl Error {
    /// The short word for it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. } => match source.kind() {
                store::ErrorKind::BucketMissing => ErrorKind::BucketMissing,
                store::ErrorKind::AccessDenied => ErrorKind::AccessDenied,
                store::ErrorKind::Unreachable => ErrorKind::Unreachable,
                store::ErrorKind::NotFound | store::ErrorKind::Failed => ErrorKind::StoreFailed,
            },
            Self::PasswordWrong { .. } => ErrorKind::PasswordWrong,
            Self::NotARepository { .. } => ErrorKind::NotARepository,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Locked { .. } => ErrorKind::Locked,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::PointMissing { .. } | Self::PointAmbiguous { .. } => ErrorKind::PointMissing,
            Self::SendAgain { .. } => ErrorKind::SendAgain,
            Self::IndexUnsteady => ErrorKind::StoreFailed,
            Self::LockLost { .. } => ErrorKind::Locked,
            Self::LockUnproven { source } => source.kind(),
            Self::LockStays { .. } => ErrorKind::Unreachable,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::InvalidUse { .. } => ErrorKind::InvalidUse,
            Self::WriterFailed { kind, .. } => *kind,
        }
    }

    /// Whether the same call may succeed later without anyone changing anything.
    pub fn may_pass(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unreachable | ErrorKind::StoreFailed | ErrorKind::Locked | ErrorKind::SendAgain
        )
    }

    pub(crate) fn store(act: impl Into<String>) -> impl FnOnce(store::Error) -> Self {
        let act = act.into();
        move |source| Self::Store { act, source }
    }

    pub(crate) fn damaged(act: impl Into<String>, source: Damage) -> Self {
        Self::Damaged { act: act.into(), source }
    }

    /// The message with all its causes, for places that can hold only text.
    pub(crate) fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line, as logs and stored messages want it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
