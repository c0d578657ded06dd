//! What a store answers: listings of objects, of uploads and of their parts, errors, objects.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| repository::fuzzing::store_answers(bytes));
