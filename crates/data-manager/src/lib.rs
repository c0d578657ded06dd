//! The program on every node that moves the bytes: it takes Uploads and Downloads, copies between a disk and the
//! repository, and deletes the one disk snapshot that a finished Upload names.
//!
//! The main types are [`Config`] (command line and environment) and [`server::run`]. What to do next is decided by
//! `lifecycle::transfer` and started by `reconcile.rs`, for both kinds alike; a kind's folder holds `mod.rs` (what is its
//! own) and `apply.rs` (the work, `copy.rs` the bytes). It makes nothing in vCenter.
//!
//! ```no_run
//! # async fn example(config: data_manager::Config) -> anyhow::Result<()> {
//! data_manager::server::run(config).await
//! # }
//! ```

mod at_work;
mod attempt;
mod config;
mod context;
mod disks;
mod downloads;
mod given;
mod interrupt;
mod kind;
mod pacing;
mod problems;
mod reconcile;
mod report;
pub mod server;
mod steps;
mod uploads;

pub use config::{Command, Config};
pub use given::Given;
