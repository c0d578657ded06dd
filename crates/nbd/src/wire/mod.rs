//! Bytes on the wire: numbers, requests, replies, options. No I/O here; all integers are big-endian.

pub(crate) mod option;
pub(crate) mod reply;
pub(crate) mod request;

/// First eight bytes that a server sends, `NBDMAGIC`.
pub(crate) const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: the server speaks the newstyle handshake; also starts each option of a client.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second eight bytes of the abandoned oldstyle handshake.
pub(crate) const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Starts each answer to an option.
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Longest string of the protocol (names, error messages), in bytes.
pub(crate) const MAX_STRING: usize = 4096;
/// Longest error message that a structured reply may carry, in bytes.
pub(crate) const MAX_MESSAGE: usize = MAX_STRING;
/// Longest option, or answer to one, that we accept, in bytes.
pub(crate) const MAX_OPTION: u32 = 64 << 10;
/// Requests beyond this many bytes are split when the server names no limit: the protocol's portable maximum.
pub(crate) const PORTABLE_MAXIMUM: u32 = 32 << 20;

/// Flags of the server's greeting and of the client's answer to it.
pub(crate) mod handshake_flag {
    /// Both sides: unknown options get an answer instead of a closed connection.
    pub(crate) const FIXED_NEWSTYLE: u16 = 1;
    /// Both sides: the answer to `EXPORT_NAME` has no 124 zero bytes.
    pub(crate) const NO_ZEROES: u16 = 2;
}

/// What an export can do.
pub(crate) mod transmission_flag {
    pub(crate) const HAS_FLAGS: u16 = 1;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Reads big-endian integers and byte strings off a slice; `None` when it is too short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string with its length before it.
    pub(crate) fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = self.bytes(length)?;
        (length <= MAX_STRING).then(|| std::str::from_utf8(text).ok().map(str::to_owned))?
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a string with its length before it.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&length_u32(text.len()).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A length as the wire has it.
pub(crate) fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("options and requests are kept below 4 GiB where they are made")
}
