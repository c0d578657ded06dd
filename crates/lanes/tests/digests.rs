//! Every engine of this CPU against the standard's own examples and against `ring`.
//!
//! An engine that the CPU lacks is not tested here, and says so: run on a CPU with AVX-512 to test all of them.

use lanes::{Digest, Engine, digest_all};
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::{collection, prop_assert_eq, proptest};

/// Lengths around which the padding changes: FIPS 180-4 section 5.1.1.
const EDGES: [usize; 16] = [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 121, 127, 128, 129, 4096];
/// More messages than two sets of the widest lanes, and a set that is not full.
const MOST_MESSAGES: usize = 40;

fn ring(message: &[u8]) -> Digest {
    ring::digest::digest(&ring::digest::SHA256, message).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every message lies somewhere else in one buffer, most of them unaligned.
fn slices<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    lengths.iter().enumerate().map(|(at, &length)| &bytes[at * 7..][..length]).collect()
}

fn check(bytes: &[u8], lengths: &[usize]) {
    let messages = slices(bytes, lengths);
    let want: Vec<Digest> = messages.iter().map(|message| ring(message)).collect();
    for engine in Engine::available() {
        assert_eq!(digest_all(engine, &messages), want, "{engine}, lengths {lengths:?}");
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

/// NIST's two examples of SHA-256 (csrc.nist.gov, "Examples with Intermediate Values": "abc" and the one of 448 bits),
/// and those that implementations are asked for besides: nothing, 896 bits, and a million times "a" (FIPS 180-2 B.3).
#[test]
fn known_answers_of_the_standard() {
    let million = "a".repeat(1_000_000);
    let cases = [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
        ),
        (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ];
    for engine in Engine::available() {
        for (message, want) in cases {
            let digests = digest_all(engine, &vec![message.as_bytes(); engine.lanes()]);
            assert_eq!(digests.len(), engine.lanes());
            assert!(digests.iter().all(|digest| hex(digest) == want), "{engine}, {} bytes", message.len());
        }
    }
}

#[test]
fn every_number_of_messages_fills_the_lanes_or_leaves_some_idle() {
    let bytes = noise(8192);
    for count in 0..=MOST_MESSAGES {
        check(&bytes, &vec![200; count]);
    }
}

#[test]
fn every_length_around_a_block_is_padded_alike() {
    let bytes = noise(8192);
    for length in (0..=260).chain(EDGES) {
        check(&bytes, &[length; 17]);
    }
}

#[test]
fn the_best_engine_is_one_that_is_available() {
    let available = Engine::available();
    eprintln!("best: {}, available: {available:?}", Engine::best());
    assert!(available.contains(&Engine::best()));
    assert_eq!(available.last(), Some(&Engine::SINGLE));
}

#[test]
fn lanes_are_used_only_where_the_cpu_has_no_sha_instructions() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sha") {
        assert_eq!(Engine::best(), Engine::SINGLE);
    } else {
        assert_eq!(Engine::best(), Engine::available()[0]);
    }
    #[cfg(not(target_arch = "x86_64"))]
    assert_eq!(Engine::available(), [Engine::SINGLE]);
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![select(&EDGES[..]), 0..600_usize]
}

proptest! {
    #[test]
    fn any_equal_messages_hash_as_with_ring(
        length in length(), count in 0..=MOST_MESSAGES, bytes in collection::vec(any::<u8>(), 5000),
    ) {
        check(&bytes, &vec![length; count]);
    }

    /// Few lengths among many messages, as the chunks of disks are: equal but for the last of each.
    #[test]
    fn any_mixed_messages_hash_as_with_ring_and_in_their_order(
        lengths in collection::vec(length(), 1..6),
        picks in collection::vec(any::<proptest::sample::Index>(), 0..=MOST_MESSAGES),
        bytes in collection::vec(any::<u8>(), 5000),
    ) {
        let lengths: Vec<usize> = picks.iter().map(|pick| *pick.get(&lengths)).collect();
        prop_assert_eq!(lengths.len(), picks.len());
        check(&bytes, &lengths);
    }
}
