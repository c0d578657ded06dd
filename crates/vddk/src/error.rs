//! What can go wrong between the daemon and the library, with causes a user can act on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::catalogue::{Advice, Entry};

/// Why a disk could not be served, or is not served any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The user has not supplied the library.
    #[error("no libvixDiskLib.so in {} nor in its lib64; supply the VDDK distribution there", dir.display())]
    LibraryMissing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is a file of that name, but it is not the library, or not one for this machine.
    #[error("load the VDDK library {}: {problem}", path.display())]
    LibraryBroken {
        /// The file.
        path: PathBuf,
        /// What the loader or the library said.
        problem: String,
    },
    /// What was asked for makes no sense.
    #[error("refuse to open the disk: {problem}")]
    BadTarget {
        /// Why.
        problem: &'static str,
    },
    /// The helper could not be started.
    #[error("start {}", helper.display())]
    Launch {
        /// The program.
        helper: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The library refused: the number, and what the catalogue knows of it.
    #[error("{function} failed with {code} ({name}): {cause}", code = .entry.code, name = .entry.name, cause = .entry.cause)]
    OpenFailed {
        /// The library's function, such as `Open`.
        function: String,
        /// The number and its meaning.
        entry: Entry,
        /// The library's own words.
        text: String,
    },
    /// A call into the library did not return, or the helper fell silent. It was killed.
    #[error("VDDK hung in {act} for {seconds} s and was killed")]
    Hung {
        /// What was going on.
        act: String,
        /// How long.
        seconds: u64,
    },
    /// The helper died.
    #[error("the VDDK helper {how}{}", last_words(last_log))]
    Crashed {
        /// `was killed by signal 6 (SIGABRT)`, or `exited with status 1`.
        how: String,
        /// The last lines that it logged, oldest first.
        last_log: Vec<String>,
    },
    /// The disk was served, but ending the access failed: the data may not all be on the disk.
    #[error("{function} failed with {code} ({name}) while ending access: {cause}", code = .entry.code, name = .entry.name, cause = .entry.cause)]
    CloseFailed {
        /// The library's function, such as `Close`.
        function: String,
        /// The number and its meaning.
        entry: Entry,
    },
    /// The helper ended in order because it was asked to.
    #[error("the VDDK helper was stopped")]
    Stopped,
}

/// What to react to. The metric label and the reason word come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// See [`Error::LibraryMissing`].
    LibraryMissing,
    /// See [`Error::LibraryBroken`].
    LibraryBroken,
    /// See [`Error::BadTarget`] and [`Error::Launch`].
    LaunchFailed,
    /// See [`Error::OpenFailed`].
    OpenFailed,
    /// See [`Error::Hung`].
    Hung,
    /// See [`Error::Crashed`].
    Crashed,
    /// See [`Error::CloseFailed`].
    CloseFailed,
    /// See [`Error::Stopped`].
    Stopped,
}

impl Error {
    /// What happened, without the details.
    pub fn kind(&self) -> Kind {
        match self {
            Self::LibraryMissing { .. } => Kind::LibraryMissing,
            Self::LibraryBroken { .. } => Kind::LibraryBroken,
            Self::BadTarget { .. } | Self::Launch { .. } => Kind::LaunchFailed,
            Self::OpenFailed { .. } => Kind::OpenFailed,
            Self::Hung { .. } => Kind::Hung,
            Self::Crashed { .. } => Kind::Crashed,
            Self::CloseFailed { .. } => Kind::CloseFailed,
            Self::Stopped => Kind::Stopped,
        }
    }

    /// Whether and how another try can help.
    pub fn advice(&self) -> Advice {
        match self {
            Self::LibraryMissing { .. } | Self::LibraryBroken { .. } | Self::BadTarget { .. } => Advice::GiveUp,
            Self::Launch { .. } | Self::Hung { .. } | Self::Crashed { .. } | Self::Stopped => Advice::Reopen,
            Self::OpenFailed { entry, .. } | Self::CloseFailed { entry, .. } => entry.advice,
        }
    }

    /// What helps, where the catalogue knows it; a sentence.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::OpenFailed { entry, .. } | Self::CloseFailed { entry, .. } => Some(entry.fix),
            _ => None,
        }
    }

    /// The library's number, if it gave one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::OpenFailed { entry, .. } | Self::CloseFailed { entry, .. } => Some(entry.code),
            _ => None,
        }
    }
}

fn last_words(lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        lines => format!("; it last logged: {}", lines[lines.len().saturating_sub(3)..].join(" | ")),
    }
}
