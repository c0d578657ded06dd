//! Requests in, replies out. Each request is a task; memory and number are bounded before its data is read.

use std::io::{self, IoSlice};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use disk::ByteRange;
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Shared;
use super::check::Rules;
use super::handshake::{STATUS_CONTEXT, Terms};
use crate::error::{Errno, Failure};
use crate::export::{Allocation, Fua, Zeroes};
use crate::stream::{ReadHalf, WriteHalf, write_all_vectored};
use crate::wire::reply::{ChunkHeader, chunk_type, encode_failure, encode_simple, encode_status};
use crate::wire::request::{Command, REQUEST_LENGTH, Request, command_flag};

/// Memory permits count pieces of this many bytes.
const PERMIT_BYTES: u32 = 4 << 10;
/// A refused write's data is read and dropped up to this many bytes; beyond it the connection is closed.
const MAX_SKIPPED: u32 = 64 << 20;
/// Extents per answer to block status: 1 MiB of them.
const MAX_EXTENTS: usize = 128 << 10;
/// Replies per system call.
const BATCH: usize = 32;

/// A reply on its way out, with the room in memory that it holds until it is written.
struct Reply {
    head: Vec<u8>,
    data: Bytes,
    _room: Option<Room>,
}

struct Room {
    _memory: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

/// What an export said to one request.
enum Outcome {
    Done,
    Data(Bytes),
    Extents(Vec<Allocation>),
}

/// One client in the transmission phase.
pub(super) struct Session {
    shared: Arc<Shared>,
    terms: Terms,
    rules: Rules,
    memory: Arc<Semaphore>,
    slots: Arc<Semaphore>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, terms: Terms) -> Arc<Self> {
        let rules = Rules {
            size: shared.export.size(),
            read_only: shared.export.read_only(),
            features: shared.features,
            structured: terms.structured,
            block_status: terms.block_status,
        };
        let memory = Semaphore::new(permits(shared.options.memory_per_connection) as usize);
        let slots = Semaphore::new(shared.options.requests_per_connection);
        Arc::new(Self { shared, terms, rules, memory: Arc::new(memory), slots: Arc::new(slots) })
    }

    /// Serves until the client says goodbye, the connection breaks, or `shutdown`. What is in flight is answered.
    pub(super) async fn run(
        self: Arc<Self>,
        reader: BufReader<ReadHalf>,
        writer: WriteHalf,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let (replies, queue) = mpsc::channel(BATCH);
        let reading = async {
            let mut tasks = JoinSet::new();
            let ended = tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                ended = self.read_requests(reader, &replies, &mut tasks) => ended,
            };
            while tasks.join_next().await.is_some() {}
            drop(replies);
            ended
        };
        let writing = write_replies(writer, queue);
        tokio::pin!(reading, writing);
        tokio::select! {
            // nobody reads our replies any more: what is in flight is dropped with `reading`
            written = &mut writing => written,
            ended = &mut reading => {
                writing.await?;
                ended
            }
        }
    }

    async fn read_requests(
        self: &Arc<Self>,
        mut reader: BufReader<ReadHalf>,
        replies: &mpsc::Sender<Reply>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<()> {
        loop {
            while tasks.try_join_next().is_some() {}
            let mut header = [0; REQUEST_LENGTH];
            reader.read_exact(&mut header).await?;
            let request = Request::decode(&header)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a request without its magic number"))?;
            if request.command == Command::Disconnect {
                return Ok(());
            }
            if let Err(failure) = self.rules.check(&request) {
                skip_data(&mut reader, &request).await?;
                let reply = self.reply(&request, Err(failure), None);
                replies.send(reply).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                continue;
            }
            let room = self.room(&request).await;
            let data = read_data(&mut reader, &request).await?;
            let (session, replies) = (Arc::clone(self), replies.clone());
            tasks.spawn(async move {
                let outcome = session.serve(&request, data).await;
                // when it fails the writer is gone, and with it the connection
                let _ = replies.send(session.reply(&request, outcome, Some(room))).await;
            });
        }
    }

    /// Waits until there is room for the request's data, in memory and in number.
    async fn room(&self, request: &Request) -> Room {
        let moves_data = matches!(request.command, Command::Read | Command::Write);
        let bytes = if moves_data { request.length } else { 0 };
        // one that is larger than everything waits until it is alone
        let wanted = permits(bytes).clamp(1, permits(self.shared.options.memory_per_connection));
        let memory = Arc::clone(&self.memory).acquire_many_owned(wanted).await;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        Room { _memory: memory.expect("never closed"), _slot: slot.expect("never closed") }
    }

    /// An export that panics costs one request.
    async fn serve(&self, request: &Request, data: Bytes) -> Result<Outcome, Failure> {
        AssertUnwindSafe(self.ask_export(request, data)).catch_unwind().await.unwrap_or_else(|_| {
            error!(%request, "the export panicked");
            Err(Failure::new(Errno::Io, "the export panicked"))
        })
    }

    async fn ask_export(&self, request: &Request, data: Bytes) -> Result<Outcome, Failure> {
        let export = &self.shared.export;
        let range = ByteRange::new(request.offset, request.length.into());
        let fua = if request.flags & command_flag::FUA == 0 { Fua::No } else { Fua::Yes };
        let zeroes = if request.flags & command_flag::NO_HOLE == 0 { Zeroes::MayTrim } else { Zeroes::KeepAllocated };
        match request.command {
            Command::Read => {
                let data = export.read(request.offset, request.length).await?;
                let complete = data.len() == request.length as usize;
                complete.then_some(Outcome::Data(data)).ok_or_else(|| short("bytes"))
            }
            Command::Write => export.write(request.offset, data, fua).await.map(|()| Outcome::Done),
            Command::Flush => export.flush().await.map(|()| Outcome::Done),
            Command::Trim => export.trim(range, fua).await.map(|()| Outcome::Done),
            Command::WriteZeroes => export.write_zeroes(range, zeroes, fua).await.map(|()| Outcome::Done),
            Command::BlockStatus => {
                let only_one = request.flags & command_flag::REQ_ONE != 0;
                let extents = export.block_status(range).await?;
                tidy(extents, range, if only_one { 1 } else { MAX_EXTENTS }).map(Outcome::Extents)
            }
            Command::Disconnect | Command::Unknown(_) => Err(Errno::Invalid.into()),
        }
    }

    fn reply(&self, request: &Request, outcome: Result<Outcome, Failure>, room: Option<Room>) -> Reply {
        let (head, data) = if self.terms.structured { structured(request, outcome) } else { simple(request, outcome) };
        Reply { head, data, _room: room }
    }
}

