//! What can go wrong with a backup in the original's layout.

use repository::store;

/// Why a backup is refused: what lies in the bucket is not all of a disk, or not only of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A segment is not there.
    #[error("object `{key}` is missing: it should begin at byte {offset} and is followed by others")]
    Missing {
        /// The key it should have.
        key: String,
        /// Where in the stream it should begin.
        offset: u64,
    },
    /// There is no segment at all.
    #[error("object `{key}` is missing, and so are all that should follow it")]
    Nothing {
        /// The key of the first.
        key: String,
    },
    /// An object lies among the segments that is none.
    #[error("object `{key}` is no segment: expected six digits, `-` and sixteen digits, each segment once")]
    Stray {
        /// Its key.
        key: String,
    },
    /// A segment does not begin where the one before it ends.
    #[error("object `{key}` begins at byte {found} by its name, expected {expected}, where the one before it ends")]
    Offset {
        /// Its key.
        key: String,
        /// Bytes that its name says.
        found: u64,
        /// Bytes of the segments before it.
        expected: u64,
    },
    /// The segments hold more or less than the disk.
    #[error("object `{key}`, the last one, ends at byte {found}, expected {expected}, the size of the disk")]
    Length {
        /// The last segment's key.
        key: String,
        /// Bytes of all segments.
        found: u64,
        /// Bytes of the disk as its description says.
        expected: u64,
    },
    /// A backup is to be written where one was completed.
    #[error("object `{key}` is there: a backup was completed, and nothing of it is overwritten")]
    There {
        /// The key.
        key: String,
    },
    /// An object cannot be understood.
    #[error("object `{key}` cannot be read: {cause}")]
    Unreadable {
        /// Its key.
        key: String,
        /// What is wrong in it.
        cause: String,
    },
}

/// Why an operation on the original's layout failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not do what was asked.
    #[error("{act}")]
    Store {
        /// What was being done, as a verb phrase.
        act: &'static str,
        /// The store's answer.
        source: store::Error,
    },
    /// What lies there is not a whole backup.
    #[error("{act}")]
    Broken {
        /// What was being done, as a verb phrase.
        act: &'static str,
        /// What was found.
        source: Broken,
    },
}

impl Error {
    pub(crate) fn store(act: &'static str) -> impl Fn(store::Error) -> Self + Copy {
        move |source| Self::Store { act, source }
    }

    pub(crate) fn broken(act: &'static str) -> impl Fn(Broken) -> Self + Copy {
        move |source| Self::Broken { act, source }
    }
}
