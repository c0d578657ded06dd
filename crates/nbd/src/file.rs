//! An export of a raw file or a block device: holes are told from data, writing zeroes gives space back.
//!
//! Calls go to blocking threads. What the file system says about a failed write or flush reaches the client.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use direct::DirectFile;
use disk::ByteRange;
use rustix::fs::{FallocateFlags, SeekFrom as Offset};
use rustix::io::Errno as SystemErrno;

use crate::error::{Errno, Failure};
use crate::export::{Allocation, BlockSizes, Export, Features, Fua, Kind, Zeroes};

/// Extents in one answer: bounds the memory of a badly fragmented file's answer.
const EXTENTS: usize = 4096;
/// Bytes of zeroes written at once where no hole can be made.
const ZEROES: usize = 1 << 20;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading; clients cannot write.
    Read,
    /// Reading and writing.
    Write,
}

/// A raw file or block device that is served.
#[derive(Debug)]
pub struct RawFile {
    file: Open,
    size: u64,
    /// Block devices do not tell where their holes are.
    tells_holes: bool,
}

/// A file with what clients may do with it.
#[derive(Debug, Clone)]
enum Open {
    Read(Arc<File>),
    Write(Arc<DirectFile>),
}

impl Open {
    fn file(&self) -> &File {
        match self {
            Self::Read(file) => file,
            Self::Write(file) => file.file(),
        }
    }
}

impl RawFile {
    /// Opens `path`; its size is fixed from now on.
    ///
    /// # Errors
    /// What the system says; also for what is neither a regular file nor a block device.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let what = if kind.is_dir() { "it is a folder" } else { "it is neither a regular file nor a block device" };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut file = OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let file = match access {
            Access::Read => Open::Read(Arc::new(file)),
            Access::Write => Open::Write(Arc::new(DirectFile::new(file))),
        };
        Ok(Self { file, size, tells_holes: kind.is_file() })
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || work(file.file())).await;
        Ok(done.map_err(io::Error::other)??)
    }
}

#[async_trait]
impl Export for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        matches!(self.file, Open::Read(_))
    }

    fn features(&self) -> Features {
        Features {
            flush: true,
            fua: false,
            trim: true,
            write_zeroes: true,
            multi_conn: true,
            block_status: self.tells_holes,
            blocks: BlockSizes::default(),
        }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Failure> {
        self.work(move |file| {
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        })
        .await
    }

    async fn write(&self, offset: u64, data: Bytes, fua: Fua) -> Result<(), Failure> {
        let Open::Write(written) = &self.file else { return Err(Errno::NotPermitted.into()) };
        let written = written.clone();
        self.work(move |file| {
            written.write_all_at(&data, offset)?;
            stable(file, fua)
        })
        .await
    }

    async fn flush(&self) -> Result<(), Failure> {
        self.work(File::sync_all).await
    }

    async fn trim(&self, range: ByteRange, fua: Fua) -> Result<(), Failure> {
        self.work(move |file| match punch(file, range) {
            Err(error) if cannot(&error) => Ok(()), // a trim is a hint
            done => done.and_then(|()| stable(file, fua)),
        })
        .await
    }

    async fn write_zeroes(&self, range: ByteRange, zeroes: Zeroes, fua: Fua) -> Result<(), Failure> {
        self.work(move |file| {
            let hole = if zeroes == Zeroes::MayTrim { punch(file, range) } else { Err(SystemErrno::NOTSUP.into()) };
            match hole {
                Err(error) if cannot(&error) => write_zeroes(file, range)?,
                done => done?,
            }
            stable(file, fua)
        })
        .await
    }

    async fn block_status(&self, range: ByteRange) -> Result<Vec<Allocation>, Failure> {
        if !self.tells_holes {
            return Ok(vec![Allocation { range, kind: Kind::Data }]);
        }
        let size = self.size;
        self.work(move |file| extents(file, range, size)).await
    }
}

fn stable(file: &File, fua: Fua) -> io::Result<()> {
    if fua == Fua::Yes { file.sync_data() } else { Ok(()) }
}

fn punch(file: &File, range: ByteRange) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, range.offset, range.length)?)
}

/// Whether the file system only lacks the operation.
fn cannot(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(SystemErrno::NODEV.raw_os_error())
}

