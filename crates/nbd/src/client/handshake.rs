//! The client's side of the fixed newstyle handshake: from the first byte to the transmission phase.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::error::Error;
use crate::export::BlockSizes;
use crate::stream::{ReadHalf, WriteHalf};
use crate::wire::option::{
    AnswerHeader, BASE_ALLOCATION, InfoRequest, MetaRequest, OPTION_REPLY_LENGTH, answer, decode_answer, encode_option,
    info, option_kind,
};
use crate::wire::{
    Cursor, MAGIC, MAX_OPTION, OLDSTYLE_MAGIC, OPTION_MAGIC, PORTABLE_MAXIMUM, handshake_flag, transmission_flag,
};

/// What both sides agreed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed {
    /// Bytes.
    pub(crate) size: u64,
    /// [`transmission_flag`]s.
    pub(crate) flags: u16,
    pub(crate) blocks: BlockSizes,
    pub(crate) structured: bool,
    /// The server's number for `base:allocation`.
    pub(crate) status_context: Option<u32>,
}

/// Talks a server into the transmission phase.
pub(crate) struct Handshake<'a> {
    pub(crate) server: &'a str,
    pub(crate) export: &'a str,
    pub(crate) reader: &'a mut BufReader<ReadHalf>,
    pub(crate) writer: &'a mut WriteHalf,
}

