//! Eight lanes on AVX2, which has neither rotations nor functions of three words.
//!
//! Two sets of eight, interleaved, were tried and gave 0.9 of the throughput: one set keeps the CPU's ports busy
//! (85 % of what three instructions a cycle allow), and sixteen registers hold no second one.
//! As in `avx512`, [`Cpu::digests`] is the one door, and [`Cpu::detect`] has the key.

#![allow(unsafe_code)] // the door, and the two transmutes between vectors and plain arrays

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set_epi32,
    _mm256_set1_epi32, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};
use std::mem::transmute;

use crate::Digest;
use crate::compression::{INITIAL, ROUND, sha256_in_lanes};
use crate::padding::{Block, Ending, head, whole_blocks};

/// Messages at once.
pub(crate) const LANES: usize = 8;

/// One word of each message; message 0 in the lowest 32 bits.
type Word = __m256i;

/// Proof that this CPU has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu(());

impl Cpu {
    /// Asks the CPU, and whether the operating system keeps the wide registers.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// The digests of messages; it takes as long as the longest of them.
    pub(crate) fn digests(self, messages: &[&[u8]; LANES]) -> [Digest; LANES] {
        // SAFETY: `self` was made by `detect`, so the CPU has the feature that `digests` is compiled for
        unsafe { digests(messages) }
    }
}

sha256_in_lanes!("avx2");

#[target_feature(enable = "avx2")]
#[inline]
fn add(a: Word, b: Word) -> Word {
    _mm256_add_epi32(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn splat(word: u32) -> Word {
    _mm256_set1_epi32(word.cast_signed())
}

/// Ch, with one operation less than FIPS 180-4 section 4.1.2 writes it.
#[target_feature(enable = "avx2")]
#[inline]
fn choose(x: Word, y: Word, z: Word) -> Word {
    _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)))
}

/// Maj, likewise.
#[target_feature(enable = "avx2")]
#[inline]
fn majority(x: Word, y: Word, z: Word) -> Word {
    _mm256_or_si256(_mm256_and_si256(x, y), _mm256_and_si256(z, _mm256_or_si256(x, y)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn xor(x: Word, y: Word, z: Word) -> Word {
    _mm256_xor_si256(x, _mm256_xor_si256(y, z))
}

/// ROTR; `LEFT` is 32 less `RIGHT`.
#[target_feature(enable = "avx2")]
#[inline]
fn rotate<const RIGHT: i32, const LEFT: i32>(x: Word) -> Word {
    const { assert!(RIGHT + LEFT == 32) };
    _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(x), _mm256_slli_epi32::<LEFT>(x))
}

#[target_feature(enable = "avx2")]
#[inline]
fn big_sigma0(x: Word) -> Word {
    xor(rotate::<2, 30>(x), rotate::<13, 19>(x), rotate::<22, 10>(x))
}

#[target_feature(enable = "avx2")]
#[inline]
fn big_sigma1(x: Word) -> Word {
    xor(rotate::<6, 26>(x), rotate::<11, 21>(x), rotate::<25, 7>(x))
}

#[target_feature(enable = "avx2")]
#[inline]
fn small_sigma0(x: Word) -> Word {
    xor(rotate::<7, 25>(x), rotate::<18, 14>(x), _mm256_srli_epi32::<3>(x))
}

#[target_feature(enable = "avx2")]
#[inline]
fn small_sigma1(x: Word) -> Word {
    xor(rotate::<17, 15>(x), rotate::<19, 13>(x), _mm256_srli_epi32::<10>(x))
}

#[target_feature(enable = "avx2")]
#[inline]
fn unpack(word: Word) -> [u32; LANES] {
    // SAFETY: both are 32 bytes, and any bits are eight numbers
    unsafe { transmute(word) }
}

/// A block as two times eight words, their bytes turned from the message's order (big-endian) to the CPU's.
#[target_feature(enable = "avx2")]
#[inline]
fn words_of(block: &Block) -> [Word; 2] {
    let (w3, w2, w1, w0) = (0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let turn = _mm256_set_epi32(w3, w2, w1, w0, w3, w2, w1, w0);
    // SAFETY: both are 64 bytes, and any bits are two vectors; it is a copy, so the block may lie anywhere
    let [first, second] = unsafe { transmute::<Block, [Word; 2]>(*block) };
    [_mm256_shuffle_epi8(first, turn), _mm256_shuffle_epi8(second, turn)]
}

/// Turns a row of words per message into a row of messages per word: within halves of a register, then halves.
#[target_feature(enable = "avx2")]
#[inline]
fn load(blocks: &[&Block; LANES]) -> [Word; 16] {
    let mut words = [splat(0); 16];
    let mut rows = [[splat(0); 2]; LANES];
    for (row, block) in rows.iter_mut().zip(blocks) {
        *row = words_of(block);
    }
    for half in 0..2 {
        let low = transpose_words([rows[0][half], rows[1][half], rows[2][half], rows[3][half]]);
        let high = transpose_words([rows[4][half], rows[5][half], rows[6][half], rows[7][half]]);
        for at in 0..4 {
            words[8 * half + at] = _mm256_permute2x128_si256::<0x20>(low[at], high[at]);
            words[8 * half + 4 + at] = _mm256_permute2x128_si256::<0x31>(low[at], high[at]);
        }
    }
    words
}

/// In the result `at`, half `h` holds word `4h + at` of the four rows.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose_words([a, b, c, d]: [Word; 4]) -> [Word; 4] {
    let (low_ab, high_ab) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (low_cd, high_cd) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(low_ab, low_cd),
        _mm256_unpackhi_epi64(low_ab, low_cd),
        _mm256_unpacklo_epi64(high_ab, high_cd),
        _mm256_unpackhi_epi64(high_ab, high_cd),
    ]
}
