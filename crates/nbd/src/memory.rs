//! An export in memory. Sparse: pages that were never written take no space.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use disk::ByteRange;

use crate::error::Failure;
use crate::export::{Allocation, Export, Features, Fua, Kind, Zeroes};

/// Bytes per page: the grain of holes.
pub const PAGE: u64 = PAGE_LENGTH as u64;

type Page = Box<[u8]>;

/// A disk in memory, all zeroes at first.
#[derive(Debug)]
pub struct Memory {
    size: u64,
    read_only: bool,
    pages: RwLock<HashMap<u64, Page>>,
}

impl Memory {
    /// A writable disk of `size` bytes that can do everything.
    pub fn new(size: u64) -> Self {
        Self { size, read_only: false, pages: RwLock::default() }
    }

    /// The same disk, but writes are refused.
    pub fn into_read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Puts bytes on the disk without a client, also on a read-only one.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn put(&self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.size, "the disk ends before the data does");
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        let mut rest = data;
        for (index, within) in pages_of(ByteRange::new(offset, data.len() as u64)) {
            let (part, after) = rest.split_at(within.len());
            rest = after;
            pages.entry(index).or_insert_with(|| vec![0; PAGE_LENGTH].into())[within].copy_from_slice(part);
        }
    }

    /// All bytes of `range`.
    pub fn get(&self, range: ByteRange) -> Bytes {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let mut data = BytesMut::with_capacity(usize::try_from(range.length).expect("it fits in memory"));
        for (index, within) in pages_of(range) {
            match pages.get(&index) {
                Some(page) => data.extend_from_slice(&page[within]),
                None => data.resize(data.len() + within.len(), 0),
            }
        }
        data.freeze()
    }

    /// How many bytes are allocated.
    pub fn allocated(&self) -> u64 {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).len() as u64 * PAGE
    }

    fn zero(&self, range: ByteRange, zeroes: Zeroes) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        for (index, within) in pages_of(range) {
            if within.len() == PAGE_LENGTH && zeroes == Zeroes::MayTrim {
                pages.remove(&index);
            } else if zeroes == Zeroes::KeepAllocated {
                pages.entry(index).or_insert_with(|| vec![0; PAGE_LENGTH].into())[within].fill(0);
            } else if let Some(page) = pages.get_mut(&index) {
                page[within].fill(0);
            }
        }
    }
}

const PAGE_LENGTH: usize = 64 << 10;

/// The pages that `range` touches, and the part of each.
fn pages_of(range: ByteRange) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let indices = range.offset / PAGE..range.end().div_ceil(PAGE);
    indices.filter(move |_| !range.is_empty()).map(move |index| {
        let part = ByteRange::new(index * PAGE, PAGE).intersection(&range);
        let start = usize::try_from(part.offset - index * PAGE).expect("a page is small");
        (index, start..start + usize::try_from(part.length).expect("a page is small"))
    })
}

#[async_trait]
impl Export for Memory {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn features(&self) -> Features {
        Features {
            fua: true,
            trim: true,
            write_zeroes: true,
            multi_conn: true,
            block_status: true,
            ..Features::default()
        }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Failure> {
        Ok(self.get(ByteRange::new(offset, length.into())))
    }

    async fn write(&self, offset: u64, data: Bytes, _fua: Fua) -> Result<(), Failure> {
        self.put(offset, &data);
        Ok(())
    }

    async fn trim(&self, range: ByteRange, _fua: Fua) -> Result<(), Failure> {
        self.zero(range, Zeroes::MayTrim);
        Ok(())
    }

    async fn write_zeroes(&self, range: ByteRange, zeroes: Zeroes, _fua: Fua) -> Result<(), Failure> {
        self.zero(range, zeroes);
        Ok(())
    }

    async fn block_status(&self, range: ByteRange) -> Result<Vec<Allocation>, Failure> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let mut extents: Vec<Allocation> = Vec::new();
        for (index, _) in pages_of(range) {
            let kind = if pages.contains_key(&index) { Kind::Data } else { Kind::Hole };
            let part = ByteRange::new(index * PAGE, PAGE).intersection(&range);
            match extents.last_mut() {
                Some(last) if last.kind == kind => last.range.length += part.length,
                _ => extents.push(Allocation { range: part, kind }),
            }
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation)] // the sizes here are small

    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 4 * PAGE + 77;

    fn any_step() -> impl Strategy<Value = (u64, u64, u8)> {
        (0..SIZE, 0..2 * PAGE, 0..4u8).prop_map(|(offset, length, what)| (offset, length.min(SIZE - offset), what))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_disk_holds_what_was_written_and_zeroes_elsewhere(
            steps in proptest::collection::vec(any_step(), 1..20)
        ) {
            let memory = Memory::new(SIZE);
            let mut model = vec![0u8; SIZE as usize];
            for (offset, length, what) in steps {
                let range = ByteRange::new(offset, length);
                let part = &mut model[offset as usize..range.end() as usize];
                match what {
                    0 => memory.zero(range, Zeroes::MayTrim),
                    1 => memory.zero(range, Zeroes::KeepAllocated),
                    byte => memory.put(offset, &vec![byte; length as usize]),
                }
                part.fill(if what < 2 { 0 } else { what });
            }
            let whole = ByteRange::new(0, SIZE);
            prop_assert_eq!(&memory.get(whole)[..], &model[..]);
            let extents = futures::executor::block_on(memory.block_status(whole)).expect("memory does not fail");
            for extent in extents {
                let range = extent.range;
                if extent.kind == Kind::Hole {
                    prop_assert!(model[range.offset as usize..range.end() as usize].iter().all(|byte| *byte == 0));
                }
            }
        }
    }
}
