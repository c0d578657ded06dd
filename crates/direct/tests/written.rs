//! What is written past the cache is what others read, wherever it begins and ends and whatever the file system takes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use direct::DirectFile;
use proptest::prelude::*;

const BLOCK: usize = 4096;

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).expect("below 251").wrapping_add(seed) | 1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_wherever_a_write_begins_and_ends(
        writes in prop::collection::vec(
            (0_usize..40, prop_oneof![Just(0_usize), 0_usize..4096], 1_usize..2_600_000, any::<u8>(), 0_usize..4096),
            1..6,
        ),
        shared_memory in any::<bool>(),
    ) {
        // a disk, and memory, where everything goes through the cache
        let folder = if shared_memory { Path::new("/dev/shm") } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
        let mut file = tempfile::tempfile_in(folder).unwrap();
        let direct = DirectFile::new(file.try_clone().unwrap());
        let mut expected = Vec::new();
        for (block, within, length, seed, shift) in writes {
            let offset = block * 16 * BLOCK + within;
            let data = bytes(length + shift, seed);
            let data = &data[shift..]; // memory begins anywhere
            direct.write_all_at(data, offset as u64).unwrap();
            expected.resize(expected.len().max(offset + length), 0);
            expected[offset..offset + length].copy_from_slice(data);
        }
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        prop_assert!(found == expected);
    }
}

#[test]
fn what_lies_in_the_cache_is_not_read_instead_of_what_was_written_past_it() {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all_at(&bytes(1 << 20, 1), 0).unwrap();
    let mut found = vec![0; 1 << 20];
    file.read_exact_at(&mut found, 0).unwrap();
    DirectFile::new(file.try_clone().unwrap()).write_all_at(&bytes(256 << 10, 9), 128 << 10).unwrap();
    file.read_exact_at(&mut found, 0).unwrap();
    let mut expected = bytes(1 << 20, 1);
    expected[128 << 10..384 << 10].copy_from_slice(&bytes(256 << 10, 9));
    assert!(found == expected);
}

#[test]
fn a_disk_without_room_is_an_error_and_no_success() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = DirectFile::new(full).write_all_at(&bytes(1 << 20, 3), 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
