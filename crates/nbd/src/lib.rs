//! The NBD protocol, both ends: the one language that disks speak in this project.
//!
//! [`Client`] reads and writes an export of any server, [`server::serve`] serves an [`Export`], and
//! [`memory::Memory`] is an export for tests. Written from the public specification of the protocol: fixed newstyle
//! handshake, structured replies, block status of `base:allocation`; no TLS.
//!
//! ```
//! use std::sync::Arc;
//! use nbd::{Client, ConnectOptions, Fua, Uri, memory::Memory};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let socket = folder.path().join("disk.sock");
//! let stop = tokio_util::sync::CancellationToken::new();
//! let listener = tokio::net::UnixListener::bind(&socket)?;
//! let serving = tokio::spawn(nbd::server::serve(listener, Arc::new(Memory::new(1 << 20)), "disk", stop.clone()));
//!
//! let client = Client::connect(&Uri::unix(&socket, "disk"), ConnectOptions::default()).await?;
//! client.write(4096, vec![7; 512].into(), Fua::Yes).await?;
//! assert_eq!(client.read(4096, 512).await?, vec![7; 512]);
//! client.disconnect().await?;
//!
//! stop.cancel();
//! serving.await??;
//! # Ok(()) }
//! ```

mod abandoned;
mod client;
mod error;
mod export;
pub mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod memory;
pub mod server;
mod stream;
mod uri;
mod wire;

pub use abandoned::is_abandoned;
pub use client::{Client, ConnectOptions};
pub use error::{Errno, Error, Failure};
pub use export::{Allocation, BlockSizes, Export, Features, Fua, Kind, Zeroes};
pub use uri::{Address, DEFAULT_PORT, Uri};
