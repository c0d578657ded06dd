//! Replies of the transmission phase: simple ones, and structured ones in chunks.

use disk::ByteRange;

use super::{Cursor, MAX_MESSAGE, length_u32};
use crate::error::{Errno, Failure};
use crate::export::{Allocation, Kind};

/// Starts a simple reply.
pub(crate) const SIMPLE_MAGIC: u32 = 0x6744_6698;
/// Starts a chunk of a structured reply.
pub(crate) const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
/// Bytes of a simple reply's header, magic included.
pub(crate) const SIMPLE_LENGTH: usize = 16;
/// Bytes of a chunk's header, magic included.
pub(crate) const STRUCTURED_LENGTH: usize = 20;
/// Set on the last chunk of a reply.
pub(crate) const FLAG_DONE: u16 = 1;

/// Kinds of chunks.
pub(crate) mod chunk_type {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const OFFSET_HOLE: u16 = 2;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    /// Types from here on are errors.
    pub(crate) const ERROR_BIT: u16 = 1 << 15;
    pub(crate) const ERROR: u16 = ERROR_BIT | 1;
}

/// A simple reply; a read's data follows it.
pub(crate) fn encode_simple(cookie: u64, errno: Option<Errno>) -> [u8; SIMPLE_LENGTH] {
    let mut out = [0; SIMPLE_LENGTH];
    out[0..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    out[4..8].copy_from_slice(&errno.map_or(0, Errno::to_wire).to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out
}

/// The header of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    /// Bytes that follow.
    pub(crate) length: u32,
}

impl ChunkHeader {
    pub(crate) fn done(kind: u16, cookie: u64, length: usize) -> Self {
        Self { flags: FLAG_DONE, kind, cookie, length: length_u32(length) }
    }

    pub(crate) fn encode(&self) -> [u8; STRUCTURED_LENGTH] {
        let mut out = [0; STRUCTURED_LENGTH];
        out[0..4].copy_from_slice(&STRUCTURED_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.kind.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..20].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

/// The payload of an error chunk.
pub(crate) fn encode_failure(failure: &Failure) -> Vec<u8> {
    let message = failure.wire_message();
    let mut out = Vec::with_capacity(6 + message.len());
    out.extend_from_slice(&failure.errno.to_wire().to_be_bytes());
    let length = u16::try_from(message.len()).expect("messages are cut to 4096 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message.as_bytes());
    out
}

/// Reads an error chunk; what follows the message (an offset) is of no use to us.
pub(crate) fn decode_failure(payload: &[u8]) -> Option<Failure> {
    let mut cursor = Cursor(payload);
    let errno = Errno::from_wire(cursor.u32()?);
    let length = usize::from(cursor.u16()?);
    let message = cursor.bytes(length.min(MAX_MESSAGE))?;
    Some(Failure::new(errno, String::from_utf8_lossy(message)))
}

const STATE_HOLE: u32 = 1;
const STATE_ZERO: u32 = 1 << 1;

/// The payload of a block status chunk for one context.
pub(crate) fn encode_status(context: u32, extents: &[Allocation]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 8 * extents.len());
    out.extend_from_slice(&context.to_be_bytes());
    for extent in extents {
        let length = u32::try_from(extent.range.length).expect("extents are clipped to the request's 32-bit length");
        let state = match extent.kind {
            Kind::Data => 0,
            Kind::Hole => STATE_HOLE | STATE_ZERO,
            Kind::Zero => STATE_ZERO,
        };
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&state.to_be_bytes());
    }
    out
}

/// Reads a block status chunk: the context and its extents from `offset` on.
///
/// A hole that is not said to read as zeroes is data to us: its content is not known.
pub(crate) fn decode_status(payload: &[u8], offset: u64) -> Option<(u32, Vec<Allocation>)> {
    let mut cursor = Cursor(payload);
    let context = cursor.u32()?;
    let mut extents: Vec<Allocation> = Vec::with_capacity(cursor.0.len() / 8);
    let mut at = offset;
    while !cursor.is_empty() {
        let length = u64::from(cursor.u32()?);
        let state = cursor.u32()?;
        at.checked_add(length)?;
        let kind = match (state & STATE_HOLE != 0, state & STATE_ZERO != 0) {
            (_, false) => Kind::Data,
            (true, true) => Kind::Hole,
            (false, true) => Kind::Zero,
        };
        match extents.last_mut() {
            Some(last) if last.kind == kind => last.range.length += length,
            _ => extents.push(Allocation { range: ByteRange::new(at, length), kind }),
        }
        at += length;
    }
    (at > offset).then_some((context, extents))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reply_is_these_bytes() {
        assert_eq!(encode_simple(7, Some(Errno::Io)), [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7]);
        let header = ChunkHeader::done(chunk_type::OFFSET_DATA, 7, 0x208);
        let want = [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 2, 8];
        assert_eq!(header.encode(), want);
    }

    #[test]
    fn a_hole_that_may_hold_anything_is_read() {
        let payload = [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 1];
        let (context, extents) = decode_status(&payload, 512).unwrap();
        assert_eq!((context, extents[0].kind), (1, Kind::Data));
    }

    #[test]
    fn an_empty_block_status_is_an_error_and_not_an_endless_loop() {
        assert_eq!(decode_status(&[0, 0, 0, 1], 0), None);
        assert_eq!(decode_status(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 0), None);
        assert_eq!(decode_status(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0], u64::MAX), None);
    }

    fn any_extents() -> impl Strategy<Value = Vec<(u32, u8)>> {
        proptest::collection::vec((1..1_000_000u32, 0..3u8), 1..50)
    }

    proptest! {
        #[test]
        fn block_status_reads_back_as_written(parts in any_extents(), offset in 0..u64::from(u32::MAX)) {
            let mut at = offset;
            let mut extents: Vec<Allocation> = Vec::new();
            for (length, kind) in parts {
                let kind = [Kind::Data, Kind::Hole, Kind::Zero][usize::from(kind)];
                if extents.last().is_none_or(|last| last.kind != kind) {
                    extents.push(Allocation { range: ByteRange::new(at, length.into()), kind });
                    at += u64::from(length);
                }
            }
            prop_assert_eq!(decode_status(&encode_status(9, &extents), offset).unwrap(), (9, extents));
        }

        #[test]
        fn a_failure_reads_back_as_written(number: u32, message in ".{0,300}") {
            let failure = Failure::new(Errno::from_wire(number), message);
            prop_assert_eq!(decode_failure(&encode_failure(&failure)).unwrap(), failure);
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(payload in proptest::collection::vec(any::<u8>(), 0..64), offset: u64) {
            let _ = decode_failure(&payload);
            let _ = decode_status(&payload, offset);
        }
    }
}
