//! What any program must spend to store a disk image in restic's format, and to read it back: CPU seconds of one core over
//! the same data in memory, a line each. `make bench` adds what reading and writing cost and sets our own time beside it.
//!
//! Hash, zstd and cipher are the fastest that we know of and use ourselves. Only what must be done is counted: a chunk that
//! is there already is hashed and no more, and one that zstd gains nothing on is not compressed.

use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use aes256ctr_poly1305aes::aead::AeadInPlace;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use anyhow::Context as _;
use repository::{CHUNK_SIZE, ChunkId, is_zero};
use rustix::fs::{SeekFrom, seek};
use zstd::bulk::{Compressor, Decompressor};

/// Chunks that are hashed together: a full set of the widest lanes.
const TOGETHER: usize = 16;

/// CPU seconds so far.
#[derive(Default)]
struct Spent {
    zero_test: f64,
    hash: f64,
    compress: f64,
    seal: f64,
    /// A pack is named by the hash of all its bytes.
    name: f64,
    open: f64,
    decompress: f64,
    hash_again: f64,
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("name a raw disk image")?;
    let file = File::open(&path).with_context(|| format!("open {path}"))?;
    let mut work = Work::new()?;
    let length = usize::try_from(CHUNK_SIZE).context("a chunk fits into memory")?;
    let mut set = Vec::new();
    let mut at = 0;
    while let Some(chunk) = next_chunk(&file, at)? {
        let mut bytes = vec![0; length];
        read_up_to(&file, &mut bytes, chunk * CHUNK_SIZE)?;
        set.push(bytes);
        if set.len() == TOGETHER {
            work.store_and_read_back(&set)?;
            set.clear();
        }
        at = (chunk + 1) * CHUNK_SIZE;
    }
    work.store_and_read_back(&set)?;
    let Spent { zero_test, hash, compress, seal, name, open, decompress, hash_again } = work.spent;
    for (what, seconds) in [
        ("backup zero-test", zero_test),
        ("backup SHA-256", hash),
        ("backup zstd", compress),
        ("backup AES", seal),
        ("names SHA-256", name),
        ("restore AES", open),
        ("restore zstd", decompress),
        ("restore SHA-256", hash_again),
    ] {
        println!("{what}\t{seconds:.3}");
    }
    Ok(())
}

/// The number of the first chunk from `offset` on that holds data.
fn next_chunk(file: &File, offset: u64) -> anyhow::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data.max(offset) / CHUNK_SIZE)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error).context("look for data in the image"),
    }
}

/// What lies behind the end reads as zeroes.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> anyhow::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64).context("read the image")? {
            0 => break,
            read => done += read,
        }
    }
    Ok(())
}

struct Work {
    known: HashSet<ChunkId>,
    cipher: Aes256CtrPoly1305Aes,
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    spent: Spent,
}

impl Work {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            known: HashSet::new(),
            cipher: Aes256CtrPoly1305Aes::new(Key::from_slice(&[7; 64])),
            compressor: Compressor::new(1)?,
            decompressor: Decompressor::new()?,
            spent: Spent::default(),
        })
    }

    fn store_and_read_back(&mut self, chunks: &[Vec<u8>]) -> anyhow::Result<()> {
        let (zero_test, data) = timed(|| chunks.iter().filter(|chunk| !is_zero(chunk)).collect::<Vec<_>>())?;
        self.spent.zero_test += zero_test;
        let slices: Vec<&[u8]> = data.iter().map(|chunk| chunk.as_slice()).collect();
        let (hash, ids) = timed(|| ChunkId::of_all(&slices))?;
        self.spent.hash += hash;
        let mut stored = Vec::new();
        for (chunk, id) in slices.iter().zip(ids) {
            if self.known.insert(id) {
                stored.push(self.store_and_read_back_one(chunk)?);
            }
        }
        let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
        let (name, _) = timed(|| black_box(ChunkId::of_all(&stored)))?;
        self.spent.name += name;
        let (hash_again, _) = timed(|| black_box(ChunkId::of_all(&slices)))?;
        self.spent.hash_again += hash_again;
        Ok(())
    }

    /// Gives what is stored of the chunk.
    fn store_and_read_back_one(&mut self, chunk: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (compress, compressed) = timed(|| self.compressor.compress(chunk))?;
        let compressed = compressed?;
        let gains = compressed.len() + chunk.len() / 64 < chunk.len();
        let mut content = chunk.to_vec();
        if gains {
            self.spent.compress += compress;
            content = compressed;
        }
        let nonce = Nonce::from_slice(&[9; 16]);
        let (seal, mac) = timed(|| self.cipher.encrypt_in_place_detached(nonce, b"", &mut content))?;
        self.spent.seal += seal;
        let sealed = content.clone();
        let mac = mac.expect("far below the cipher's limit");
        let (open, opened) = timed(|| self.cipher.decrypt_in_place_detached(nonce, b"", &mut content, &mac))?;
        opened.expect("what was sealed a moment ago");
        self.spent.open += open;
        if gains {
            let (decompress, plain) = timed(|| self.decompressor.decompress(&content, chunk.len()))?;
            anyhow::ensure!(plain? == chunk, "zstd gives back something else");
            self.spent.decompress += decompress;
        }
        Ok(sealed)
    }
}

/// CPU seconds of this thread while `work` ran.
fn timed<T>(work: impl FnOnce() -> T) -> anyhow::Result<(f64, T)> {
    let before = on_cpu()?;
    let done = work();
    Ok((on_cpu()? - before, done))
}

/// CPU seconds of this thread so far: the kernel counts them in nanoseconds.
fn on_cpu() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("read the thread's CPU time")?;
    let nanoseconds: u64 = text.split_whitespace().next().context("a number")?.parse()?;
    Ok(nanoseconds as f64 / 1e9)
}
