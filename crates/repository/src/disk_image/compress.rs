//! zstd for chunks, and the decision not to try.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use zstd::bulk::Compressor;

/// Level 1 is the budget of a backup: more costs more than the network it saves.
const LEVEL: i32 = 1;

/// Bytes looked at to guess whether compressing helps.
const SAMPLE: usize = 16 << 10;

/// Compressors are kept: making one allocates and clears some hundred KiB.
pub(super) struct Compression {
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl Compression {
    pub(super) fn new() -> Self {
        Self { idle: Mutex::default() }
    }

    /// The content to store, and its plain length when it is compressed.
    pub(super) fn compress<'a>(&self, plain: &'a [u8]) -> (Cow<'a, [u8]>, Option<u32>) {
        let Ok(length) = u32::try_from(plain.len()) else { return (Cow::Borrowed(plain), None) };
        if plain.is_empty() || looks_random(plain) {
            return (Cow::Borrowed(plain), None);
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = idle.unwrap_or_else(|| Compressor::new(LEVEL).expect("zstd knows its level 1"));
        let compressed = compressor.compress(plain).expect("the buffer has zstd's own bound");
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
        // a gain below 1/64 is not worth decompressing for
        if compressed.len() + plain.len() / 64 < plain.len() {
            (Cow::Owned(compressed), Some(length))
        } else {
            (Cow::Borrowed(plain), None)
        }
    }
}

/// Whether a sample spread over the chunk uses all byte values about equally: encrypted or compressed content. Costs some
/// 10 µs where trying to compress costs a hundred times as much.
fn looks_random(plain: &[u8]) -> bool {
    const PIECE: usize = 256;
    if plain.len() < 2 * SAMPLE {
        return false;
    }
    let step = plain.len() / (SAMPLE / PIECE);
    let mut counts = [0_u32; 256];
    for piece in plain.chunks_exact(step) {
        for byte in &piece[..PIECE] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total = f64::from(counts.iter().sum::<u32>());
    let bits = counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total).map(|p| -p * p.log2()).sum::<f64>();
    bits > 7.95 // 16 KiB of random bytes give 7.989 ± 0.002; text and machine code stay below 6.9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_content_is_stored_as_it_is_and_text_is_compressed() {
        let compression = Compression::new();
        let mut random = vec![0; 512 << 10];
        crate::crypto::random(&mut random);
        assert!(looks_random(&random));
        assert!(compression.compress(&random).1.is_none());
        let text = "all work and no play ".repeat(30_000);
        let (content, length) = compression.compress(text.as_bytes());
        assert_eq!(length.map(|n| n as usize), Some(text.len()));
        assert!(content.len() < text.len() / 10);
        assert_eq!(compression.compress(b"").1, None);
    }

    #[test]
    fn half_random_content_is_still_compressed() {
        let mut half = vec![0; 512 << 10];
        crate::crypto::random(&mut half[..256 << 10]);
        assert!(Compression::new().compress(&half).0.len() < 270 << 10);
    }
}
