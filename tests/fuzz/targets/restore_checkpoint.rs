//! How far a restore has come, as `status.checkpoint` of a Download says it: two numbers and a map, an empty line before the map.
#![no_main]

use std::time::Duration;

use data_path::{Checkpoint, Source};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use libfuzzer_sys::fuzz_target;
use repository::{ReadChunk, Unread};

/// 100 chunks, the last one short.
struct Disk;

impl Source for Disk {
    fn size(&self) -> u64 {
        100 * self.chunk_size() - 5
    }

    fn chunk_size(&self) -> u64 {
        4096
    }

    fn digest(&self) -> &str {
        "d"
    }

    fn is_zero(&self, _: u64) -> bool {
        false
    }

    fn has_unknown_zeroes(&self) -> bool {
        false
    }

    fn read(&self, _: Vec<u64>, _: usize) -> BoxStream<'static, Result<ReadChunk, Unread>> {
        stream::empty().boxed()
    }

    fn spent(&self) -> (Duration, Duration) {
        (Duration::ZERO, Duration::ZERO)
    }
}

fuzz_target!(|noted: (u64, u64, &str)| {
    let (chunk_size, up_to, beyond) = noted;
    // most of what is tried fits in the one number that would end it
    let chunk_size = if chunk_size % 8 == 0 { chunk_size } else { Disk.chunk_size() };
    let up_to = if up_to % 8 == 0 { up_to } else { (up_to % 104).saturating_mul(chunk_size) };
    let Ok(read) = Checkpoint::noted(&Disk, "d", chunk_size, up_to, beyond) else { return };
    assert!(read.up_to() >= up_to && read.bytes() <= Disk.size(), "{read:?}");
    let again = Checkpoint::noted(&Disk, read.digest(), read.chunk_size(), read.up_to(), &read.beyond());
    assert_eq!(again.as_ref(), Ok(&read), "it is read as it was written");
});
