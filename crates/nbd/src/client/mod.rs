//! The client: many requests at once over one connection.

mod assembly;
mod connection;
mod handshake;
mod replies;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use disk::ByteRange;
use futures::future::try_join_all;
use tokio::io::BufReader;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use self::assembly::Answer;
use self::connection::{Outgoing, QUEUE, Shared, goodbye};
use self::handshake::{Agreed, Handshake};
use crate::error::Error;
use crate::export::{Allocation, Fua, Kind, Zeroes};
use crate::stream::{self, ReadHalf, WriteHalf};
use crate::uri::Uri;
use crate::wire::request::{Command, Request, command_flag};
use crate::wire::transmission_flag;

/// Headers are read through a buffer of this many bytes; data beyond it goes past the buffer.
const HEADER_BUFFER: usize = 8 << 10;
/// Zeroes and trims go in pieces of this many bytes, so that a slow server finishes one within a deadline.
const ZERO_PIECE: u64 = 128 << 20;
/// Block status is asked for at most this many bytes at once: the largest power of two in 32 bits.
const STATUS_PIECE: u64 = 1 << 31;

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For connecting and the handshake together.
    pub connect_deadline: Duration,
    /// For the answer to a request. A server that is heard in between gets up to four times as long.
    pub request_deadline: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { connect_deadline: Duration::from_secs(10), request_deadline: Duration::from_secs(60) }
    }
}

/// One connection to one export. Clones share the connection; calls from many tasks are pipelined.
///
/// When a call fails with an error whose [`Error::is_connection_dead`] holds, all others fail too and a new
/// client is needed. Dropping the last clone says goodbye and closes the connection in the background.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
    agreed: Agreed,
    options: ConnectOptions,
}

impl Client {
    /// Connects and agrees on an export.
    pub async fn connect(uri: &Uri, options: ConnectOptions) -> Result<Self, Error> {
        let due = Instant::now() + options.connect_deadline;
        let late = |_| Error::ConnectDeadline { server: uri.address.to_string(), deadline: options.connect_deadline };
        timeout_at(due, Self::agree(uri, options)).await.map_err(late)?
    }

    async fn agree(uri: &Uri, options: ConnectOptions) -> Result<Self, Error> {
        let server = uri.address.to_string();
        let halves = stream::connect(&uri.address).await;
        let halves = halves.map_err(|source| Error::Connect { server: server.clone(), source: Arc::new(source) })?;
        Self::over(halves, server, &uri.export, options).await
    }

    /// Agrees on an export over a connection that is there. `server` is what messages call the other end.
    pub(crate) async fn over(
        (reader, mut writer): (ReadHalf, WriteHalf),
        server: String,
        export: &str,
        options: ConnectOptions,
    ) -> Result<Self, Error> {
        let mut reader = BufReader::with_capacity(HEADER_BUFFER, reader);
        let handshake = Handshake { server: &server, export, reader: &mut reader, writer: &mut writer };
        let agreed = handshake.agree().await?;
        let shared = Arc::new(Shared::new(server, agreed.structured, agreed.status_context));
        let (outgoing, queue) = mpsc::channel(QUEUE);
        tokio::spawn(replies::read_replies(reader, Arc::clone(&shared)));
        tokio::spawn(connection::write_requests(writer, queue, Arc::clone(&shared)));
        Ok(Self { inner: Arc::new(Inner { shared, outgoing, agreed, options }) })
    }

    /// The export's size in bytes.
    pub fn size(&self) -> u64 {
        self.inner.agreed.size
    }

    /// Whether the server refuses writes.
    pub fn read_only(&self) -> bool {
        self.has(transmission_flag::READ_ONLY)
    }

    /// Whether several connections see one another's writes and a flush on one covers all.
    pub fn can_multi_conn(&self) -> bool {
        self.has(transmission_flag::CAN_MULTI_CONN)
    }

    /// Whether [`trim`](Self::trim) works.
    pub fn can_trim(&self) -> bool {
        self.has(transmission_flag::SEND_TRIM)
    }

    /// Whether [`write_zeroes`](Self::write_zeroes) works without sending the zeroes.
    pub fn can_write_zeroes(&self) -> bool {
        self.has(transmission_flag::SEND_WRITE_ZEROES)
    }

