//! Prints how many MiB of chunks one core names (hashes) in a second, sixteen at a time as a backup does; `make bench` puts it beside a backup's CPU time.

use std::time::{Duration, Instant};

use repository::{CHUNK_SIZE, ChunkId};

fn main() {
    let chunks = vec![vec![7; usize::try_from(CHUNK_SIZE).expect("a chunk fits into memory")]; 16];
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        std::hint::black_box(ChunkId::of_all(std::hint::black_box(&chunks)));
        bytes += 16 * CHUNK_SIZE;
    }
    println!("{:.0}", bytes as f64 / began.elapsed().as_secs_f64() / f64::from(1 << 20));
}
