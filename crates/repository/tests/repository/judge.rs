//! restic as a judge, and disks to be judged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use repository::store::{FolderStore, Store};
use repository::{
    ChunkRef, DiskFacts, Error, NewRestorePoint, Reader, Repository, RestorePoint, Writer, WriterOptions,
};
use secrecy::SecretString;
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "only for tests";
pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const CHUNK: u64 = repository::CHUNK_SIZE;

pub(crate) fn password() -> SecretString {
    PASSWORD.into()
}

/// A folder with room for a repository and whatever else a test needs; gone at the end.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(FolderStore::new(self.repository()))
    }

    pub(crate) async fn initialised(&self) -> Repository {
        repository::initialise(self.store(), &password()).await.unwrap()
    }

    pub(crate) fn restic(&self) -> Restic {
        Restic { repository: self.repository().display().to_string(), environment: Vec::new() }
    }

    /// Files below `folder` of the repository.
    pub(crate) fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.repository().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

/// Debian's restic on one repository.
pub(crate) struct Restic {
    pub(crate) repository: String,
    pub(crate) environment: Vec<(String, String)>,
}

impl Restic {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "--repo", &self.repository]).args(arguments);
        command.env("RESTIC_PASSWORD", PASSWORD).envs(self.environment.iter().cloned());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("restic is installed (Debian package `restic`)")
    }

    /// Runs it, and fails the test when restic is not content.
    pub(crate) fn content(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {arguments:?}: {text}");
        text
    }

    /// Every byte is there, and nothing is odd.
    pub(crate) fn check(&self) {
        let text = self.content(&["check", "--read-data"]);
        assert!(text.contains("no errors were found"), "{text}");
        assert!(!text.contains("warning") && !text.contains("error:"), "{text}");
    }

    /// The documented one-liner: the disk without us.
    pub(crate) fn dump(&self, id: &str, target: &Path) {
        let script = r#"set -o pipefail; restic --no-cache --repo "$0" dump "$1" /extents | tar xO | dd of="$2" bs=1M iflag=fullblock conv=sparse status=none"#;
        let mut bash = Command::new("bash");
        bash.args(["-c", script, &self.repository, id]).arg(target);
        bash.env("RESTIC_PASSWORD", PASSWORD).envs(self.environment.iter().cloned());
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A disk as a test sees it: data in some places, zeroes elsewhere.
#[derive(Clone)]
pub(crate) struct TestDisk {
    pub(crate) size: u64,
    pub(crate) data: Vec<(u64, Vec<u8>)>,
}

impl TestDisk {
    pub(crate) fn empty(size: u64) -> Self {
        Self { size, data: Vec::new() }
    }

    pub(crate) fn with(mut self, offset: u64, bytes: Vec<u8>) -> Self {
        assert!(offset + bytes.len() as u64 <= self.size);
        self.data.push((offset, bytes));
        self
    }

    /// Full of bytes that do not compress, the same for the same seed.
    pub(crate) fn random(size: u64, seed: u64) -> Self {
        Self::empty(size).with(0, noise(size, seed))
    }

    /// `None` when all of it is zero.
    pub(crate) fn chunk(&self, offset: u64, length: u64) -> Option<Bytes> {
        let mut bytes = vec![0; length as usize];
        for (start, data) in &self.data {
            let (from, to) = (offset.max(*start), (offset + length).min(start + data.len() as u64));
            if from < to {
                let source = &data[(from - start) as usize..(to - start) as usize];
                bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        bytes.iter().any(|byte| *byte != 0).then(|| Bytes::from(bytes))
    }

    /// Writes every chunk of it.
    pub(crate) async fn put_into(&self, writer: &Writer) -> Result<(), Error> {
        let mut zeroes = 0..0;
        for index in 0..writer.chunk_count() {
            let range = writer.chunk_range(index);
            match self.chunk(range.offset, range.length) {
                None if zeroes.end == index && !zeroes.is_empty() => zeroes.end += 1,
                None => {
                    writer.put_zero(zeroes).await?;
                    zeroes = index..index + 1;
                }
                Some(data) => writer.put_chunk(index, data).await?,
            }
        }
        writer.put_zero(zeroes).await
    }

    pub(crate) fn point(&self) -> NewRestorePoint {
        let time = "2026-03-01T12:00:00.5Z".parse().unwrap();
        NewRestorePoint::new("a-cluster", "/namespace/claim", time, DiskFacts::of_size(self.size))
    }

    pub(crate) async fn back_up(&self, repository: &Repository) -> Result<RestorePoint, Error> {
        let writer = repository.writer(self.point(), WriterOptions::default()).await?;
        self.put_into(&writer).await?;
        writer.commit().await
    }

    /// Fails the test unless the file is this disk.
    pub(crate) fn assert_is_file(&self, path: &Path) {
        use std::io::Read;
        let mut file = std::fs::File::open(path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), self.size);
        let mut offset = 0;
        while offset < self.size {
            let length = MIB.min(self.size - offset);
            let mut bytes = vec![0; length as usize];
            file.read_exact(&mut bytes).unwrap();
            let want = self.chunk(offset, length).unwrap_or_else(|| Bytes::from(vec![0; length as usize]));
            assert!(want == bytes, "the file differs within {offset}+{length}");
            offset += length;
        }
    }

    /// Fails the test unless the restore point is this disk.
    pub(crate) async fn assert_is_read(&self, reader: &Reader) {
        use futures::TryStreamExt;
        assert_eq!(reader.size(), self.size);
        for index in 0..reader.chunk_count() {
            let range = reader.chunk_range(index);
            let zero = self.chunk(range.offset, range.length).is_none();
            assert_eq!(reader.chunk(index) == ChunkRef::Zero, zero, "chunk {index}");
        }
        let plan = reader.plan(0..reader.chunk_count());
        let chunks: Vec<_> = reader.read(plan, 4).try_collect().await.unwrap();
        let mut seen = 0;
        for chunk in chunks {
            for index in chunk.at {
                let range = reader.chunk_range(index);
                assert_eq!(self.chunk(range.offset, range.length).unwrap(), chunk.data, "chunk {index}");
                seen += 1;
            }
        }
        let data = (0..reader.chunk_count()).filter(|index| reader.chunk(*index) != ChunkRef::Zero).count();
        assert_eq!(seen, data);
    }
}

/// Bytes without pattern from a seed (xorshift), so that failures repeat.
pub(crate) fn noise(length: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length as usize + 8);
    while (bytes.len() as u64) < length {
        bytes.extend(next());
    }
    bytes.truncate(length as usize);
    bytes
}
