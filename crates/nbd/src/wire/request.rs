//! Requests of the transmission phase.

use super::Cursor;

/// Starts each request.
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Bytes of a request's header.
pub(crate) const REQUEST_LENGTH: usize = 28;

/// Modifies a request.
pub(crate) mod command_flag {
    /// Stable storage before the answer.
    pub(crate) const FUA: u16 = 1;
    /// Zeroes that stay allocated.
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    /// A read's answer in one piece.
    pub(crate) const DF: u16 = 1 << 2;
    /// One extent of block status is enough.
    pub(crate) const REQ_ONE: u16 = 1 << 3;
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    WriteZeroes,
    BlockStatus,
    /// A number that we do not know.
    Unknown(u16),
}

impl Command {
    pub(crate) fn to_wire(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
            Self::Unknown(number) => number,
        }
    }

    pub(crate) fn from_wire(number: u16) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }

    /// As in an error message.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::WriteZeroes => "write zeroes to",
            Self::BlockStatus => "ask block status of",
            Self::Unknown(_) => "do something unknown with",
        }
    }
}

/// A request's header. A write's data follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: Command,
    /// Chosen by the client; the answer carries it.
    pub(crate) cookie: u64,
    /// Bytes.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u32,
}

impl Request {
    pub(crate) fn encode(&self) -> [u8; REQUEST_LENGTH] {
        let mut out = [0; REQUEST_LENGTH];
        out[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.to_wire().to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..28].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// `None` when it does not start with the magic: the stream is out of step.
    pub(crate) fn decode(header: &[u8; REQUEST_LENGTH]) -> Option<Self> {
        let mut cursor = Cursor(header);
        if cursor.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: cursor.u16()?,
            command: Command::from_wire(cursor.u16()?),
            cookie: cursor.u64()?,
            offset: cursor.u64()?,
            length: cursor.u32()?,
        })
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.command {
            Command::Flush | Command::Disconnect => f.write_str(self.command.verb()),
            command => write!(f, "{} {} bytes at {}", command.verb(), self.length, self.offset),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_these_bytes() {
        let request = Request {
            flags: command_flag::FUA,
            command: Command::Write,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1000,
            length: 0x200,
        };
        let mut want = vec![0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        want.extend([0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0]);
        assert_eq!(request.encode().as_slice(), want);
    }

    proptest! {
        #[test]
        fn a_request_reads_back_as_written(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
            let request = Request { flags, command: Command::from_wire(command), cookie, offset, length };
            prop_assert_eq!(request.command.to_wire(), command);
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn bytes_without_the_magic_are_no_request(bytes: [u8; REQUEST_LENGTH]) {
            prop_assume!(bytes[..4] != REQUEST_MAGIC.to_be_bytes());
            prop_assert_eq!(Request::decode(&bytes), None);
        }
    }
}
