//! How much of a restore is on the disk for good: which chunks of which restore point, in memory and as text. Does no I/O.
//!
//! Chunks are written out of disk order, so a checkpoint is a border, before which all is written, and a map of what is
//! written behind it. The map spans the window that is being written: some hundred bytes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use disk::ByteRange;

use crate::source::Source;

/// The chunks of one restore point that need not be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    content: Content,
    /// This many chunks from the start of the disk are written.
    first: u64,
    /// Which of the chunks from `first` on are written. Neither begins with one that is nor ends with one that is not.
    beyond: VecDeque<bool>,
}

/// What is written: a checkpoint of anything else says nothing about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    digest: String,
    size: u64,
    chunk_size: u64,
}

/// Why a checkpoint that was noted somewhere is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is of another restore point, or of one that is cut otherwise.
    #[error("it is of another restore point")]
    OtherContent,
    /// Its border lies within a chunk.
    #[error("{up_to} bytes are no whole chunks of the disk")]
    NoBorder {
        /// The border, in bytes from the start of the disk.
        up_to: u64,
    },
    /// Its map is not the text of one.
    #[error("its map of chunks is not hexadecimal")]
    NoMap,
    /// It names chunks that the disk has not.
    #[error("it names chunks behind the end of the disk")]
    BehindTheEnd,
}

impl Checkpoint {
    /// Of a restore that has not begun.
    pub fn nothing(source: &dyn Source) -> Self {
        Self::nothing_of(Content::of(source))
    }

    /// One that was noted: `digest`, `chunk_size`, `up_to` and `beyond` are what its methods of these names gave.
    ///
    /// # Errors
    /// When it is not of this restore point, or makes no sense.
    pub fn noted(source: &dyn Source, digest: &str, chunk_size: u64, up_to: u64, beyond: &str) -> Result<Self, Unfit> {
        let content = Content::of(source);
        if digest != content.digest || chunk_size != content.chunk_size {
            return Err(Unfit::OtherContent);
        }
        Self::read(content, up_to, beyond)
    }

    fn nothing_of(content: Content) -> Self {
        Self { content, first: 0, beyond: VecDeque::new() }
    }

    fn read(content: Content, up_to: u64, beyond: &str) -> Result<Self, Unfit> {
        let Content { size, chunk_size, .. } = content;
        if up_to > size {
            return Err(Unfit::BehindTheEnd);
        }
        if up_to != size && !up_to.is_multiple_of(chunk_size) {
            return Err(Unfit::NoBorder { up_to });
        }
        let border = up_to.div_ceil(chunk_size);
        let mut checkpoint = Self { first: border, ..Self::nothing_of(content) };
        for (chunk, is_written) in (border..).zip(bits(beyond)?) {
            if is_written && chunk >= checkpoint.content.chunks() {
                return Err(Unfit::BehindTheEnd);
            }
            if is_written {
                checkpoint.insert(chunk);
            }
        }
        Ok(checkpoint)
    }

    /// Digest over the chunks of the restore point.
    pub fn digest(&self) -> &str {
        &self.content.digest
    }

    /// Bytes of a chunk.
    pub fn chunk_size(&self) -> u64 {
        self.content.chunk_size
    }

    /// Bytes from the start of the disk that are all written.
    pub fn up_to(&self) -> u64 {
        (self.first * self.content.chunk_size).min(self.content.size)
    }

    /// Which chunks from [`Checkpoint::up_to`] on are written: a bit each, the lowest of a byte first, in hexadecimal.
    pub fn beyond(&self) -> String {
        let bits: Vec<bool> = self.beyond.iter().copied().collect();
        let mut text = String::with_capacity(bits.len().div_ceil(8) * 2);
        for byte in bits.chunks(8) {
            let byte = byte.iter().rev().fold(0_u8, |byte, bit| (byte << 1) | u8::from(*bit));
            write!(text, "{byte:02x}").expect("a String takes everything");
        }
        text
    }

    /// Bytes of the disk that are written.
    pub fn bytes(&self) -> u64 {
        let beyond = (self.first..).zip(&self.beyond).filter(|(_, is_written)| **is_written);
        self.up_to() + beyond.map(|(chunk, _)| self.content.chunk(chunk).length).sum::<u64>()
    }

    /// Whether it is one of this restore point.
    pub(crate) fn is_of(&self, source: &dyn Source) -> bool {
        self.content == Content::of(source)
    }

    fn contains(&self, chunk: u64) -> bool {
        chunk.checked_sub(self.first).is_none_or(|at| {
            usize::try_from(at).is_ok_and(|at| self.beyond.get(at).is_some_and(|is_written| *is_written))
        })
    }

    fn insert(&mut self, chunk: u64) {
        let Some(at) = chunk.checked_sub(self.first) else { return };
        let at = usize::try_from(at).expect("the map spans what is being written");
        if self.beyond.len() <= at {
            self.beyond.resize(at + 1, false);
        }
        self.beyond[at] = true;
        while self.beyond.front() == Some(&true) {
            self.beyond.pop_front();
            self.first += 1;
        }
    }
}

impl Content {
    fn of(source: &dyn Source) -> Self {
        Self { digest: source.digest().to_owned(), size: source.size(), chunk_size: source.chunk_size() }
    }

    fn chunks(&self) -> u64 {
        self.size.div_ceil(self.chunk_size)
    }

    fn chunk(&self, index: u64) -> ByteRange {
        ByteRange::between(index * self.chunk_size, ((index + 1) * self.chunk_size).min(self.size))
    }
}

