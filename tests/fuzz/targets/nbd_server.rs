//! What an NBD server answers: a word about lengths first, then what it says while it agrees, then its replies.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// A length in two bytes and so many bytes; what is left when they are too few.
fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::from(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    let rest = &bytes[2..];
    let (piece, after) = rest.split_at(length.min(rest.len()));
    *bytes = after;
    Some(piece)
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let Some(agrees) = take(&mut rest) else { return };
    let mut pieces = Vec::new();
    while let Some(piece) = take(&mut rest) {
        pieces.push(piece);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(nbd::fuzzing::client(agrees, &pieces));
});
