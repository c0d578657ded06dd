//! Serves vSphere's first-class disks over NBD, with the VDDK library in a process of its own.
//!
//! [`Helper::launch`] starts the program `vddk-helper`, which loads the library that the user supplied, opens one
//! [`Target`] and serves it on a Unix socket. A crash, abort or hang of the library ends that process, and becomes
//! an [`Error`] with a cause here. [`catalogue`] says what the library's numbers mean.
//!
//! ```no_run
//! # async fn example(connection: vddk::Connection, target: vddk::Target) -> Result<(), Box<dyn std::error::Error>> {
//! use std::path::Path;
//! use vddk::{Helper, LaunchOptions};
//!
//! let (program, sockets) = (Path::new("/vddk-helper"), Path::new("/scratch"));
//! let helper = Helper::launch(program, sockets, connection, target, LaunchOptions::default()).await?;
//! let disk = nbd::Client::connect(&helper.uri(), nbd::ConnectOptions::default()).await?;
//! let first = tokio::select! {
//!     first = disk.read(0, 4096) => first?,
//!     cause = helper.exited() => return Err(cause.into()),
//! };
//! disk.disconnect().await?;
//! helper.stop().await?; // an error here means that the access did not end well
//! # Ok(()) }
//! ```

#[doc(hidden)]
pub mod address;
pub mod catalogue;
mod error;
mod helper;
mod leftovers;
mod library;
#[doc(hidden)]
pub mod order;
mod ports;
mod settings;
mod start;
mod target;
mod transport;

pub use error::{Error, Kind};
pub use helper::{Helper, LaunchOptions};
pub use ports::{BadPorts, Ports};
pub use settings::{BadLibrarySetting, LibrarySettings};
pub use target::{Access, Connection, Target};
pub use transport::{BadTransportModes, TransportModes};