fn permits(bytes: u32) -> u32 {
    bytes.div_ceil(PERMIT_BYTES)
}

fn short(what: &str) -> Failure {
    Failure::new(Errno::Io, format!("the export returned other {what} than asked"))
}

/// Clips what an export knows to what was asked, and checks that it is without gaps.
fn tidy(extents: Vec<Allocation>, range: ByteRange, at_most: usize) -> Result<Vec<Allocation>, Failure> {
    let mut tidied: Vec<Allocation> = Vec::new();
    let mut at = range.offset;
    for extent in extents {
        let part = extent.range.intersection(&range);
        if part.is_empty() {
            continue;
        }
        if part.offset != at {
            return Err(short("extents"));
        }
        at = part.end();
        let full = tidied.len() == at_most;
        match tidied.last_mut() {
            Some(last) if last.kind == extent.kind => last.range.length += part.length,
            _ if full => break,
            _ => tidied.push(Allocation { range: part, ..extent }),
        }
    }
    if tidied.is_empty() { Err(short("extents")) } else { Ok(tidied) }
}

fn simple(request: &Request, outcome: Result<Outcome, Failure>) -> (Vec<u8>, Bytes) {
    match outcome {
        Ok(Outcome::Data(data)) => (encode_simple(request.cookie, None).to_vec(), data),
        Ok(_) => (encode_simple(request.cookie, None).to_vec(), Bytes::new()),
        Err(failure) => (encode_simple(request.cookie, Some(failure.errno)).to_vec(), Bytes::new()),
    }
}

fn structured(request: &Request, outcome: Result<Outcome, Failure>) -> (Vec<u8>, Bytes) {
    let chunk = |kind: u16, payload: Vec<u8>, data: Bytes| {
        let mut head = ChunkHeader::done(kind, request.cookie, payload.len() + data.len()).encode().to_vec();
        head.extend_from_slice(&payload);
        (head, data)
    };
    match outcome {
        Ok(Outcome::Done) => chunk(chunk_type::NONE, Vec::new(), Bytes::new()),
        Ok(Outcome::Data(data)) => chunk(chunk_type::OFFSET_DATA, request.offset.to_be_bytes().to_vec(), data),
        Ok(Outcome::Extents(extents)) => {
            chunk(chunk_type::BLOCK_STATUS, encode_status(STATUS_CONTEXT, &extents), Bytes::new())
        }
        Err(failure) => chunk(chunk_type::ERROR, encode_failure(&failure), Bytes::new()),
    }
}

/// A write's data, straight from the socket into where the export gets it.
async fn read_data(reader: &mut BufReader<ReadHalf>, request: &Request) -> io::Result<Bytes> {
    if request.command != Command::Write {
        return Ok(Bytes::new());
    }
    let length = request.length as usize;
    let mut data = BytesMut::with_capacity(length);
    let mut rest = (&mut data).limit(length);
    while rest.has_remaining_mut() {
        if reader.read_buf(&mut rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(data.freeze())
}

async fn skip_data(reader: &mut BufReader<ReadHalf>, request: &Request) -> io::Result<()> {
    if request.command != Command::Write {
        return Ok(());
    }
    if request.length > MAX_SKIPPED {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a write larger than 64 MiB"));
    }
    let length = u64::from(request.length);
    let skipped = tokio::io::copy(&mut reader.take(length), &mut tokio::io::sink()).await?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn write_replies(mut writer: WriteHalf, mut queue: mpsc::Receiver<Reply>) -> io::Result<()> {
    let mut batch: Vec<Reply> = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(batch.len() * 2);
        for reply in &batch {
            slices.push(IoSlice::new(&reply.head));
            slices.push(IoSlice::new(&reply.data));
        }
        write_all_vectored(&mut writer, &mut slices).await?;
        batch.clear();
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Kind;

    fn extent(offset: u64, length: u64, kind: Kind) -> Allocation {
        Allocation { range: ByteRange::new(offset, length), kind }
    }

    #[test]
    fn block_status_is_clipped_merged_and_checked_for_gaps() {
        let range = ByteRange::new(100, 100);
        let extents = vec![extent(0, 120, Kind::Data), extent(120, 10, Kind::Data), extent(130, 500, Kind::Hole)];
        let want = vec![extent(100, 30, Kind::Data), extent(130, 70, Kind::Hole)];
        assert_eq!(tidy(extents.clone(), range, 10), Ok(want.clone()));
        assert_eq!(tidy(extents, range, 1), Ok(want[..1].to_vec()));
        assert!(tidy(vec![extent(110, 90, Kind::Data)], range, 10).is_err(), "starts late");
        let gap = vec![extent(100, 10, Kind::Data), extent(120, 10, Kind::Data)];
        assert!(tidy(gap, range, 10).is_err(), "a gap");
        assert!(tidy(Vec::new(), range, 10).is_err(), "nothing");
    }
}
