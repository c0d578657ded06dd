//! A sealed document of a repository: index, snapshot, lock, config.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::document(bytes));
