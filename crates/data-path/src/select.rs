//! Which parts of a disk are read, and in which pieces: pure arithmetic on ranges. Does no I/O.

use disk::{ByteRange, Ranges};

/// A piece of the disk, in disk order; begins on a multiple of the chunk size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Holds data, or nobody said it does not: read it.
    Read(ByteRange),
    /// Reads as zeroes, says the server: not read.
    Zero(ByteRange),
}

impl Piece {
    /// The bytes it stands for.
    pub(crate) fn range(&self) -> ByteRange {
        match self {
            Self::Read(range) | Self::Zero(range) => *range,
        }
    }
}

/// The steps in which a disk of `size` bytes is walked: `window` bytes each, the last one shorter.
pub(crate) fn windows(size: u64, window: u64) -> impl Iterator<Item = ByteRange> {
    (0..size.div_ceil(window)).map(move |n| ByteRange::between(n * window, ((n + 1) * window).min(size)))
}

/// Cuts `window` (which begins on a chunk's border, and ends on one or at the end of the disk) into pieces:
/// whatever shares a chunk with `data` is read, at most `read` bytes at a time; the rest is zero.
pub(crate) fn pieces(window: ByteRange, data: &Ranges, chunk: u64, read: u64) -> Vec<Piece> {
    let read = (read / chunk).max(1) * chunk;
    let wanted: Ranges = data
        .iter()
        .map(|range| range.intersection(&window))
        .map(|range| range.aligned_out(chunk).intersection(&window))
        .collect();
    let zeroes = wanted.complement_in(window);
    let mut pieces: Vec<Piece> = zeroes.iter().map(Piece::Zero).collect();
    for range in wanted.iter() {
        pieces.extend(windows(range.length, read).map(|part| Piece::Read(shifted(part, range.offset))));
    }
    pieces.sort_unstable_by_key(|piece| piece.range().offset);
    pieces
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
        ) {
            let data: Ranges =
                parts.iter().map(|(offset, length)| ByteRange::new(*offset, *length)).collect();
            let mut at = 0;
            for window in windows(size, window_chunks * CHUNK) {
                for piece in pieces(window, &data, CHUNK, read) {
                    let range = piece.range();
                    prop_assert_eq!(range.offset, at, "gap or overlap");
                    prop_assert!(range.length > 0 && range.offset.is_multiple_of(CHUNK));
                    prop_assert!(range.end().is_multiple_of(CHUNK) || range.end() == size, "cut inside a chunk");
                    at = range.end();
                    match piece {
                        Piece::Zero(range) => prop_assert!(!data.touches(&range), "data would be lost"),
                        Piece::Read(range) => {
                            prop_assert!(range.length <= read.max(CHUNK));
                            for chunk in chunks(range, CHUNK) {
                                let whole = ByteRange::new(chunk * CHUNK, CHUNK);
                                prop_assert!(data.touches(&whole), "read for nothing");
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
        let got = pieces(ByteRange::new(0, size), &data, 64, 128);
        assert_eq!(got, [Piece::Zero(ByteRange::new(0, 960)), Piece::Read(ByteRange::new(960, 40))]);
    }
}
