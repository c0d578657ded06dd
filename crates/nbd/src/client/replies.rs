//! Reads replies, simple and structured, into the requests that wait for them.

use std::io;
use std::sync::Arc;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, BufReader};

use super::assembly::Place;
use super::connection::{Pending, Shared};
use crate::error::{Errno, Error, Failure};
use crate::stream::ReadHalf;
use crate::wire::Cursor;
use crate::wire::reply::{
    FLAG_DONE, SIMPLE_LENGTH, SIMPLE_MAGIC, STRUCTURED_LENGTH, STRUCTURED_MAGIC, chunk_type, decode_failure,
    decode_status,
};
use crate::wire::request::Command;

/// Largest chunk that is not a read's data, in bytes: a million extents.
const MAX_CHUNK: u32 = 8 << 20;

/// Reads until the connection is dead; then every waiting request has its error.
pub(crate) async fn read_replies(reader: BufReader<ReadHalf>, shared: Arc<Shared>) {
    let mut replies = Replies { reader, shared: &shared };
    let error = tokio::select! {
        () = shared.dead.cancelled() => return,
        error = replies.run() => error,
    };
    shared.fail(error);
}

struct Replies<'a> {
    reader: BufReader<ReadHalf>,
    shared: &'a Shared,
}

impl Replies<'_> {
    async fn run(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    async fn next(&mut self) -> Result<(), Error> {
        let mut header = [0; STRUCTURED_LENGTH];
        self.read(&mut header[..SIMPLE_LENGTH]).await?;
        let mut cursor = Cursor(&header);
        match cursor.u32() {
            Some(SIMPLE_MAGIC) => {
                let (errno, cookie) = cursor.u32().zip(cursor.u64()).expect("a simple header has both");
                self.simple(errno, cookie).await
            }
            Some(STRUCTURED_MAGIC) if self.shared.structured => {
                self.read(&mut header[SIMPLE_LENGTH..]).await?;
                let mut cursor = Cursor(&header[4..]);
                let (flags, kind) = cursor.u16().zip(cursor.u16()).expect("a chunk's header has both");
                let (cookie, length) = cursor.u64().zip(cursor.u32()).expect("a chunk's header has both");
                self.chunk(flags, kind, cookie, length).await
            }
            _ => Err(self.shared.broken("a reply without its magic number")),
        }
    }

    async fn simple(&mut self, errno: u32, cookie: u64) -> Result<(), Error> {
        let mut pending = self.shared.take(cookie)?;
        let request = pending.assembly().request;
        if errno != 0 {
            pending.assembly().fail(Failure::from(Errno::from_wire(errno)));
        } else if request.command == Command::Read {
            if self.shared.structured {
                return Err(self.shared.broken("a simple reply to a read, though structured ones were agreed"));
            }
            self.data(&mut pending, request.offset, request.length.into()).await?;
        }
        pending.finish()
    }

    async fn chunk(&mut self, flags: u16, kind: u16, cookie: u64, length: u32) -> Result<(), Error> {
        let mut pending = self.shared.take(cookie)?;
        match kind {
            chunk_type::NONE if length == 0 => {}
            chunk_type::OFFSET_DATA if length > 8 => {
                let offset = self.offset().await?;
                self.data(&mut pending, offset, u64::from(length) - 8).await?;
            }
            chunk_type::OFFSET_HOLE if length == 12 => {
                let mut payload = [0; 12];
                self.read(&mut payload).await?;
                let mut cursor = Cursor(&payload);
                let (offset, length) = cursor.u64().zip(cursor.u32()).expect("twelve bytes hold both");
                let hole = pending.assembly().hole(offset, length.into());
                hole.ok_or_else(|| self.shared.broken("a hole that was not asked for"))?;
            }
            chunk_type::BLOCK_STATUS => self.status(&mut pending, length).await?,
            kind if kind & chunk_type::ERROR_BIT != 0 => {
                let payload = self.payload(length).await?;
                let failure = decode_failure(&payload).ok_or_else(|| self.shared.broken("an error cut short"))?;
                pending.assembly().fail(failure);
            }
            other => return Err(self.shared.broken(format!("a chunk of type {other} and {length} bytes"))),
        }
        if flags & FLAG_DONE == 0 {
            pending.put_back();
            return Ok(());
        }
        pending.finish()
    }

    async fn status(&mut self, pending: &mut Pending<'_>, length: u32) -> Result<(), Error> {
        let payload = self.payload(length).await?;
        let offset = pending.assembly().request.offset;
        let (context, extents) =
            decode_status(&payload, offset).ok_or_else(|| self.shared.broken("block status that covers nothing"))?;
        if Some(context) == self.shared.status_context {
            let taken = pending.assembly().extents(extents);
            taken.ok_or_else(|| self.shared.broken("block status that was not asked for"))?;
        }
        Ok(())
    }

    /// The bytes go from the socket straight to where the caller gets them.
    async fn data(&mut self, pending: &mut Pending<'_>, offset: u64, length: u64) -> Result<(), Error> {
        let place = pending.assembly().place(offset, length);
        match place.ok_or_else(|| self.shared.broken("data that was not asked for"))? {
            Place::Append(buffer, length) => {
                let mut rest = buffer.limit(length);
                while rest.has_remaining_mut() {
                    let count = self.reader.read_buf(&mut rest).await.map_err(|error| self.shared.lost(error))?;
                    if count == 0 {
                        return Err(self.shared.lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.shared.hear();
                }
                Ok(())
            }
            Place::Fill(part) => self.read(part).await,
        }
    }

    async fn offset(&mut self) -> Result<u64, Error> {
        let mut offset = [0; 8];
        self.read(&mut offset).await?;
        Ok(u64::from_be_bytes(offset))
    }

    async fn payload(&mut self, length: u32) -> Result<Vec<u8>, Error> {
        if length > MAX_CHUNK {
            return Err(self.shared.broken(format!("a chunk of {length} bytes")));
        }
        let mut payload = vec![0; length as usize];
        self.read(&mut payload).await?;
        Ok(payload)
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.reader.read_exact(into).await.map_err(|error| self.shared.lost(error))?;
        self.shared.hear();
        Ok(())
    }
}