    /// Whether the server flushes; one that does not has nothing to flush.
    pub fn can_flush(&self) -> bool {
        self.has(transmission_flag::SEND_FLUSH)
    }

    /// Whether single writes can be made stable without a flush of everything.
    pub fn can_fua(&self) -> bool {
        self.has(transmission_flag::SEND_FUA)
    }

    /// Whether the server knows where the holes are.
    pub fn can_block_status(&self) -> bool {
        self.inner.agreed.status_context.is_some()
    }

    /// Every request starts and ends at a multiple of this many bytes.
    pub fn minimum_block(&self) -> u32 {
        self.inner.agreed.blocks.minimum
    }

    /// Requests of this many bytes, or multiples, are efficient.
    pub fn preferred_block(&self) -> u32 {
        self.inner.agreed.blocks.preferred
    }

    /// The largest single read or write, in bytes; larger calls are split.
    pub fn max_block(&self) -> u32 {
        self.inner.agreed.blocks.maximum
    }

    /// Where the server listens.
    pub fn server(&self) -> &str {
        &self.inner.shared.server
    }

    /// Whether the connection is of no use any more.
    pub fn is_dead(&self) -> bool {
        self.inner.shared.dead.is_cancelled()
    }

    /// Exactly `length` bytes from `offset`.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        self.check(Command::Read, offset, length as u64)?;
        let pieces = self.pieces(offset, length as u64, self.max_block().into());
        let mut parts = try_join_all(pieces.map(|piece| self.read_piece(piece))).await?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let mut whole = BytesMut::with_capacity(length);
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(whole.freeze())
    }

    async fn read_piece(&self, piece: ByteRange) -> Result<Bytes, Error> {
        match self.exchange(Command::Read, 0, piece, Bytes::new()).await? {
            Answer::Data(data) => Ok(data),
            _ => {
                let problem = "it answered a read without data".to_owned();
                Err(Error::Protocol { server: self.server().to_owned(), problem })
            }
        }
    }

    /// Writes all of `data` at `offset`; with [`Fua::Yes`] it is on stable storage afterwards.
    pub async fn write(&self, offset: u64, data: Bytes, fua: Fua) -> Result<(), Error> {
        self.check_writable(Command::Write, offset, data.len() as u64)?;
        let pieces = self.pieces(offset, data.len() as u64, self.max_block().into());
        let flags = self.fua_flag(fua);
        try_join_all(pieces.map(|piece| {
            let start = usize::try_from(piece.offset - offset).expect("a piece lies within the data");
            let part = data.slice(start..start + usize::try_from(piece.length).expect("as above"));
            self.exchange(Command::Write, flags, piece, part)
        }))
        .await?;
        self.flush_instead_of_fua(fua).await
    }

    /// Returns once every write that was answered before is on stable storage.
    pub async fn flush(&self) -> Result<(), Error> {
        if !self.can_flush() {
            return Ok(());
        }
        self.exchange(Command::Flush, 0, ByteRange::new(0, 0), Bytes::new()).await.map(drop)
    }

    /// Tells the server that these bytes are not needed any more. They read as anything afterwards.
    pub async fn trim(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.check_writable(Command::Trim, offset, length)?;
        self.check_offered(self.can_trim(), Command::Trim, offset, length)?;
        for piece in self.pieces(offset, length, ZERO_PIECE) {
            self.exchange(Command::Trim, 0, piece, Bytes::new()).await?;
        }
        Ok(())
    }

    /// Makes these bytes read as zeroes, without sending them.
    pub async fn write_zeroes(&self, offset: u64, length: u64, zeroes: Zeroes, fua: Fua) -> Result<(), Error> {
        self.check_writable(Command::WriteZeroes, offset, length)?;
        self.check_offered(self.can_write_zeroes(), Command::WriteZeroes, offset, length)?;
        let no_hole = if zeroes == Zeroes::KeepAllocated { command_flag::NO_HOLE } else { 0 };
        for piece in self.pieces(offset, length, ZERO_PIECE) {
            self.exchange(Command::WriteZeroes, no_hole | self.fua_flag(fua), piece, Bytes::new()).await?;
        }
        self.flush_instead_of_fua(fua).await
    }

    /// What the server knows of these bytes, without gaps, from the first on; at least one extent, and not
    /// necessarily up to the end. A server without block status has data everywhere.
    pub async fn block_status(&self, offset: u64, length: u64) -> Result<Vec<Allocation>, Error> {
        self.check(Command::BlockStatus, offset, length)?;
        let range = ByteRange::new(offset, length.min(STATUS_PIECE));
        if !self.can_block_status() || range.is_empty() {
            return Ok(vec![Allocation { range: ByteRange::new(offset, length), kind: Kind::Data }]);
        }
        let Answer::Extents(mut extents) = self.exchange(Command::BlockStatus, 0, range, Bytes::new()).await? else {
            return Ok(vec![Allocation { range, kind: Kind::Data }]);
        };
        // the last extent may be longer than asked
        let asked = ByteRange::new(offset, length);
        extents.iter_mut().for_each(|extent| extent.range = extent.range.intersection(&asked));
        extents.retain(|extent| !extent.range.is_empty());
        Ok(extents)
    }

    /// Says goodbye and waits until the server has closed the connection. Requests of other clones that are
    /// still queued are sent first, later ones fail.
    pub async fn disconnect(self) -> Result<(), Error> {
        let shared = &self.inner.shared;
        let deadline = self.inner.options.request_deadline;
        let leave = async {
            if self.inner.outgoing.send(goodbye()).await.is_ok() {
                shared.dead.cancelled().await;
            }
        };
        tokio::time::timeout(deadline, leave).await.map_err(|_| Error::Silent {
            server: shared.server.clone(),
            request: Command::Disconnect.verb().to_owned(),
            deadline,
        })
    }

    async fn exchange(&self, command: Command, flags: u16, range: ByteRange, payload: Bytes) -> Result<Answer, Error> {
        let length = u32::try_from(range.length).expect("pieces are kept below 4 GiB");
        let request = Request { flags, command, cookie: 0, offset: range.offset, length };
        let Inner { shared, outgoing, options, .. } = &*self.inner;
        shared.exchange(outgoing, request, payload, options.request_deadline).await
    }

    fn has(&self, flag: u16) -> bool {
        self.inner.agreed.flags & flag != 0
    }

    fn fua_flag(&self, fua: Fua) -> u16 {
        if fua == Fua::Yes && self.can_fua() { command_flag::FUA } else { 0 }
    }

    async fn flush_instead_of_fua(&self, fua: Fua) -> Result<(), Error> {
        if fua == Fua::Yes && !self.can_fua() { self.flush().await } else { Ok(()) }
    }

    fn pieces(&self, offset: u64, length: u64, largest: u64) -> impl Iterator<Item = ByteRange> + use<> {
        let end = offset + length;
        let step = usize::try_from(largest).expect("pieces are kept below 4 GiB");
        let starts = (offset..end).step_by(step);
        starts.map(move |start| ByteRange::between(start, end.min(start + largest)))
    }

    fn check(&self, command: Command, offset: u64, length: u64) -> Result<(), Error> {
        let grain = u64::from(self.minimum_block());
        let problem = if offset.checked_add(length).is_none_or(|end| end > self.size()) {
            "it ends beyond the export"
        } else if !offset.is_multiple_of(grain) || !length.is_multiple_of(grain) {
            "it is not aligned to the server's smallest block"
        } else {
            return Ok(());
        };
        Err(self.bad_request(command, offset, length, problem))
    }

    fn check_writable(&self, command: Command, offset: u64, length: u64) -> Result<(), Error> {
        self.check(command, offset, length)?;
        if self.read_only() {
            return Err(self.bad_request(command, offset, length, "the export is read-only"));
        }
        Ok(())
    }

    fn check_offered(&self, offered: bool, command: Command, offset: u64, length: u64) -> Result<(), Error> {
        if offered { Ok(()) } else { Err(self.bad_request(command, offset, length, "the server does not offer it")) }
    }

    fn bad_request(&self, command: Command, offset: u64, length: u64, problem: &'static str) -> Error {
        Error::BadRequest {
            server: self.server().to_owned(),
            request: format!("{} {length} bytes at {offset}", command.verb()),
            problem,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server()).field("agreed", &self.inner.agreed).finish()
    }
}
