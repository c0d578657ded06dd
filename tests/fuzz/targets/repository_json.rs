//! JSON below the seal that is no document: folders, disk.json, keys.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::json(bytes));
