//! SHA-256 over vectors of words, written once for every width (FIPS 180-4 sections 5.3.3 and 6.2).
//!
//! A macro and not a trait: a trait's method cannot be compiled for a CPU feature and stay safe to call, so each
//! vector operation would need an `unsafe` of its own. Contains no `unsafe`, and knows no instruction.

/// The initial hash value: FIPS 180-4 section 5.3.3.
#[rustfmt::skip]
pub(crate) const INITIAL: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

/// The constant of each round: FIPS 180-4 section 4.2.2. As many in a row as a block has words.
#[rustfmt::skip]
pub(crate) const ROUND: [[u32; 16]; 4] = [
    [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    ],
    [
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    ],
    [
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    ],
    [
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ],
];

/// Writes a step for each place in a block, so that words change places and not registers: a loop was 0.9 as fast.
macro_rules! write_out {
    ($step:ident, $constants:expr, $($at:literal)*) => {
        $($step!($constants, $at);)*
    };
}

/// Writes `digests` for one width, to be compiled for the CPU features named.
///
/// The module that calls it has a `Word`, one 32-bit word of each of its `LANES` messages, and the functions `add`,
/// `splat`, `choose`, `majority`, `big_sigma0`, `big_sigma1`, `small_sigma0`, `small_sigma1` (FIPS 180-4
/// section 4.1.2) over it, `load` (a block of each message to sixteen `Word`s) and `unpack` (a `Word` to numbers).
macro_rules! sha256_in_lanes {
    ($features:literal) => {
        /// The digests of messages; it takes as long as the longest of them.
        #[target_feature(enable = $features)]
        fn digests(messages: &[&[u8]; LANES]) -> [Digest; LANES] {
            let (bodies, endings) = (messages.map(whole_blocks), messages.map(Ending::of));
            let ends: [usize; LANES] = std::array::from_fn(|lane| bodies[lane].len() + endings[lane].blocks().len());
            let (first, last) = ends.iter().fold((usize::MAX, 0), |(low, high), &end| (low.min(end), high.max(end)));
            let mut digests = [[0; 32]; LANES];
            let mut state = [splat(0); 8];
            for (word, initial) in state.iter_mut().zip(INITIAL) {
                *word = splat(initial);
            }
            for block in 0..last {
                let heads = std::array::from_fn(|lane| head(bodies[lane], &endings[lane], block));
                compress(&mut state, load(&heads));
                if block + 1 >= first {
                    let now = to_digests(&state);
                    for lane in (0..LANES).filter(|&lane| ends[lane] == block + 1) {
                        digests[lane] = now[lane];
                    }
                }
            }
            digests
        }

        /// Takes one block of each message, as words, into the state: FIPS 180-4 section 6.2.2.
        ///
        /// `words` holds the sixteen words of the schedule that are needed next; the last sixteen rounds make none.
        #[target_feature(enable = $features)]
        #[inline]
        fn compress(state: &mut [Word; 8], mut words: [Word; 16]) {
            let mut new = *state;
            macro_rules! last_step {
                ($constants:expr, $at:expr) => {
                    new = round(new, add(splat($constants[$at]), words[$at]));
                };
            }
            macro_rules! step {
                ($constants:expr, $at:expr) => {
                    last_step!($constants, $at);
                    words[$at] = next_word(&words, $at);
                };
            }
            let [first, second, third, last] = &ROUND;
            for constants in [first, second, third] {
                $crate::compression::write_out!(step, constants, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            }
            $crate::compression::write_out!(last_step, last, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for (word, new) in state.iter_mut().zip(new) {
                *word = add(*word, new);
            }
        }

        /// One round; `keyed` is its word of the schedule and its constant, added.
        #[target_feature(enable = $features)]
        #[inline]
        fn round([a, b, c, d, e, f, g, h]: [Word; 8], keyed: Word) -> [Word; 8] {
            let t1 = add(add(add(h, keyed), choose(e, f, g)), big_sigma1(e));
            let t2 = add(big_sigma0(a), majority(a, b, c));
            [add(t1, t2), a, b, c, add(d, t1), e, f, g]
        }

        /// The word of the schedule sixteen after the one at `at`, whose place it takes.
        #[target_feature(enable = $features)]
        #[inline]
        fn next_word(words: &[Word; 16], at: usize) -> Word {
            let older = add(words[at], small_sigma0(words[(at + 1) % 16]));
            add(older, add(words[(at + 9) % 16], small_sigma1(words[(at + 14) % 16])))
        }

        /// The state's words, most significant byte first, lane by lane.
        #[target_feature(enable = $features)]
        fn to_digests(state: &[Word; 8]) -> [Digest; LANES] {
            let mut digests = [[0; 32]; LANES];
            for (at, &word) in state.iter().enumerate() {
                for (digest, number) in digests.iter_mut().zip(unpack(word)) {
                    digest[4 * at..][..4].copy_from_slice(&number.to_be_bytes());
                }
            }
            digests
        }
    };
}

pub(crate) use {sha256_in_lanes, write_out};
