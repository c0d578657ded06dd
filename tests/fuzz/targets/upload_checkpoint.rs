//! The checkpoint of a transfer that was cut short, as the writer that goes on takes it up.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::checkpoint(bytes));
