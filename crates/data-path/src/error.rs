//! What can end a transfer, and which word says so in a status.

use disk::{ByteRange, Ranges};

/// Why a transfer failed. [`Error::kind`] is the short word for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the disk.
    #[error("connect to the disk")]
    Connect {
        /// What the client says.
        source: nbd::Error,
    },
    /// The disk did not say where its holes are.
    #[error("ask which of {} bytes at {} hold data", range.length, range.offset)]
    BlockStatus {
        /// The bytes asked about.
        range: ByteRange,
        /// What the client says.
        source: nbd::Error,
    },
    /// The disk's server answered with nothing.
    #[error("ask which of {} bytes at {} hold data: the server answered without an extent", range.length, range.offset)]
    NoExtents {
        /// The bytes asked about.
        range: ByteRange,
    },
    /// Bytes of the disk could not be read.
    #[error("read {} bytes of the disk at {}", range.length, range.offset)]
    Read {
        /// The bytes.
        range: ByteRange,
        /// What the client says.
        source: nbd::Error,
    },
    /// Bytes of the target could not be written.
    #[error("write {} bytes to the disk at {}", range.length, range.offset)]
    Write {
        /// The bytes.
        range: ByteRange,
        /// What the client says.
        source: nbd::Error,
    },
    /// Written bytes did not reach stable storage.
    #[error("flush the disk")]
    Flush {
        /// What the client says.
        source: nbd::Error,
    },
    /// The connection could not be closed in order, so the server may have lost what it accepted.
    #[error("close the disk")]
    Close {
        /// What the client says.
        source: nbd::Error,
    },
    /// The connection broke after the flush.
    #[error("close the disk: the server had gone before we said goodbye")]
    Gone,
    /// The writer was made for a disk of another size.
    #[error("back up a disk of {disk} bytes as a restore point of {point}")]
    SizeChanged {
        /// Bytes of the disk.
        disk: u64,
        /// Bytes the restore point was begun for.
        point: u64,
    },
    /// The base is of another disk.
    #[error("take unchanged chunks over from a restore point of {base} bytes with chunks of {chunk}: it does not fit")]
    OtherBase {
        /// Bytes of the base.
        base: u64,
        /// Bytes of its chunks.
        chunk: u64,
    },
    /// What is said not to have changed has changed; nothing of it was taken over.
    #[error("check what did not change: {} bytes at {} have changed", range.length, range.offset)]
    NotAsTracked {
        /// The bytes.
        range: ByteRange,
    },
    /// The target is smaller than what it shall hold; nothing was written.
    #[error("restore {needed} bytes onto a disk of {target}: it is too small, nothing was written")]
    TargetTooSmall {
        /// Bytes of the restore point.
        needed: u64,
        /// Bytes of the target.
        target: u64,
    },
    /// The target's server refuses writes; nothing was written.
    #[error("restore onto a read-only disk: nothing was written")]
    TargetReadOnly,
    /// The repository did not do its part.
    #[error("{act}")]
    Repository {
        /// What was being done, as a verb phrase.
        act: &'static str,
        /// What the repository says.
        source: Box<repository::Error>,
    },
    /// The repository does not give back what belongs to these places of the disk.
    #[error("read what the restore point has for {}", in_words(places))]
    Unread {
        /// All places that want it.
        places: Ranges,
        /// What the repository says.
        source: Box<repository::Error>,
    },
    /// The caller's token was cancelled.
    #[error("cancelled by request")]
    Cancelled,
}

/// Ranges that a message names one by one.
const NAMED: usize = 3;

/// `524288 bytes at 0, 1048576 bytes at 2097152 and 4 more places`.
fn in_words(places: &Ranges) -> String {
    let named: Vec<_> =
        places.iter().take(NAMED).map(|range| format!("{} bytes at {}", range.length, range.offset)).collect();
    match places.iter().count() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more places", named.join(", ")),
    }
}

/// One word per cause, for reasons in a status and labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Reading the disk failed, or reaching it.
    DiskRead,
    /// Changes of the disk were not tracked rightly.
    TrackingUntrue,
    /// Writing the disk failed.
    DiskWrite,
    /// Flushing or closing the disk failed.
    DiskFlush,
    /// The target cannot hold the restore point.
    TargetTooSmall,
    /// See the repository's word.
    Repository(repository::ErrorKind),
    /// Cancelled by request.
    Cancelled,
}

impl Error {
    /// The short word for it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. }
            | Self::BlockStatus { .. }
            | Self::NoExtents { .. }
            | Self::Read { .. }
            | Self::SizeChanged { .. }
            | Self::OtherBase { .. } => ErrorKind::DiskRead,
            Self::NotAsTracked { .. } => ErrorKind::TrackingUntrue,
            Self::Write { .. } | Self::TargetReadOnly => ErrorKind::DiskWrite,
            Self::Flush { .. } | Self::Close { .. } | Self::Gone => ErrorKind::DiskFlush,
            Self::TargetTooSmall { .. } => ErrorKind::TargetTooSmall,
            Self::Repository { source, .. } | Self::Unread { source, .. } => ErrorKind::Repository(source.kind()),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Whether the same transfer may succeed later without anyone changing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Repository { source, .. } | Self::Unread { source, .. } => source.may_pass(),
            Self::TargetTooSmall { .. }
            | Self::TargetReadOnly
            | Self::SizeChanged { .. }
            | Self::OtherBase { .. }
            | Self::NotAsTracked { .. }
            | Self::Cancelled => false,
            Self::Connect { .. }
            | Self::BlockStatus { .. }
            | Self::NoExtents { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Flush { .. }
            | Self::Close { .. }
            | Self::Gone => true,
        }
    }

    pub(crate) fn repository(act: &'static str) -> impl Fn(repository::Error) -> Self + Copy {
        move |source| Self::Repository { act, source: Box::new(source) }
    }
}
