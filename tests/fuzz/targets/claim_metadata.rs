//! `Snapshot.status.metadata`: a claim in protobuf, which anybody may write.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(claim) = api::metadata::decode(bytes) else { return };
    let written = api::metadata::encode(&claim);
    assert_eq!(api::metadata::decode(&written).ok().as_ref(), Some(&claim), "it is read as it was written");
    let kept = api::metadata::rewrite(bytes, |_| {}).expect("what can be read can be written anew");
    assert_eq!(api::metadata::decode(&kept).ok().as_ref(), Some(&claim), "nothing was changed");
});