fn write_zeroes(file: &File, range: ByteRange) -> io::Result<()> {
    let zeroes = vec![0; ZEROES];
    let mut at = range.offset;
    while at < range.end() {
        let length = usize::try_from(range.end() - at).map_or(ZEROES, |rest| rest.min(ZEROES));
        file.write_all_at(&zeroes[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// What of a range holds data. A file that is shorter than when it was opened has lost what lay there, which is no hole.
fn extents(file: &File, range: ByteRange, size: u64) -> io::Result<Vec<Allocation>> {
    let mut found = Vec::new();
    let mut at = range.offset;
    while at < range.end() && found.len() < EXTENTS {
        let data = match rustix::fs::seek(file, Offset::Data(at)) {
            Ok(data) => data.min(range.end()),
            Err(SystemErrno::NXIO) => range.end(), // nothing but a hole up to the end of the file
            Err(SystemErrno::INVAL | SystemErrno::NOTSUP) => at, // this file system does not tell
            Err(error) => return Err(error.into()),
        };
        if data > at {
            found.push(Allocation { range: ByteRange::between(at, data), kind: Kind::Hole });
        }
        if data < range.end() {
            let hole = match rustix::fs::seek(file, Offset::Hole(data)) {
                Ok(hole) => hole.min(range.end()),
                Err(SystemErrno::INVAL | SystemErrno::NOTSUP) => range.end(),
                Err(error) => return Err(error.into()),
            };
            found.push(Allocation { range: ByteRange::between(data, hole), kind: Kind::Data });
            at = hole;
        } else {
            at = data;
        }
    }
    let now = file.metadata()?.len(); // asked last, so that the answer above is not of a file that has shrunk since
    if now < size {
        let told = format!("it has shrunk from {size} to {now} bytes since it was opened");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, told));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sparse(data_at: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 * MIB).unwrap();
        file.as_file().write_all_at(&[7; 4096], data_at).unwrap();
        file
    }

    #[tokio::test]
    async fn holes_are_told_and_no_data_is_called_a_hole() {
        let file = sparse(4 * MIB);
        let export = RawFile::open(file.path(), Access::Read).unwrap();
        let status = export.block_status(ByteRange::new(0, 8 * MIB)).await.unwrap();
        let mut at = 0;
        for extent in &status {
            assert_eq!(extent.range.offset, at, "gap or overlap");
            at = extent.range.end();
            let holds = !extent.range.intersection(&ByteRange::new(4 * MIB, 4096)).is_empty();
            assert!(!holds || extent.kind == Kind::Data, "{extent:?}");
        }
        assert_eq!(at, 8 * MIB);
    }

    #[tokio::test]
    async fn what_a_file_that_shrinks_has_lost_is_no_hole() {
        for (what, data_at) in [("all of it", 0), ("the part behind the cut", 4 * MIB)] {
            let file = sparse(data_at);
            let export = RawFile::open(file.path(), Access::Read).unwrap();
            file.as_file().set_len(2 * MIB).unwrap();
            for range in [ByteRange::new(0, 8 * MIB), ByteRange::new(4 * MIB, MIB), ByteRange::new(0, MIB)] {
                let told = export.block_status(range).await.unwrap_err();
                assert!(format!("{told:?}").contains("shrunk"), "{what}, {range:?}: {told:?}");
            }
        }
    }

    #[tokio::test]
    async fn zeroes_over_data_read_as_zeroes() {
        for zeroes in [Zeroes::MayTrim, Zeroes::KeepAllocated] {
            let file = sparse(MIB);
            let export = RawFile::open(file.path(), Access::Write).unwrap();
            export.write_zeroes(ByteRange::new(MIB - 512, 2048), zeroes, Fua::No).await.unwrap();
            let bytes = export.read(MIB, 4096).await.unwrap();
            assert!(bytes[..1536].iter().all(|byte| *byte == 0), "{zeroes:?}");
            assert!(bytes[1536..].iter().all(|byte| *byte == 7), "{zeroes:?}: too much");
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_a_read_error_and_not_zeroes() {
        let file = sparse(0);
        let export = RawFile::open(file.path(), Access::Read).unwrap();
        file.as_file().set_len(MIB).unwrap();
        assert!(export.read(2 * MIB, 4096).await.is_err());
    }

    #[test]
    fn a_folder_is_not_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RawFile::open(folder.path(), Access::Read).is_err());
    }
}
