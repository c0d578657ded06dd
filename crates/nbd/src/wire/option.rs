//! Options and their answers: the handshake's messages.

use super::{Cursor, OPTION_MAGIC, OPTION_REPLY_MAGIC, length_u32, put_string};

/// Bytes of an option's header.
pub(crate) const OPTION_LENGTH: usize = 16;
/// Bytes of the header of an answer to an option.
pub(crate) const OPTION_REPLY_LENGTH: usize = 20;
/// The one metadata context that we know.
pub(crate) const BASE_ALLOCATION: &str = "base:allocation";

/// Options that we send or answer.
pub(crate) mod option_kind {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

/// Kinds of answers.
pub(crate) mod answer {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    const ERROR_BIT: u32 = 1 << 31;
    pub(crate) const UNSUPPORTED: u32 = ERROR_BIT | 1;
    pub(crate) const POLICY: u32 = ERROR_BIT | 2;
    pub(crate) const INVALID: u32 = ERROR_BIT | 3;
    pub(crate) const PLATFORM: u32 = ERROR_BIT | 4;
    pub(crate) const TLS_REQUIRED: u32 = ERROR_BIT | 5;
    pub(crate) const UNKNOWN: u32 = ERROR_BIT | 6;
    pub(crate) const SHUTDOWN: u32 = ERROR_BIT | 7;
    pub(crate) const BLOCK_SIZE_REQUIRED: u32 = ERROR_BIT | 8;
    pub(crate) const TOO_BIG: u32 = ERROR_BIT | 9;

    pub(crate) fn is_error(kind: u32) -> bool {
        kind & ERROR_BIT != 0
    }

    /// What a refusal means, for the user.
    pub(crate) fn describe(kind: u32) -> &'static str {
        match kind {
            UNSUPPORTED => "option not supported",
            POLICY => "forbidden by the server's policy",
            INVALID => "invalid request",
            PLATFORM => "not supported on the server's platform",
            TLS_REQUIRED => "the server requires TLS",
            UNKNOWN => "no such export",
            SHUTDOWN => "the server is shutting down",
            BLOCK_SIZE_REQUIRED => "the server requires block size negotiation",
            TOO_BIG => "request too big",
            _ => "unknown kind of refusal",
        }
    }
}

/// Kinds of information about an export.
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// One option as sent by a client.
pub(crate) fn encode_option(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(OPTION_LENGTH + data.len());
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length_u32(data.len()).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Kind and data length of a client's option; `None` when the stream is out of step.
pub(crate) fn decode_option(header: &[u8; OPTION_LENGTH]) -> Option<(u32, u32)> {
    let mut cursor = Cursor(header);
    (cursor.u64()? == OPTION_MAGIC).then_some(())?;
    Some((cursor.u32()?, cursor.u32()?))
}

/// One answer to a client's option.
pub(crate) fn encode_answer(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(OPTION_REPLY_LENGTH + data.len());
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length_u32(data.len()).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// The header of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerHeader {
    pub(crate) option: u32,
    pub(crate) kind: u32,
    pub(crate) length: u32,
}

/// Reads the header of an answer; `None` when the stream is out of step.
pub(crate) fn decode_answer(header: &[u8; OPTION_REPLY_LENGTH]) -> Option<AnswerHeader> {
    let mut cursor = Cursor(header);
    (cursor.u64()? == OPTION_REPLY_MAGIC).then_some(())?;
    Some(AnswerHeader { option: cursor.u32()?, kind: cursor.u32()?, length: cursor.u32()? })
}

/// What `INFO` and `GO` carry: an export, and the information that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InfoRequest {
    pub(crate) export: String,
    pub(crate) wanted: Vec<u16>,
}

impl InfoRequest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        let count = u16::try_from(self.wanted.len()).expect("we ask for a handful of facts");
        out.extend_from_slice(&count.to_be_bytes());
        for kind in &self.wanted {
            out.extend_from_slice(&kind.to_be_bytes());
        }
        out
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        let export = cursor.string()?;
        let count = cursor.u16()?;
        let wanted = (0..count).map(|_| cursor.u16()).collect::<Option<_>>()?;
        cursor.is_empty().then_some(Self { export, wanted })
    }
}

/// What `SET_META_CONTEXT` and `LIST_META_CONTEXT` carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaRequest {
    pub(crate) export: String,
    pub(crate) queries: Vec<String>,
}

impl MetaRequest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        out.extend_from_slice(&length_u32(self.queries.len()).to_be_bytes());
        for query in &self.queries {
            put_string(&mut out, query);
        }
        out
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        let export = cursor.string()?;
        let count = cursor.u32()?;
        // the count is the peer's word: memory grows with what is really there
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(cursor.string()?);
        }
        cursor.is_empty().then_some(Self { export, queries })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_option_is_these_bytes() {
        let option = encode_option(option_kind::GO, b"x");
        assert_eq!(option, b"IHAVEOPT\0\0\0\x07\0\0\0\x01x");
    }

    proptest! {
        #[test]
        fn options_and_answers_read_back_as_written(
            export in ".{0,60}",
            wanted in proptest::collection::vec(any::<u16>(), 0..5),
            queries in proptest::collection::vec(".{0,30}", 0..5),
            option: u32, kind: u32,
        ) {
            let request = InfoRequest { export: export.clone(), wanted };
            prop_assert_eq!(InfoRequest::decode(&request.encode()).unwrap(), request);
            let request = MetaRequest { export, queries };
            prop_assert_eq!(MetaRequest::decode(&request.encode()).unwrap(), request);
            let bytes = encode_option(option, b"data");
            prop_assert_eq!(decode_option(bytes[..OPTION_LENGTH].try_into().unwrap()), Some((option, 4)));
            let bytes = encode_answer(option, kind, b"data");
            let want = AnswerHeader { option, kind, length: 4 };
            prop_assert_eq!(decode_answer(bytes[..OPTION_REPLY_LENGTH].try_into().unwrap()), Some(want));
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = InfoRequest::decode(&data);
            let _ = MetaRequest::decode(&data);
        }
    }
}
