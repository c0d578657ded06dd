//! What daemon and helper say to each other: one order down standard input, lines of JSON up standard output.
//! The only types that both programs share.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ports::Ports;
use crate::settings::LibrarySettings;
use crate::target::Access;

/// The one line on the helper's standard input. When the input ends, the helper ends the access and exits.
/// It holds the password: never logged, and without Debug for that reason.
#[derive(Serialize, Deserialize)]
pub struct Order {
    /// The library's file.
    pub library: PathBuf,
    /// The distribution's root, which the library wants to know.
    pub library_dir: PathBuf,
    /// Name of vCenter.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// SHA-1 of its certificate.
    pub thumbprint: String,
    /// Its user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// Managed object id of the datastore.
    pub datastore: String,
    /// The disk.
    pub disk: String,
    /// Its snapshot.
    pub snapshot: Option<String>,
    /// Read or write.
    pub access: Access,
    /// Who accesses.
    pub identity: String,
    /// Transport modes in order of preference, joined by colons.
    pub transport_modes: String,
    /// TCP ports that the library may connect to, besides vCenter's.
    pub ports: Ports,
    /// What the user has set of the library's configuration.
    pub library_settings: LibrarySettings,
    /// Where to listen.
    pub socket: PathBuf,
    /// Where the library may leave its temporary files.
    pub scratch: PathBuf,
    /// The export's name.
    pub export: String,
    /// A call into the library that takes longer than this hangs, in milliseconds.
    pub call_deadline_ms: u64,
    /// Ending the access may take this long, in milliseconds.
    pub stop_deadline_ms: u64,
    /// How often the helper says that it lives, in milliseconds.
    pub heartbeat_ms: u64,
}

/// One line on the helper's standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Message {
    /// The disk is open and served.
    Ready {
        /// The transport mode that the library chose.
        transport: String,
        /// Bytes.
        size: u64,
    },
    /// The helper lives.
    Alive,
    /// The file is not the library, or the library does not start.
    LibraryBroken {
        /// What the loader or the library said.
        problem: String,
    },
    /// Opening failed.
    Error {
        /// The library's function.
        function: String,
        /// Its number.
        code: u64,
        /// Its words.
        text: String,
    },
    /// A call into the library does not return. The helper exits at once.
    Hung {
        /// The library's function.
        function: String,
        /// How long it has been going on, in milliseconds.
        millis: u64,
    },
    /// Ending the access failed at this step; the other steps were still done.
    CloseError {
        /// The library's function.
        function: String,
        /// Its number.
        code: u64,
    },
    /// The access was ended; the helper exits.
    Stopped,
}
