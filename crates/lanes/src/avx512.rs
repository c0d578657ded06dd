//! Sixteen lanes on AVX-512: rotations and the functions of three words are one instruction each.
//!
//! The functions below are safe in each other's company, being compiled for the same CPU features; [`Cpu::digests`]
//! is the one door, and [`Cpu::detect`] has the key.

#![allow(unsafe_code)] // the door, and the two transmutes between vectors and plain arrays

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_set4_epi32, _mm512_shuffle_epi8,
    _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use crate::Digest;
use crate::compression::{INITIAL, ROUND, sha256_in_lanes};
use crate::padding::{Block, Ending, head, whole_blocks};

/// Messages at once.
pub(crate) const LANES: usize = 16;

/// One word of each message; message 0 in the lowest 32 bits.
type Word = __m512i;

/// Proof that this CPU has AVX-512 F and BW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu(());

impl Cpu {
    /// Asks the CPU, and whether the operating system keeps the wide registers.
    pub(crate) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        has_all.then_some(Self(()))
    }

    /// The digests of messages; it takes as long as the longest of them.
    pub(crate) fn digests(self, messages: &[&[u8]; LANES]) -> [Digest; LANES] {
        // SAFETY: `self` was made by `detect`, so the CPU has the features that `digests` is compiled for
        unsafe { digests(messages) }
    }
}

sha256_in_lanes!("avx512f,avx512bw");

#[target_feature(enable = "avx512f")]
#[inline]
fn add(a: Word, b: Word) -> Word {
    _mm512_add_epi32(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn splat(word: u32) -> Word {
    _mm512_set1_epi32(word.cast_signed())
}

/// Ch. The number is the truth table: bit `4x + 2y + z` is the answer to the bits x, y, z.
#[target_feature(enable = "avx512f")]
#[inline]
fn choose(x: Word, y: Word, z: Word) -> Word {
    _mm512_ternarylogic_epi32::<0b1100_1010>(x, y, z)
}

/// Maj.
#[target_feature(enable = "avx512f")]
#[inline]
fn majority(x: Word, y: Word, z: Word) -> Word {
    _mm512_ternarylogic_epi32::<0b1110_1000>(x, y, z)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn xor(x: Word, y: Word, z: Word) -> Word {
    _mm512_ternarylogic_epi32::<0b1001_0110>(x, y, z)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn big_sigma0(x: Word) -> Word {
    xor(_mm512_ror_epi32::<2>(x), _mm512_ror_epi32::<13>(x), _mm512_ror_epi32::<22>(x))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn big_sigma1(x: Word) -> Word {
    xor(_mm512_ror_epi32::<6>(x), _mm512_ror_epi32::<11>(x), _mm512_ror_epi32::<25>(x))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn small_sigma0(x: Word) -> Word {
    xor(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn small_sigma1(x: Word) -> Word {
    xor(_mm512_ror_epi32::<17>(x), _mm512_ror_epi32::<19>(x), _mm512_srli_epi32::<10>(x))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn unpack(word: Word) -> [u32; LANES] {
    // SAFETY: both are 64 bytes, and any bits are sixteen numbers
    unsafe { transmute(word) }
}

/// A block as sixteen words, their bytes turned from the message's order (big-endian) to the CPU's.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn words_of(block: &Block) -> Word {
    let turn = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    // SAFETY: both are 64 bytes, and any bits are a vector; it is a copy, so the block may lie anywhere
    _mm512_shuffle_epi8(unsafe { transmute::<Block, Word>(*block) }, turn)
}

/// Turns a row of words per message into a row of messages per word: within quarters of a register, then quarters.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load(blocks: &[&Block; LANES]) -> [Word; 16] {
    let mut words = [splat(0); 16];
    let mut fours = [[splat(0); 4]; 4];
    for (four, blocks) in fours.iter_mut().zip(blocks.as_chunks().0) {
        *four = transpose_words(blocks);
    }
    for at in 0..4 {
        let rows = [fours[0][at], fours[1][at], fours[2][at], fours[3][at]];
        [words[at], words[4 + at], words[8 + at], words[12 + at]] = transpose_quarters(rows);
    }
    words
}

/// In the result `at`, quarter `q` holds word `4q + at` of the four messages.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn transpose_words(blocks: &[&Block; 4]) -> [Word; 4] {
    let [a, b, c, d] = [words_of(blocks[0]), words_of(blocks[1]), words_of(blocks[2]), words_of(blocks[3])];
    let (low_ab, high_ab) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low_cd, high_cd) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(low_ab, low_cd),
        _mm512_unpackhi_epi64(low_ab, low_cd),
        _mm512_unpacklo_epi64(high_ab, high_cd),
        _mm512_unpackhi_epi64(high_ab, high_cd),
    ]
}

/// Quarter `row` of the result `q` is quarter `q` of the row.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_quarters([a, b, c, d]: [Word; 4]) -> [Word; 4] {
    const LOW_HALVES: i32 = 0b01_00_01_00;
    const HIGH_HALVES: i32 = 0b11_10_11_10;
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let (low_ab, high_ab) = (_mm512_shuffle_i32x4::<LOW_HALVES>(a, b), _mm512_shuffle_i32x4::<HIGH_HALVES>(a, b));
    let (low_cd, high_cd) = (_mm512_shuffle_i32x4::<LOW_HALVES>(c, d), _mm512_shuffle_i32x4::<HIGH_HALVES>(c, d));
    [
        _mm512_shuffle_i32x4::<EVEN>(low_ab, low_cd),
        _mm512_shuffle_i32x4::<ODD>(low_ab, low_cd),
        _mm512_shuffle_i32x4::<EVEN>(high_ab, high_cd),
        _mm512_shuffle_i32x4::<ODD>(high_ab, high_cd),
    ]
}