impl Handshake<'_> {
    pub(crate) async fn agree(mut self) -> Result<Agreed, Error> {
        let flags = self.greet().await?;
        let no_zeroes = flags & handshake_flag::NO_ZEROES != 0;
        if flags & handshake_flag::FIXED_NEWSTYLE == 0 {
            return self.export_name(no_zeroes).await;
        }
        let structured = self.structured_replies().await?;
        let status_context = if structured { self.allocation_context().await? } else { None };
        match self.go().await? {
            Some(agreed) => Ok(Agreed { structured, status_context, ..agreed }),
            None => Ok(Agreed { structured, status_context, ..self.export_name(no_zeroes).await? }),
        }
    }

    /// Reads the greeting and answers it; the flags of both.
    async fn greet(&mut self) -> Result<u16, Error> {
        let mut greeting = [0; 16];
        self.read(&mut greeting).await?;
        let mut cursor = Cursor(&greeting);
        match (cursor.u64(), cursor.u64()) {
            (Some(MAGIC), Some(OPTION_MAGIC)) => {}
            (Some(MAGIC), Some(OLDSTYLE_MAGIC)) => {
                return Err(self.broken("it speaks the oldstyle handshake, abandoned since 2015"));
            }
            _ => return Err(self.broken("its first bytes are not those of an NBD server")),
        }
        let mut flags = [0; 2];
        self.read(&mut flags).await?;
        let known = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        let flags = u16::from_be_bytes(flags) & known;
        self.write(&u32::from(flags).to_be_bytes()).await?;
        Ok(flags)
    }

    async fn structured_replies(&mut self) -> Result<bool, Error> {
        self.write(&encode_option(option_kind::STRUCTURED_REPLY, &[])).await?;
        let (header, _) = self.answer(option_kind::STRUCTURED_REPLY).await?;
        Ok(header.kind == answer::ACK)
    }

    /// A server without block status may refuse in any way it likes: then there is none.
    async fn allocation_context(&mut self) -> Result<Option<u32>, Error> {
        let request = MetaRequest { export: self.export.to_owned(), queries: vec![BASE_ALLOCATION.to_owned()] };
        self.write(&encode_option(option_kind::SET_META_CONTEXT, &request.encode())).await?;
        let mut context = None;
        loop {
            let (header, data) = self.answer(option_kind::SET_META_CONTEXT).await?;
            if header.kind != answer::META_CONTEXT {
                return Ok(context.filter(|_| header.kind == answer::ACK));
            }
            let mut cursor = Cursor(&data);
            let id = cursor.u32().ok_or_else(|| self.broken("a metadata context without a number"))?;
            if cursor.0 == BASE_ALLOCATION.as_bytes() {
                context = Some(id);
            }
        }
    }

    /// `None` when the server does not know `GO`.
    async fn go(&mut self) -> Result<Option<Agreed>, Error> {
        let request = InfoRequest { export: self.export.to_owned(), wanted: vec![info::BLOCK_SIZE] };
        self.write(&encode_option(option_kind::GO, &request.encode())).await?;
        let mut size_and_flags = None;
        let mut blocks = BlockSizes::default();
        loop {
            let (header, data) = self.answer(option_kind::GO).await?;
            match header.kind {
                answer::ACK => break,
                answer::UNSUPPORTED => return Ok(None),
                answer::INFO => {
                    let mut cursor = Cursor(&data);
                    match cursor.u16() {
                        Some(info::EXPORT) => size_and_flags = cursor.u64().zip(cursor.u16()),
                        Some(info::BLOCK_SIZE) => blocks = self.block_sizes(cursor)?,
                        _ => {}
                    }
                }
                kind if answer::is_error(kind) => return Err(self.refused(kind, &data).await),
                _ => return Err(self.broken("an answer to GO that is none")),
            }
        }
        let (size, flags) = size_and_flags.ok_or_else(|| self.broken("it granted the export without its size"))?;
        Ok(Some(Agreed { size, flags: known_flags(flags), blocks, structured: false, status_context: None }))
    }

    fn block_sizes(&self, mut cursor: Cursor<'_>) -> Result<BlockSizes, Error> {
        let broken = || self.broken("block sizes that contradict each other");
        let minimum = cursor.u32().ok_or_else(broken)?;
        let preferred = cursor.u32().ok_or_else(broken)?;
        let maximum = cursor.u32().ok_or_else(broken)?;
        let sound = minimum.is_power_of_two() && minimum <= 64 << 10 && preferred >= minimum && maximum >= minimum;
        if !sound {
            return Err(broken());
        }
        // all ones means "no limit"; ours keeps memory bounded
        let maximum = maximum.min(PORTABLE_MAXIMUM) / minimum * minimum;
        Ok(BlockSizes { minimum, preferred, maximum })
    }

    /// The way of old servers: no refusal but a closed connection, no block sizes.
    async fn export_name(&mut self, no_zeroes: bool) -> Result<Agreed, Error> {
        self.write(&encode_option(option_kind::EXPORT_NAME, self.export.as_bytes())).await?;
        let mut answer = [0; 10];
        self.read(&mut answer).await.map_err(|error| match error {
            Error::Lost { server, .. } => Error::Refused {
                server,
                export: self.export.to_owned(),
                reply: "it closed the connection, as old servers do for an unknown export",
                message: String::new(),
            },
            other => other,
        })?;
        if !no_zeroes {
            self.read(&mut [0; 124]).await?;
        }
        let mut cursor = Cursor(&answer);
        let (size, flags) = cursor.u64().zip(cursor.u16()).expect("ten bytes hold a u64 and a u16");
        let blocks = BlockSizes::default();
        Ok(Agreed { size, flags: known_flags(flags), blocks, structured: false, status_context: None })
    }

    async fn refused(&mut self, kind: u32, data: &[u8]) -> Error {
        // politeness only: the server may already be gone
        let _ = self.write(&encode_option(option_kind::ABORT, &[])).await;
        Error::Refused {
            server: self.server.to_owned(),
            export: self.export.to_owned(),
            reply: answer::describe(kind),
            message: String::from_utf8_lossy(data).trim_end_matches('\0').to_owned(),
        }
    }

    async fn answer(&mut self, option: u32) -> Result<(AnswerHeader, Vec<u8>), Error> {
        let mut header = [0; OPTION_REPLY_LENGTH];
        self.read(&mut header).await?;
        let header = decode_answer(&header).ok_or_else(|| self.broken("an answer without its magic number"))?;
        if header.option != option || header.length > MAX_OPTION {
            return Err(self.broken("an answer to something that was not asked"));
        }
        let mut data = vec![0; header.length as usize];
        self.read(&mut data).await?;
        Ok((header, data))
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.reader.read_exact(into).await.map(drop).map_err(|error| self.lost(error))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writer.write_all(bytes).await.map_err(|error| self.lost(error))
    }

    fn lost(&self, error: io::Error) -> Error {
        Error::Lost { server: self.server.to_owned(), source: Arc::new(error) }
    }

    fn broken(&self, problem: &str) -> Error {
        Error::Protocol { server: self.server.to_owned(), problem: problem.to_owned() }
    }
}

/// Flags mean nothing unless the first one says that there are any.
fn known_flags(flags: u16) -> u16 {
    if flags & transmission_flag::HAS_FLAGS == 0 { 0 } else { flags }
}
