//! What can go wrong, for a client and for an export.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::wire::MAX_MESSAGE;

/// The error numbers that the protocol knows. Everything else travels as `EINVAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Errno {
    /// Operation not permitted: a write to a read-only export.
    NotPermitted,
    /// Input/output error.
    Io,
    /// Cannot allocate memory.
    NoMemory,
    /// Invalid argument.
    Invalid,
    /// No space left, or a write beyond the end.
    NoSpace,
    /// The answer would not fit.
    Overflow,
    /// Operation not supported.
    NotSupported,
    /// The server is shutting down.
    ShuttingDown,
    /// A number that the protocol does not define.
    Other(u32),
}

impl Errno {
    /// The number on the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::NotPermitted => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::ShuttingDown => 108,
            Self::Other(number) => number,
        }
    }

    /// The error of a number on the wire.
    pub fn from_wire(number: u32) -> Self {
        match number {
            1 => Self::NotPermitted,
            5 => Self::Io,
            12 => Self::NoMemory,
            22 => Self::Invalid,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::ShuttingDown,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str("operation not permitted (EPERM)"),
            Self::Io => f.write_str("input/output error (EIO)"),
            Self::NoMemory => f.write_str("cannot allocate memory (ENOMEM)"),
            Self::Invalid => f.write_str("invalid argument (EINVAL)"),
            Self::NoSpace => f.write_str("no space left (ENOSPC)"),
            Self::Overflow => f.write_str("value too large (EOVERFLOW)"),
            Self::NotSupported => f.write_str("operation not supported (ENOTSUP)"),
            Self::ShuttingDown => f.write_str("server is shutting down (ESHUTDOWN)"),
            Self::Other(number) => write!(f, "error {number}"),
        }
    }
}

/// Why an export could not serve one request. The client sees number and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the client's program reacts to.
    pub errno: Errno,
    /// What its user reads; may be empty. Cut to what the protocol allows when it is sent.
    pub message: String,
}

impl Failure {
    /// A failure with a sentence for the user.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// The message, cut at a character border to what a reply may carry.
    pub(crate) fn wire_message(&self) -> &str {
        let mut end = self.message.len().min(MAX_MESSAGE);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        &self.message[..end]
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self { errno, message: String::new() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let errno = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Errno::NotPermitted,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::NoSpace,
            io::ErrorKind::OutOfMemory => Errno::NoMemory,
            io::ErrorKind::InvalidInput => Errno::Invalid,
            io::ErrorKind::Unsupported => Errno::NotSupported,
            _ => Errno::Io,
        };
        Self { errno, message: error.to_string() }
    }
}

/// Why a client's call failed. `server` is the address as in its URI.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection came about.
    #[error("connect to NBD server {server}")]
    Connect {
        /// Who did not answer.
        server: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Connecting or the handshake took too long.
    #[error("NBD server {server} did not finish the handshake within {}", seconds(deadline))]
    ConnectDeadline {
        /// Who was too slow.
        server: String,
        /// How long we waited.
        deadline: Duration,
    },
    /// The server refused the export or an option.
    #[error("NBD server {server} refused export `{export}`: {reply}{}", after_colon(message))]
    Refused {
        /// Who refused.
        server: String,
        /// The export's name; empty is the server's default.
        export: String,
        /// The kind of refusal, in the protocol's words.
        reply: &'static str,
        /// The server's sentence, if it gave one.
        message: String,
    },
    /// The peer does not speak the protocol, or breaks it. The connection is dead.
    #[error("NBD server {server} broke the protocol: {problem}")]
    Protocol {
        /// Who.
        server: String,
        /// In what way.
        problem: String,
    },
    /// The server answered one request with an error. The connection is still good.
    #[error("{request} on NBD server {server}: {errno}{}", after_colon(message))]
    Request {
        /// Who answered.
        server: String,
        /// What was asked, such as `read 4096 bytes at 1048576`.
        request: String,
        /// The server's error number.
        errno: Errno,
        /// The server's sentence, if it gave one.
        message: String,
    },
    /// The server said nothing for the whole request deadline. The connection is dead.
    #[error("NBD server {server} left `{request}` unanswered for {}", seconds(deadline))]
    Silent {
        /// Who is silent.
        server: String,
        /// The request that noticed.
        request: String,
        /// How long we waited.
        deadline: Duration,
    },
    /// The connection broke, or the server closed it.
    #[error("lost the connection to NBD server {server}")]
    Lost {
        /// Who is gone.
        server: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The request makes no sense for this export and was not sent.
    #[error("refuse to {request} on NBD server {server}: {problem}")]
    BadRequest {
        /// The server it was meant for.
        server: String,
        /// What was asked.
        request: String,
        /// Why it was not sent.
        problem: &'static str,
    },
    /// The text is not an NBD URI that we can use.
    #[error("`{text}` is not a usable NBD URI: {problem}")]
    Uri {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Whether the connection is of no use any more. Another connection may work.
    pub fn is_connection_dead(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectDeadline { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::Silent { .. }
            | Self::Lost { .. } => true,
            Self::Request { errno, .. } => *errno == Errno::ShuttingDown,
            Self::BadRequest { .. } | Self::Uri { .. } => false,
        }
    }

    /// The server's error number, if it answered with one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Request { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

fn after_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn seconds(deadline: &Duration) -> String {
    format!("{} s", deadline.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_comes_back_as_it_was_sent() {
        for number in 0..200 {
            assert_eq!(Errno::from_wire(number).to_wire(), number);
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let failure = Failure::new(Errno::Io, "é".repeat(MAX_MESSAGE));
        assert!(failure.wire_message().len() <= MAX_MESSAGE);
        assert!(failure.wire_message().ends_with('é'));
    }
}
