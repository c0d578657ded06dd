//! Of which objects a stream consists, and whether they are all there. Does no I/O.
//!
//! The original restores zeroes where one is missing; here every rule that is broken is an error with the key.

use disk::ByteRange;
use repository::store::Object;

use crate::error::Broken;
use crate::keys;

/// One object of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its key.
    pub key: String,
    /// The bytes of the stream that it holds.
    pub range: ByteRange,
}

/// All objects of a stream, in order, without gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    stream: String,
    segments: Vec<Segment>,
    bytes: u64,
}

impl Segments {
    /// Puts the objects below `stream` in order.
    ///
    /// # Errors
    /// There is none; one is no segment, or ends beyond any disk; their numbers are not 0, 1, 2 …; one does not begin where the one before
    /// it ends.
    pub fn of(stream: &str, objects: &[Object]) -> Result<Self, Broken> {
        let mut numbered = Vec::with_capacity(objects.len());
        for object in objects {
            let (number, offset) =
                keys::parse_segment(stream, &object.key).ok_or_else(|| Broken::Stray { key: object.key.clone() })?;
            numbered.push((number, offset, object));
        }
        numbered.sort_by_key(|(number, offset, _)| (*number, *offset));
        let (mut segments, mut bytes) = (Vec::with_capacity(numbered.len()), 0);
        for (wanted, (number, offset, object)) in (0..).zip(numbered) {
            let key = object.key.clone();
            if number > wanted {
                return Err(Broken::Missing { key: keys::segment(stream, wanted, bytes), offset: bytes });
            }
            if number < wanted {
                return Err(Broken::Stray { key }); // a second one with the number of the one before
            }
            if offset != bytes {
                return Err(Broken::Offset { key, found: offset, expected: bytes });
            }
            let Some(end) = bytes.checked_add(object.size) else {
                return Err(Broken::Unreadable {
                    key,
                    cause: format!("its {} bytes end beyond any disk", object.size),
                });
            };
            segments.push(Segment { key, range: ByteRange::new(offset, object.size) });
            bytes = end;
        }
        if segments.is_empty() {
            return Err(Broken::Nothing { key: keys::segment(stream, 0, 0) });
        }
        Ok(Self { stream: stream.to_owned(), segments, bytes })
    }

    /// Whether they hold `expected` bytes.
    ///
    /// # Errors
    /// They hold more or less.
    pub fn expect(self, expected: u64) -> Result<Self, Broken> {
        if self.bytes == expected {
            return Ok(self);
        }
        let key = self.segments.last().map(|segment| segment.key.clone()).unwrap_or_default();
        Err(Broken::Length { key, found: self.bytes, expected })
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stream's key, below which they lie.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// In the order of the stream.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// What has to be read for `range` of the stream: keys with ranges of the objects, in order.
    pub fn parts(&self, range: ByteRange) -> impl Iterator<Item = (&str, ByteRange)> {
        let first = self.segments.partition_point(|segment| segment.range.end() <= range.offset);
        let touched = self.segments[first..].iter().take_while(move |segment| segment.range.offset < range.end());
        touched.filter_map(move |segment| {
            let part = segment.range.intersection(&range);
            (part.length > 0)
                .then(|| (segment.key.as_str(), ByteRange::new(part.offset - segment.range.offset, part.length)))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn objects(parts: &[(&str, u64)]) -> Vec<Object> {
        parts.iter().map(|(name, size)| Object { key: format!("s/{name}"), size: *size }).collect()
    }

    #[test]
    fn w01_a_gap_is_refused_with_the_key_that_is_missing() {
        let whole = objects(&[("000000-0000000000000000", 7), ("000001-0000000000000007", 5)]);
        let segments = Segments::of("s", &whole).unwrap();
        assert_eq!(segments.bytes(), 12);
        assert_eq!(segments.clone().expect(12).unwrap(), segments);
        let reversed: Vec<_> = whole.iter().rev().cloned().collect();
        assert_eq!(Segments::of("s", &reversed).unwrap(), segments, "a store may list in any order");

        let cases = [
            ("nothing", vec![], "`s/000000-0000000000000000` is missing, and so are all"),
            ("the first is gone", vec![("000001-0000000000000007", 5)], "`s/000000-0000000000000000` is missing"),
            (
                "one in the middle is gone",
                vec![("000000-0000000000000000", 7), ("000002-0000000000000012", 5)],
                "`s/000001-0000000000000007` is missing: it should begin at byte 7",
            ),
            (
                "one is cut short",
                vec![("000000-0000000000000000", 6), ("000001-0000000000000007", 5)],
                "`s/000001-0000000000000007` begins at byte 7 by its name, expected 6",
            ),
            (
                "a number twice",
                vec![("000000-0000000000000000", 7), ("000000-0000000000000007", 5)],
                "`s/000000-0000000000000007` is no segment",
            ),
            ("a stray object", vec![("000000-0000000000000000", 7), ("000001-x", 5)], "`s/000001-x` is no segment"),
            ("a note of somebody", vec![("000000-0000000000000000", 7), ("README", 5)], "`s/README` is no segment"),
            (
                "one that is said to be endless",
                vec![("000000-0000000000000000", 7), ("000001-0000000000000007", u64::MAX)],
                "`s/000001-0000000000000007` cannot be read: its 18446744073709551615 bytes end beyond any disk",
            ),
        ];
        for (situation, parts, why) in cases {
            let broken = Segments::of("s", &objects(&parts)).unwrap_err().to_string();
            assert!(broken.contains(why), "{situation}: {broken}");
        }
        let last = segments.expect(4096).unwrap_err().to_string();
        assert!(last.contains("`s/000001-0000000000000007`, the last one, ends at byte 12, expected 4096"), "{last}");
    }

    proptest! {
        #[test]
        fn every_byte_of_a_range_is_read_once_and_in_order(
            sizes in proptest::collection::vec(0..9u64, 1..8), offset in 0..60u64, length in 0..60u64,
        ) {
            let mut at = 0;
            let all: Vec<_> = (0..).zip(&sizes).map(|(number, size)| {
                let object = Object { key: keys::segment("s", number, at), size: *size };
                at += size;
                object
            }).collect();
            let segments = Segments::of("s", &all).unwrap();
            let range = ByteRange::new(offset, length).intersection(&ByteRange::new(0, at));
            let mut next = range.offset;
            for (key, part) in segments.parts(range) {
                let (_, start) = keys::parse_segment("s", key).unwrap();
                prop_assert_eq!(start + part.offset, next);
                next += part.length;
            }
            prop_assert!(range.length == 0 || next == range.end(), "{} of {:?}", next, range);
        }
    }
}
