//! The executable that Velero runs: items in, custom resources out, progress back.
//!
//! [`protocol`] speaks with the server and knows nothing of volumes; [`actions`] are what it is for, behind the traits in
//! [`protocol::kinds`]. An action reads and changes an [`Item`] and reaches the API server through [`Host`].
//!
//! ```no_run
//! use velero_plugin::{actions, protocol};
//!
//! fn main() -> std::process::ExitCode {
//!     protocol::serve(actions::registry)
//! }
//! ```
#![deny(clippy::print_stdout, clippy::print_stderr)] // stdout is for one line, stderr for lines of JSON

pub mod actions;
mod cluster;
mod host;
mod install;
mod item;
pub mod protocol;

pub use cluster::{Cluster, ClusterError};
pub use host::Host;
pub use install::{InstallError, install};
pub use item::{Item, ItemError};
pub use protocol::{Action, Registry, RegistryError};
