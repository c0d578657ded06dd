//! Ranges of bytes on a disk, and sorted sets of them.

use serde::{Deserialize, Serialize};

/// `length` bytes from `offset`, both in bytes. May be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl ByteRange {
    /// `length` bytes from `offset`.
    ///
    /// # Panics
    /// When the range would end beyond `u64::MAX`.
    pub fn new(offset: u64, length: u64) -> Self {
        assert!(offset.checked_add(length).is_some(), "range {offset}+{length} ends beyond u64");
        Self { offset, length }
    }

    /// The bytes from `start` up to, not including, `end`; empty when `end <= start`.
    pub fn between(start: u64, end: u64) -> Self {
        Self { offset: start, length: end.saturating_sub(start) }
    }

    /// First byte after the range.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes in both; empty when there are none.
    pub fn intersection(&self, other: &Self) -> Self {
        Self::between(self.offset.max(other.offset), self.end().min(other.end()))
    }

    /// The smallest range that holds this one and begins and ends on multiples of `grain` bytes.
    ///
    /// # Panics
    /// When `grain` is 0.
    pub fn aligned_out(&self, grain: u64) -> Self {
        if self.is_empty() {
            return Self { offset: self.offset / grain * grain, length: 0 };
        }
        Self::between(self.offset / grain * grain, self.end().div_ceil(grain) * grain)
    }
}

/// A set of bytes as sorted ranges that neither touch nor overlap; none is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<ByteRange>);

impl Ranges {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes of `range`. Cheap when ranges come in rising order.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end() < range.offset);
        let after = first + self.0[first..].partition_point(|r| r.offset <= range.end());
        let merged = self.0[first..after]
            .iter()
            .fold(range, |merged, r| ByteRange::between(merged.offset.min(r.offset), merged.end().max(r.end())));
        self.0.splice(first..after, [merged]);
    }

    /// The ranges in rising order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.0.iter().copied()
    }

    /// Number of bytes in the set.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.length).sum()
    }

    /// Whether no byte is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any byte of `range` is in the set.
    pub fn touches(&self, range: &ByteRange) -> bool {
        let next = self.0.partition_point(|r| r.end() <= range.offset);
        self.0.get(next).is_some_and(|r| !r.intersection(range).is_empty())
    }

    /// The bytes in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let common = x.intersection(y);
            if !common.is_empty() {
                both.push(common);
            }
            if x.end() < y.end() {
                a.next();
            } else {
                b.next();
            }
        }
        Self(both)
    }

    /// The bytes of `whole` that are not in the set.
    pub fn complement_in(&self, whole: ByteRange) -> Self {
        let mut rest = Vec::new();
        let mut at = whole.offset;
        for range in self.iter().map(|r| r.intersection(&whole)).filter(|r| !r.is_empty()) {
            if at < range.offset {
                rest.push(ByteRange::between(at, range.offset));
            }
            at = range.end();
        }
        if at < whole.end() {
            rest.push(ByteRange::between(at, whole.end()));
        }
        Self(rest)
    }
}

impl FromIterator<ByteRange> for Ranges {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "disks of 256 bytes")]

    use super::*;
    use proptest::prelude::*;

    const DISK: u64 = 256;

    fn bytes_of(ranges: &Ranges) -> Vec<bool> {
        let mut bytes = vec![false; DISK as usize];
        for range in ranges.iter() {
            for byte in range.offset..range.end() {
                bytes[byte as usize] = true;
            }
        }
        bytes
    }

    fn any_ranges() -> impl Strategy<Value = Vec<ByteRange>> {
        let range = (0..DISK, 0..32u64).prop_map(|(offset, length)| ByteRange::new(offset, length.min(DISK - offset)));
        proptest::collection::vec(range, 0..12)
    }

    proptest! {
        #[test]
        fn a_set_holds_exactly_the_bytes_that_were_put_in(parts in any_ranges()) {
            let set: Ranges = parts.iter().copied().collect();
            let mut want = vec![false; DISK as usize];
            for part in &parts {
                for byte in part.offset..part.end() {
                    want[byte as usize] = true;
                }
            }
            prop_assert_eq!(bytes_of(&set), want);
            let list: Vec<_> = set.iter().collect();
            prop_assert!(list.windows(2).all(|w| w[0].end() < w[1].offset), "sorted and apart");
        }

        #[test]
        fn intersection_and_complement_agree_with_bytes(a in any_ranges(), b in any_ranges()) {
            let (a, b): (Ranges, Ranges) = (a.into_iter().collect(), b.into_iter().collect());
            let both: Vec<bool> = bytes_of(&a).iter().zip(bytes_of(&b)).map(|(x, y)| *x && y).collect();
            prop_assert_eq!(bytes_of(&a.intersection(&b)), both);
            let rest: Vec<bool> = bytes_of(&a).iter().map(|x| !x).collect();
            prop_assert_eq!(bytes_of(&a.complement_in(ByteRange::new(0, DISK))), rest);
        }

        #[test]
        fn touches_says_whether_a_byte_is_shared(a in any_ranges(), offset in 0..DISK, length in 0..32u64) {
            let a: Ranges = a.into_iter().collect();
            let range = ByteRange::new(offset, length.min(DISK - offset));
            let want = bytes_of(&a)[range.offset as usize..range.end() as usize].iter().any(|x| *x);
            prop_assert_eq!(a.touches(&range), want);
        }
    }

    #[test]
    fn aligning_out_never_loses_a_byte() {
        assert_eq!(ByteRange::new(1, 1).aligned_out(64), ByteRange::new(0, 64));
        assert_eq!(ByteRange::new(64, 64).aligned_out(64), ByteRange::new(64, 64));
        assert_eq!(ByteRange::new(63, 2).aligned_out(64), ByteRange::new(0, 128));
    }
}
