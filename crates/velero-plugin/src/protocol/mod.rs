//! How Velero talks to an executable of plugins: hashicorp's go-plugin, gRPC over a unix socket, and a log on stderr.
//!
//! [`serve`] is the whole life of the process. It knows no Kubernetes and no volume, keeps nothing between two calls, and
//! starts no process: one that inherits stderr would keep the server waiting for its end (P-04).

mod call;
mod convert;
mod flags;
mod handshake;
pub mod kinds;
mod log;
mod parent;
mod registry;
mod server;
mod services;
mod socket;
pub mod wire;

pub use registry::{Action, Registry, RegistryError};
pub use server::serve;
