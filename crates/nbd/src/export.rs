//! What a server serves. An export knows nothing of sockets, cookies or replies.

use async_trait::async_trait;
use bytes::Bytes;
use disk::ByteRange;

use crate::error::{Errno, Failure};

/// Whether a write must be on stable storage before it is answered (force unit access).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fua {
    /// Answer once the data is accepted; a later flush makes it stable.
    No,
    /// Answer once the data is stable.
    Yes,
}

/// What writing zeroes may do with the space behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroes {
    /// The space may be given back.
    MayTrim,
    /// The space stays allocated.
    KeepAllocated,
}

/// What is known of a range without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Must be read.
    Data,
    /// Not allocated, and reads as zeroes.
    Hole,
    /// Allocated, and reads as zeroes.
    Zero,
}

/// A range and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Allocation {
    /// The range, in bytes.
    pub range: ByteRange,
    /// What is known of it.
    pub kind: Kind,
}

/// Sizes of requests, in bytes. Every request starts and ends at a multiple of `minimum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Power of two; requests are multiples of it.
    pub minimum: u32,
    /// Power of two; requests of this size and alignment are efficient.
    pub preferred: u32,
    /// Largest read or write.
    pub maximum: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, maximum: 32 << 20 }
    }
}

/// What an export can do beyond reading and, unless it is read-only, writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// [`Export::flush`] works.
    pub flush: bool,
    /// Writes honour [`Fua::Yes`].
    pub fua: bool,
    /// [`Export::trim`] works.
    pub trim: bool,
    /// [`Export::write_zeroes`] works.
    pub write_zeroes: bool,
    /// A flush on one connection covers writes of all connections.
    pub multi_conn: bool,
    /// [`Export::block_status`] knows more than "everything is data".
    pub block_status: bool,
    /// Sizes of requests.
    pub blocks: BlockSizes,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            flush: true,
            fua: false,
            trim: false,
            write_zeroes: false,
            multi_conn: false,
            block_status: false,
            blocks: BlockSizes::default(),
        }
    }
}

/// One disk that is served.
///
/// The server calls these only with ranges that lie within [`size`](Self::size), are not empty, respect
/// [`BlockSizes`], and never writes to a read-only export. Calls come from many tasks at once.
/// A call must not block its thread.
#[async_trait]
pub trait Export: Send + Sync + 'static {
    /// Bytes; does not change.
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool {
        false
    }

    /// What it can do; does not change.
    fn features(&self) -> Features {
        Features::default()
    }

    /// Exactly `length` bytes from `offset`.
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Failure>;

    /// Writes all of `data` at `offset`.
    async fn write(&self, offset: u64, data: Bytes, fua: Fua) -> Result<(), Failure> {
        let _ = (offset, data, fua);
        Err(Errno::NotPermitted.into())
    }

    /// Returns once every write that was answered before is on stable storage.
    async fn flush(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The bytes of `range` are not needed any more; they read as anything afterwards.
    async fn trim(&self, range: ByteRange, fua: Fua) -> Result<(), Failure> {
        let _ = (range, fua);
        Err(Errno::NotSupported.into())
    }

    /// The bytes of `range` read as zeroes afterwards.
    async fn write_zeroes(&self, range: ByteRange, zeroes: Zeroes, fua: Fua) -> Result<(), Failure> {
        let _ = (range, zeroes, fua);
        Err(Errno::NotSupported.into())
    }

    /// What is known of `range`, without gaps, from its first byte on; at least one extent, and not
    /// necessarily up to its end.
    async fn block_status(&self, range: ByteRange) -> Result<Vec<Allocation>, Failure> {
        Ok(vec![Allocation { range, kind: Kind::Data }])
    }
}
