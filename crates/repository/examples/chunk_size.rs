//! Measures what decides the chunk size: first backup, a backup after small changes, bytes stored, index in memory.
//!
//! `cargo run --release -p repository --example chunk_size -- DISK.raw` prints the table of
//! `docs/decisions/0002-chunk-size.md` for a raw file as source and a folder beside it as store.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use repository::store::FolderStore;
use repository::{DiskFacts, NewRestorePoint, Repository, WriterOptions, WriterStats};

const KIB: u64 = 1 << 10;
/// The changes that the second backup finds: 1 % of the disk in pieces of 64 KiB.
const PIECE: u64 = 64 * KIB;
/// The disk that the index in memory is reckoned for.
const LARGE_DISK: u64 = 2 << 40;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("name a raw disk image"))?;
    let size = File::open(&path)?.metadata()?.len();
    println!("| chunk | first backup | CPU | stored | after 1 % changes | CPU | stored | index at 2 TiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for chunk_size in [256 * KIB, 512 * KIB, 1024 * KIB] {
        let place = tempfile::tempdir_in(Path::new(&path).parent().unwrap_or(Path::new(".")))?;
        let password = "only measured".into();
        let repository = repository::initialise(Arc::new(FolderStore::new(place.path())), &password).await?;
        let (first, first_seconds, cpu) = back_up(&repository, &path, size, chunk_size, false).await?;
        let (second, second_seconds, second_cpu) = back_up(&repository, &path, size, chunk_size, true).await?;
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "| {} KiB | {first_seconds:.1} s | {cpu:.1} s | {} MiB | {second_seconds:.1} s | {second_cpu:.1} s | {} MiB | {} MiB |",
            chunk_size / KIB,
            mib(first.bytes_stored),
            mib(second.bytes_stored),
            mib(LARGE_DISK / chunk_size * 20),
        );
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("\nPeak resident memory: {}", peak.trim());
    Ok(())
}

/// Reads all of the file; with `changed`, every hundredth piece of 64 KiB is another than in the file.
async fn back_up(
    repository: &Repository,
    path: &str,
    size: u64,
    chunk_size: u64,
    changed: bool,
) -> anyhow::Result<(WriterStats, f64, f64)> {
    let point = NewRestorePoint::new("measured", path, jiff::Timestamp::now(), DiskFacts::of_size(size));
    let writer = repository.writer(point, WriterOptions { chunk_size, ..WriterOptions::default() }).await?;
    let (start, cpu, file) = (Instant::now(), cpu_seconds(), Arc::new(File::open(path)?));
    for index in 0..writer.chunk_count() {
        let (range, file) = (writer.chunk_range(index), file.clone());
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(range.length).map_err(std::io::Error::other)?];
            file.read_exact_at(&mut bytes, range.offset)?;
            Ok(bytes)
        });
        let mut bytes = read.await??;
        if changed {
            change(&mut bytes, range.offset);
        }
        writer.put_chunk(index, Bytes::from(bytes)).await?;
    }
    writer.commit().await?;
    Ok((writer.stats(), start.elapsed().as_secs_f64(), cpu_seconds() - cpu))
}

/// Writes over one byte of each piece whose turn it is; scattered, so that neighbours do not share a chunk.
fn change(bytes: &mut [u8], offset: u64) {
    for (piece, number) in bytes.chunks_mut(64 << 10).zip(offset / PIECE..) {
        if number.wrapping_mul(2_654_435_761) % 100 == 0 {
            piece[17] ^= 0x5a;
        }
    }
}

/// User and system time of this process in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n| after_name.split_whitespace().nth(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
