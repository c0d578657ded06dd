//! The disk as an NBD export: turns requests into jobs for the main thread.

use std::sync::mpsc;

use async_trait::async_trait;
use bytes::Bytes;
use disk::ByteRange;
use nbd::{Allocation, BlockSizes, Errno, Export, Failure, Features, Fua, Kind, Zeroes};
use tokio::sync::oneshot;
use vddk::catalogue;

use crate::api::Failed;
use crate::layout::SECTOR;

/// Largest request, in bytes: what hosts and vCenter take.
pub(crate) const MAX_REQUEST: u32 = 2 << 20;
const PREFERRED: u32 = 64 << 10;
static ZEROES: [u8; MAX_REQUEST as usize] = [0; MAX_REQUEST as usize];

type Reply<T> = oneshot::Sender<Result<T, Failed>>;

/// What the main thread is asked to do. Offsets and lengths are bytes, whole sectors.
pub(crate) enum Job {
    Read {
        offset: u64,
        length: u32,
        reply: Reply<Bytes>,
    },
    Write {
        offset: u64,
        data: Bytes,
        fua: Fua,
        reply: Reply<()>,
    },
    Flush {
        reply: Reply<()>,
    },
    Status {
        range: ByteRange,
        reply: Reply<Vec<Allocation>>,
    },
    /// The server has ended.
    Stop,
}

/// The disk, seen from the server's threads.
pub(crate) struct Served {
    pub(crate) size: u64,
    pub(crate) read_only: bool,
    pub(crate) knows_allocation: bool,
    pub(crate) jobs: mpsc::Sender<Job>,
}

impl Served {
    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = |()| Failure::from(Errno::ShuttingDown);
        self.jobs.send(job(reply)).map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?.map_err(|failed| to_failure(&failed))
    }
}

fn to_failure(failed: &Failed) -> Failure {
    let entry = catalogue::look_up(failed.code);
    let errno = match entry.name {
        "OUT_OF_MEMORY" => Errno::NoMemory,
        "DISK_FULL" => Errno::NoSpace,
        "FILE_READ_ONLY" => Errno::NotPermitted,
        _ => Errno::Io,
    };
    let (code, name, cause, fix) = (entry.code, entry.name, entry.cause, entry.fix);
    Failure::new(errno, format!("VDDK {} failed with {code} ({name}): {cause}; {fix}", failed.function))
}

#[async_trait]
impl Export for Served {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn features(&self) -> Features {
        let minimum = u32::try_from(SECTOR).expect("512");
        Features {
            flush: true,
            fua: !self.read_only,
            trim: false,
            write_zeroes: !self.read_only,
            multi_conn: true,
            block_status: self.knows_allocation,
            blocks: BlockSizes { minimum, preferred: PREFERRED, maximum: MAX_REQUEST },
        }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Failure> {
        self.ask(|reply| Job::Read { offset, length, reply }).await
    }

    async fn write(&self, offset: u64, data: Bytes, fua: Fua) -> Result<(), Failure> {
        self.ask(|reply| Job::Write { offset, data, fua, reply }).await
    }

    async fn flush(&self) -> Result<(), Failure> {
        if self.read_only {
            return Ok(());
        }
        self.ask(|reply| Job::Flush { reply }).await
    }

    /// The library can only write them. In pieces, so that reads get their turn and the watch sees each call.
    async fn write_zeroes(&self, range: ByteRange, _zeroes: Zeroes, fua: Fua) -> Result<(), Failure> {
        let mut at = range.offset;
        while at < range.end() {
            let length = (range.end() - at).min(ZEROES.len() as u64);
            let data = Bytes::from_static(&ZEROES[..usize::try_from(length).expect("at most 2 MiB")]);
            self.ask(|reply| Job::Write { offset: at, data, fua: Fua::No, reply }).await?;
            at += length;
        }
        if fua == Fua::Yes { self.flush().await } else { Ok(()) }
    }

    async fn block_status(&self, range: ByteRange) -> Result<Vec<Allocation>, Failure> {
        if !self.knows_allocation {
            return Ok(vec![Allocation { range, kind: Kind::Data }]);
        }
        self.ask(|reply| Job::Status { range, reply }).await
    }
}
