//! What a maintenance run leaves for the next one and for writers: packs that are marked, packs that are condemned.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::maintenance_note(bytes));
