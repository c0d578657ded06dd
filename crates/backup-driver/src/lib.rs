//! The backup-driver: one active process per cluster that turns requests into disk snapshots, volumes and transfers.
//!
//! It moves no bytes. [`server::run`] starts a controller for each kind it owns: Snapshot ([`snapshots`]),
//! CloneFromSnapshot ([`clones`]), DeleteSnapshot ([`deletes`]) and BackupRepositoryClaim ([`claims`]); finished
//! transfers are removed by [`transfers`], what deleted restores left behind by [`sweep`], disk snapshots that nobody owns
//! by [`orphans`], what else nobody owns by `leases`, `locks` and `leftovers`, and the data of deleted backups by
//! [`maintenance`]; [`elsewhere`] tells of objects in the wrong namespace. Every decision is in the `lifecycle` crate; here
//! things are read and written.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use clap::Parser;
//! let arguments = backup_driver::arguments::Server::parse_from(["server", "--log-format", "json"]);
//! backup_driver::server::run(arguments).await
//! # }
//! ```
//!
//! **Being killed** between any two steps must double nothing and leak nothing: every step is found again by a name or
//! mark made of the request's uid. [`steps`] lets a test kill the process after a named step.

mod admissions;
pub mod arguments;
pub mod claims;
pub mod clones;
mod context;
pub mod deletes;
pub mod elsewhere;
mod error;
mod every;
mod lasting;
mod leases;
mod leftovers;
mod locks;
pub mod maintenance;
pub mod new_disks;
pub mod orphans;
mod pauses;
mod places;
mod repositories;
pub mod server;
mod shown;
pub mod snapshots;
pub mod steps;
pub mod sweep;
pub mod transfers;

pub use context::Context;
pub use error::Error;
pub use lasting::Lasting;
pub use pauses::{Attempts, Pauses, To};
pub use shown::{Shown, Written};
