//! The server's side of the fixed newstyle handshake. Decides nothing about data.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::Shared;
use crate::stream::{ReadHalf, WriteHalf};
use crate::wire::option::{
    BASE_ALLOCATION, InfoRequest, MetaRequest, OPTION_LENGTH, answer, decode_option, encode_answer, info, option_kind,
};
use crate::wire::{MAGIC, MAX_OPTION, OPTION_MAGIC, handshake_flag, put_string};

/// The server's number for `base:allocation`.
pub(super) const STATUS_CONTEXT: u32 = 1;
/// Options per connection; a client needs a handful.
const MAX_OPTIONS: usize = 256;

/// What one client agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) structured: bool,
    pub(super) block_status: bool,
}

/// What follows an option.
enum Next {
    Option,
    Transmission,
    Goodbye,
}

pub(super) struct Handshake<'a> {
    pub(super) shared: &'a Shared,
    pub(super) reader: &'a mut BufReader<ReadHalf>,
    pub(super) writer: &'a mut WriteHalf,
}

impl Handshake<'_> {
    /// `None` when the client left, or was shown the door, without an error of the connection.
    pub(super) async fn agree(mut self) -> io::Result<Option<Terms>> {
        let no_zeroes = self.greet().await?;
        let mut terms = Terms::default();
        for _ in 0..MAX_OPTIONS {
            let mut header = [0; OPTION_LENGTH];
            self.reader.read_exact(&mut header).await?;
            let (option, length) = decode_option(&header).ok_or_else(|| broken("an option without its magic"))?;
            if length > MAX_OPTION {
                self.skip(u64::from(length)).await?;
                self.reply(option, answer::TOO_BIG, b"options are limited to 64 KiB").await?;
                continue;
            }
            let mut data = vec![0; length as usize];
            self.reader.read_exact(&mut data).await?;
            match self.option(option, &data, &mut terms, no_zeroes).await? {
                Next::Option => {}
                Next::Transmission => return Ok(Some(terms)),
                Next::Goodbye => return Ok(None),
            }
        }
        Err(broken("too many options"))
    }

    /// Whether the answer to `EXPORT_NAME` goes without padding.
    async fn greet(&mut self) -> io::Result<bool> {
        let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        let mut greeting = Vec::with_capacity(18);
        greeting.extend_from_slice(&MAGIC.to_be_bytes());
        greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&flags.to_be_bytes());
        self.writer.write_all(&greeting).await?;
        let answer = self.reader.read_u32().await?;
        if answer & !u32::from(flags) != 0 {
            return Err(broken("handshake flags that were not offered"));
        }
        Ok(answer & u32::from(handshake_flag::NO_ZEROES) != 0)
    }

    async fn option(&mut self, option: u32, data: &[u8], terms: &mut Terms, no_zeroes: bool) -> io::Result<Next> {
        match option {
            option_kind::EXPORT_NAME => return self.export_name(data, *terms, no_zeroes).await,
            option_kind::ABORT => {
                self.reply(option, answer::ACK, &[]).await?;
                return Ok(Next::Goodbye);
            }
            option_kind::LIST if data.is_empty() => self.list().await?,
            option_kind::STRUCTURED_REPLY if data.is_empty() => {
                terms.structured = true;
                self.reply(option, answer::ACK, &[]).await?;
            }
            option_kind::LIST | option_kind::STRUCTURED_REPLY => {
                self.reply(option, answer::INVALID, b"this option takes no data").await?;
            }
            option_kind::INFO | option_kind::GO => return self.info(option, data, *terms).await,
            option_kind::LIST_META_CONTEXT | option_kind::SET_META_CONTEXT => {
                self.meta_context(option, data, terms).await?;
            }
            _ => self.reply(option, answer::UNSUPPORTED, b"this server does not know the option").await?,
        }
        Ok(Next::Option)
    }

    async fn list(&mut self) -> io::Result<()> {
        let mut entry = Vec::new();
        put_string(&mut entry, &self.shared.name);
        self.reply(option_kind::LIST, answer::SERVER, &entry).await?;
        self.reply(option_kind::LIST, answer::ACK, &[]).await
    }

    async fn info(&mut self, option: u32, data: &[u8], terms: Terms) -> io::Result<Next> {
        let Some(request) = InfoRequest::decode(data) else {
            self.reply(option, answer::INVALID, b"the option's data makes no sense").await?;
            return Ok(Next::Option);
        };
        if !self.is_ours(&request.export) {
            return self.unknown(option).await;
        }
        let mut export = info::EXPORT.to_be_bytes().to_vec();
        export.extend_from_slice(&self.size_and_flags(terms));
        self.reply(option, answer::INFO, &export).await?;
        if request.wanted.contains(&info::NAME) {
            let mut name = info::NAME.to_be_bytes().to_vec();
            name.extend_from_slice(self.shared.name.as_bytes());
            self.reply(option, answer::INFO, &name).await?;
        }
        // sent unasked too: a client that ignores it gets its unaligned requests refused one by one
        let blocks = self.shared.features.blocks;
        let mut sizes = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [blocks.minimum, blocks.preferred, blocks.maximum] {
            sizes.extend_from_slice(&size.to_be_bytes());
        }
        self.reply(option, answer::INFO, &sizes).await?;
        self.reply(option, answer::ACK, &[]).await?;
        Ok(if option == option_kind::GO { Next::Transmission } else { Next::Option })
    }

    async fn meta_context(&mut self, option: u32, data: &[u8], terms: &mut Terms) -> io::Result<()> {
        let Some(request) = MetaRequest::decode(data) else {
            return self.reply(option, answer::INVALID, b"the option's data makes no sense").await;
        };
        if !self.is_ours(&request.export) {
            return self.unknown(option).await.map(drop);
        }
        let set = option == option_kind::SET_META_CONTEXT;
        if set && !terms.structured {
            return self.reply(option, answer::INVALID, b"ask for structured replies first").await;
        }
        let names_it = |query: &String| query == BASE_ALLOCATION || (!set && query == "base:");
        let wanted = request.queries.iter().any(names_it) || (!set && request.queries.is_empty());
        let granted = wanted && self.shared.features.block_status;
        if granted {
            let id = if set { STATUS_CONTEXT } else { 0 };
            let mut context = id.to_be_bytes().to_vec();
            context.extend_from_slice(BASE_ALLOCATION.as_bytes());
            self.reply(option, answer::META_CONTEXT, &context).await?;
        }
        if set {
            terms.block_status = granted;
        }
        self.reply(option, answer::ACK, &[]).await
    }

    /// The old way in: an unknown name can only be answered by closing.
    async fn export_name(&mut self, name: &[u8], terms: Terms, no_zeroes: bool) -> io::Result<Next> {
        if !std::str::from_utf8(name).is_ok_and(|name| self.is_ours(name)) {
            return Ok(Next::Goodbye);
        }
        let mut answer = self.size_and_flags(terms);
        if !no_zeroes {
            answer.resize(answer.len() + 124, 0);
        }
        self.writer.write_all(&answer).await?;
        Ok(Next::Transmission)
    }

    async fn unknown(&mut self, option: u32) -> io::Result<Next> {
        let message = format!("the export is called `{}`", self.shared.name);
        self.reply(option, answer::UNKNOWN, message.as_bytes()).await?;
        Ok(Next::Option)
    }

    fn is_ours(&self, name: &str) -> bool {
        name.is_empty() || name == self.shared.name
    }

    fn size_and_flags(&self, terms: Terms) -> Vec<u8> {
        let mut out = self.shared.export.size().to_be_bytes().to_vec();
        out.extend_from_slice(&self.shared.transmission_flags(terms.structured).to_be_bytes());
        out
    }

    async fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        self.writer.write_all(&encode_answer(option, kind, data)).await
    }

    async fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = tokio::io::copy(&mut (&mut *self.reader).take(length), &mut tokio::io::sink()).await?;
        if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn broken(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
