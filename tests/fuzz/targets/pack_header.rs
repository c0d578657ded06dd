//! The header of a pack.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::pack(bytes));
