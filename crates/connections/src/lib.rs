//! How our controllers reach what lies outside the cluster: vCenter through its Secret, a repository through its
//! BackupRepository.
//!
//! The main types are [`Vcenters`] and [`Repositories`]. Both read Secrets by name when they are first needed and watch them
//! from then on, keep one open connection until a Secret changes, and tell every failure as a
//! [`Problem`](lifecycle::Problem). [`Settings`] are the user's ConfigMaps.
//!
//! ```no_run
//! # async fn example(client: kube::Client, repository: &api::BackupRepository) -> Result<(), lifecycle::Problem> {
//! use connections::{Repositories, Vcenters};
//!
//! let vcenter = Vcenters::new(client.clone(), "velero").get().await?;
//! let points = Repositories::new(client, "velero").open(repository, "shop").await?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate decides nothing about backups and writes nothing to the cluster.

mod credentials;
mod known;
pub mod leftovers;
mod location;
mod migrations;
mod problems;
mod repositories;
mod secrets;
mod settings;
mod usable;
mod vcenters;

pub use migrations::Migrations;
pub use problems::{from_kube, from_original, from_repository, from_vsphere};
pub use repositories::{FoundKey, Opened, Repositories, location_of};
pub use settings::Settings;
pub use usable::check;
pub use vcenters::Vcenters;
