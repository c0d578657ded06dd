//! What a vCenter answers, and what we put into a request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    vsphere::fuzzing::reply(text);
    vsphere::fuzzing::request(text);
});
