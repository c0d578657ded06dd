//! A key file: in the clear, and whoever can write to the bucket can write one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::key_file(bytes));
