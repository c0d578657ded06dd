//! Puts one request's answer together from its chunks.

use bytes::{BufMut, Bytes, BytesMut};
use disk::{ByteRange, Ranges};

use crate::error::Failure;
use crate::export::Allocation;
use crate::wire::request::{Command, Request};

/// A request's complete answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing but success.
    Done,
    /// A read's bytes, all of them.
    Data(Bytes),
    /// What is known of a range, from its first byte on.
    Extents(Vec<Allocation>),
}

/// What has arrived of one request's answer.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) request: Request,
    /// A read's bytes from its start; grows at the end as long as chunks come in order, which is the fast way.
    data: BytesMut,
    arrived: Ranges,
    extents: Option<Vec<Allocation>>,
    failure: Option<Failure>,
}

/// Where the bytes of a chunk go.
pub(crate) enum Place<'a> {
    /// Append exactly `usize` bytes to the buffer: no zeroing, no copy.
    Append(&'a mut BytesMut, usize),
    /// Fill this part.
    Fill(&'a mut [u8]),
}

impl Assembly {
    pub(crate) fn new(request: Request) -> Self {
        let data = BytesMut::new();
        Self { request, data, arrived: Ranges::new(), extents: None, failure: None }
    }

    /// Room for `length` bytes at `offset` of the disk; `None` when the server may not send these.
    pub(crate) fn place(&mut self, offset: u64, length: u64) -> Option<Place<'_>> {
        let (start, length) = self.admit(offset, length)?;
        if start == self.data.len() {
            self.data.reserve(self.request.length as usize - start);
            return Some(Place::Append(&mut self.data, length));
        }
        self.data.resize(self.request.length as usize, 0);
        Some(Place::Fill(&mut self.data[start..start + length]))
    }

    /// `length` zeroes at `offset` of the disk; `None` when the server may not send these.
    pub(crate) fn hole(&mut self, offset: u64, length: u64) -> Option<()> {
        let (start, length) = self.admit(offset, length)?;
        if start == self.data.len() {
            self.data.reserve(self.request.length as usize - start);
            self.data.put_bytes(0, length);
        } else {
            // what was not filled is zero, and `admit` refuses what was
            self.data.resize(self.request.length as usize, 0);
        }
        Some(())
    }

    /// Checks a chunk's range against the request and what came before.
    fn admit(&mut self, offset: u64, length: u64) -> Option<(usize, usize)> {
        let whole = ByteRange::new(self.request.offset, self.request.length.into());
        let part = offset.checked_add(length).map(|end| ByteRange::between(offset, end))?;
        let inside = self.request.command == Command::Read && part.offset >= whole.offset && part.end() <= whole.end();
        if !inside || part.is_empty() || self.arrived.touches(&part) {
            return None;
        }
        self.arrived.insert(part);
        let start = usize::try_from(offset - whole.offset).ok()?;
        Some((start, usize::try_from(length).ok()?))
    }

    pub(crate) fn extents(&mut self, extents: Vec<Allocation>) -> Option<()> {
        (self.request.command == Command::BlockStatus).then_some(())?;
        self.extents = Some(extents);
        Some(())
    }

    /// The first failure is the cause; others are its consequences.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// The answer, once the last chunk is in; `Err(None)` when the server left something out.
    pub(crate) fn finish(self) -> Result<Answer, Option<Failure>> {
        if let Some(failure) = self.failure {
            return Err(Some(failure));
        }
        match self.request.command {
            Command::Read if self.arrived.bytes() == u64::from(self.request.length) => {
                Ok(Answer::Data(self.data.freeze()))
            }
            Command::Read => Err(None),
            Command::BlockStatus => self.extents.map(Answer::Extents).ok_or(None),
            _ => Ok(Answer::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // stops at the first surprise; small sizes

    use super::*;
    use proptest::prelude::*;

    fn read(offset: u64, length: u32) -> Assembly {
        Assembly::new(Request { flags: 0, command: Command::Read, cookie: 1, offset, length })
    }

    fn put(assembly: &mut Assembly, offset: u64, bytes: &[u8]) -> Option<()> {
        match assembly.place(offset, bytes.len() as u64)? {
            Place::Append(buffer, length) => buffer.extend_from_slice(&bytes[..length]),
            Place::Fill(part) => part.copy_from_slice(bytes),
        }
        Some(())
    }

    proptest! {
        #[test]
        fn chunks_in_any_order_give_the_same_bytes(
            lengths in proptest::collection::vec(1..40usize, 1..8),
            order in any::<proptest::sample::Index>(),
            reversed: bool,
        ) {
            let total: usize = lengths.iter().sum();
            let want: Vec<u8> = (0..total).map(|i| (i % 250 + 1) as u8).collect();
            let mut parts = Vec::new();
            let mut at = 0;
            for (index, length) in lengths.iter().enumerate() {
                parts.push((at, *length, index % 3 == 2));
                at += length;
            }
            let turn = order.index(parts.len());
            parts.rotate_left(turn);
            if reversed {
                parts.reverse();
            }
            let mut assembly = read(1000, total as u32);
            let mut expected = want.clone();
            for (start, length, hole) in parts {
                let offset = 1000 + start as u64;
                if hole {
                    expected[start..start + length].fill(0);
                    assembly.hole(offset, length as u64).unwrap();
                } else {
                    put(&mut assembly, offset, &want[start..start + length]).unwrap();
                }
            }
            let Ok(Answer::Data(data)) = assembly.finish() else { panic!("complete") };
            prop_assert_eq!(&data[..], &expected[..]);
        }
    }

    #[test]
    fn a_server_that_sends_other_bytes_than_asked_is_caught() {
        let mut assembly = read(100, 50);
        assert!(put(&mut assembly, 99, &[1; 2]).is_none(), "before the range");
        assert!(put(&mut assembly, 149, &[1; 2]).is_none(), "beyond the range");
        assert!(assembly.hole(u64::MAX, 2).is_none(), "overflow");
        put(&mut assembly, 100, &[1; 20]).unwrap();
        assert!(put(&mut assembly, 110, &[1; 20]).is_none(), "twice the same bytes");
        assert!(matches!(assembly.finish(), Err(None)), "bytes are missing");
    }
}