/// The bits of a map.
fn bits(text: &str) -> Result<impl Iterator<Item = bool>, Unfit> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(Unfit::NoMap);
    let digits: Vec<u32> = text.as_bytes().iter().map(digit).collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(Unfit::NoMap);
    }
    let bytes = (0..digits.len() / 2).map(move |at| (digits[2 * at] << 4) | digits[2 * at + 1]);
    Ok(bytes.flat_map(|byte| (0..8).map(move |bit| (byte >> bit) & 1 == 1)))
}

/// Where a restore begins, and what it has made safe since. Share it by `Arc` with who writes it down.
#[derive(Debug)]
pub struct Checkpoints {
    every: Duration,
    latest: Mutex<Checkpoint>,
}

impl Checkpoints {
    /// For a restore that begins where `begin` says, and flushes its disk after each pause of `every`.
    pub fn new(begin: Checkpoint, every: Duration) -> Self {
        Self { every, latest: Mutex::new(begin) }
    }

    /// What is on the disk for good.
    pub fn latest(&self) -> Checkpoint {
        self.lock().clone()
    }

    pub(crate) fn every(&self) -> Duration {
        self.every
    }

    pub(crate) fn save(&self, checkpoint: Checkpoint) {
        *self.lock() = checkpoint;
    }

    fn lock(&self) -> MutexGuard<'_, Checkpoint> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chunks that are written, some perhaps not for good yet.
pub(crate) struct Written(Mutex<Checkpoint>);

impl Written {
    pub(crate) fn new(begin: Checkpoint) -> Self {
        Self(Mutex::new(begin))
    }

    pub(crate) fn now(&self) -> Checkpoint {
        self.lock().clone()
    }

    pub(crate) fn insert(&self, chunk: u64) {
        self.lock().insert(chunk);
    }

    /// Those of `chunks` that are not written.
    pub(crate) fn missing(&self, chunks: std::ops::Range<u64>) -> Vec<u64> {
        let written = self.lock();
        chunks.filter(|chunk| !written.contains(*chunk)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Checkpoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u64 = 16;

    /// Of a disk of 100 chunks, the last one short.
    fn content() -> Content {
        Content { digest: "d".to_owned(), size: 100 * CHUNK - 5, chunk_size: CHUNK }
    }

    fn of(chunks: impl IntoIterator<Item = u64>) -> Checkpoint {
        let mut checkpoint = Checkpoint::nothing_of(content());
        chunks.into_iter().for_each(|chunk| checkpoint.insert(chunk));
        checkpoint
    }

    proptest! {
        #[test]
        fn what_is_noted_and_read_again_names_exactly_what_was_written(
            chunks in proptest::collection::vec(0..100_u64, 0..200),
        ) {
            let checkpoint = of(chunks.iter().copied());
            for chunk in 0..100 {
                prop_assert_eq!(checkpoint.contains(chunk), chunks.contains(&chunk), "chunk {}", chunk);
            }
            let bytes: u64 = (0..100).filter(|c| chunks.contains(c)).map(|c| content().chunk(c).length).sum();
            prop_assert_eq!(checkpoint.bytes(), bytes);
            prop_assert!(checkpoint.beyond().len() <= 26, "the map is larger than the disk");
            prop_assert_eq!(Checkpoint::read(content(), checkpoint.up_to(), &checkpoint.beyond()), Ok(checkpoint));
        }

        #[test]
        fn no_text_makes_it_name_what_is_not_there(up_to in 0..2000_u64, text in "[0-9a-fA-F]{0,60}|\\PC{0,8}") {
            if let Ok(checkpoint) = Checkpoint::read(content(), up_to, &text) {
                prop_assert!(checkpoint.bytes() <= content().size);
                prop_assert!(checkpoint.up_to() >= up_to && checkpoint.first <= 100);
                prop_assert_eq!(checkpoint.bytes() == content().size, checkpoint.up_to() == content().size);
            }
        }
    }

    #[test]
    fn chunks_behind_the_border_are_a_bit_each() {
        let checkpoint = of([0, 1, 2, 4, 5, 13]);
        assert_eq!((checkpoint.up_to(), checkpoint.beyond().as_str()), (3 * CHUNK, "0604"));
        let whole = of(0..100);
        assert_eq!((whole.up_to(), whole.beyond().as_str()), (content().size, ""), "the last chunk is short");
    }

    #[test]
    fn what_makes_no_sense_is_told_apart_from_a_checkpoint() {
        let size = content().size;
        let cases = [
            ("a border within a chunk", 7, "", Unfit::NoBorder { up_to: 7 }),
            ("a border behind the end", size + 1, "", Unfit::BehindTheEnd),
            ("the border of a longer disk", 100 * CHUNK, "", Unfit::BehindTheEnd),
            ("half a byte", 0, "0", Unfit::NoMap),
            ("no hexadecimal", 0, "zz", Unfit::NoMap),
            ("a sign", 0, "+1", Unfit::NoMap),
            ("no ASCII", 0, "ä", Unfit::NoMap),
            ("more chunks than there are", 96 * CHUNK, "10", Unfit::BehindTheEnd),
            ("chunks behind a whole disk", size, "01", Unfit::BehindTheEnd),
        ];
        for (situation, up_to, beyond, want) in cases {
            assert_eq!(Checkpoint::read(content(), up_to, beyond), Err(want), "{situation}");
        }
        assert!(Checkpoint::read(content(), 96 * CHUNK, "0e00").is_ok(), "zeroes behind the end name nothing");
    }
}
