//! Which parts of a disk are read, and in which pieces: pure arithmetic on ranges. Does no I/O.

use disk::{ByteRange, Ranges};

/// A piece of the disk, in disk order; begins on a multiple of the chunk size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Holds data, or nobody said it does not: read it.
    Read(ByteRange),
    /// Reads as zeroes, says the server: not read.
    Zero(ByteRange),
    /// Is as it was, says who tracks changes: taken over unread.
    Keep(ByteRange),
}

impl Piece {
    /// The bytes it stands for.
    pub(crate) fn range(&self) -> ByteRange {
        match self {
            Self::Read(range) | Self::Zero(range) | Self::Keep(range) => *range,
        }
    }
}

/// The steps in which a disk of `size` bytes is walked: `window` bytes each, the last one shorter.
pub(crate) fn windows(size: u64, window: u64) -> impl Iterator<Item = ByteRange> {
    (0..size.div_ceil(window)).map(move |n| ByteRange::between(n * window, ((n + 1) * window).min(size)))
}

/// The same steps without what is `done`; one that is partly done gives its parts.
pub(crate) fn open_windows(size: u64, window: u64, done: &Ranges) -> impl Iterator<Item = ByteRange> {
    windows(size, window).flat_map(|window| done.complement_in(window).iter().collect::<Vec<_>>())
}

/// Cuts `window` (which begins on a chunk's border, and ends on one or at the end of the disk) into pieces:
/// whatever lies outside of `touched` (whole chunks; `None` is everywhere) is kept, of the rest whatever shares a chunk with
/// `data` is read, at most `read` bytes at a time, and what is left is zero.
pub(crate) fn pieces(window: ByteRange, touched: Option<&Ranges>, data: &Ranges, chunk: u64, read: u64) -> Vec<Piece> {
    let read = (read / chunk).max(1) * chunk;
    let everywhere = Ranges::from_iter([window]);
    let touched = touched.unwrap_or(&everywhere);
    let wanted = whole_chunks(data, window, chunk).intersection(touched);
    let zeroes = wanted.complement_in(window).intersection(touched);
    let mut pieces: Vec<Piece> = touched.complement_in(window).iter().map(Piece::Keep).collect();
    pieces.extend(zeroes.iter().map(Piece::Zero));
    for range in wanted.iter() {
        pieces.extend(windows(range.length, read).map(|part| Piece::Read(shifted(part, range.offset))));
    }
    pieces.sort_unstable_by_key(|piece| piece.range().offset);
    pieces
}

/// The part of `ranges` within `window`, widened to whole chunks.
pub(crate) fn whole_chunks(ranges: &Ranges, window: ByteRange, chunk: u64) -> Ranges {
    let within = ranges.iter().map(|range| range.intersection(&window));
    within.map(|range| range.aligned_out(chunk).intersection(&window)).collect()
}

/// The chunks of `chunk` bytes that `range` covers, by number.
pub(crate) fn chunks(range: ByteRange, chunk: u64) -> std::ops::Range<u64> {
    range.offset / chunk..range.end().div_ceil(chunk)
}

fn shifted(range: ByteRange, by: u64) -> ByteRange {
    ByteRange::new(range.offset + by, range.length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u64 = 16;

    proptest! {
        #[test]
        fn every_byte_is_in_exactly_one_piece_and_data_is_always_read(
            size in 1..600u64,
            window_chunks in 1..20u64,
            read in 1..100u64,
            parts in proptest::collection::vec((0..600u64, 0..60u64), 0..10),
            changes in proptest::option::of(proptest::collection::vec((0..600u64, 0..60u64), 0..10)),
        ) {
            let ranges = |parts: &[(u64, u64)]| -> Ranges {
                parts.iter().map(|(offset, length)| ByteRange::new(*offset, *length)).collect()
            };
            let data = ranges(&parts);
            let changed = changes.as_deref().map(ranges);
            let mut at = 0;
            for window in windows(size, window_chunks * CHUNK) {
                let touched = changed.as_ref().map(|changed| whole_chunks(changed, window, CHUNK));
                for piece in pieces(window, touched.as_ref(), &data, CHUNK, read) {
                    let range = piece.range();
                    prop_assert_eq!(range.offset, at, "gap or overlap");
                    prop_assert!(range.length > 0 && range.offset.is_multiple_of(CHUNK));
                    prop_assert!(range.end().is_multiple_of(CHUNK) || range.end() == size, "cut inside a chunk");
                    at = range.end();
                    match piece {
                        Piece::Zero(range) => prop_assert!(!data.touches(&range), "data would be lost"),
                        Piece::Keep(range) => {
                            let changed = changed.as_ref().expect("nothing is kept where all may have changed");
                            prop_assert!(!changed.touches(&range), "a change would be lost");
                        }
                        Piece::Read(range) => {
                            prop_assert!(range.length <= read.max(CHUNK));
                            for chunk in chunks(range, CHUNK) {
                                let whole = ByteRange::new(chunk * CHUNK, CHUNK);
                                let changed = changed.as_ref().is_none_or(|changed| changed.touches(&whole));
                                prop_assert!(data.touches(&whole) && changed, "read for nothing");
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(at, size);
        }
    }

    #[test]
    fn data_only_in_the_last_sector_is_read_and_nothing_else() {
        let size = 1000;
        let data = Ranges::from_iter([ByteRange::new(999, 1)]);
        let got = pieces(ByteRange::new(0, size), None, &data, 64, 128);
        assert_eq!(got, [Piece::Zero(ByteRange::new(0, 960)), Piece::Read(ByteRange::new(960, 40))]);
    }
}
