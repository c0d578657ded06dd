//! How our controllers reach what lies outside the cluster: vCenter through its Secret, a repository through its
//! BackupRepository.
//!
//! The main types are [`Vcenters`], with the [`Centers`] that one Secret names, and [`Repositories`]. Both read Secrets by name when
//! they are first needed and watch them from then on, keep one open connection until a Secret changes, and tell every failure as a
//! [`Problem`](lifecycle::Problem). [`Settings`] are the user's ConfigMaps.
//!
//! ```no_run
//! # async fn example(client: kube::Client, repository: &api::BackupRepository) -> Result<(), lifecycle::Problem> {
//! use connections::{Repositories, Vcenters};
//!
//! let disk = "2b6d0f5e-1c3a-4a55-9d0e-8c5f6a1b2c3d".parse().expect("an id");
//! let vcenter = Vcenters::new(client.clone(), "velero").of_disk(&disk).await?;
//! let points = Repositories::new(client, "velero").open(repository, "shop").await?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate decides nothing about backups and writes nothing to the cluster.

mod ca_files;
mod centers;
mod credentials;
mod flavor;
mod known;
pub mod leftovers;
mod location;
mod migrations;
mod problems;
mod repositories;
mod restore_point;
mod secrets;
mod settings;
mod stored;
mod usable;
mod vcenters;

pub use centers::{Center, Centers};
pub use migrations::Migrations;
pub use problems::{damaged, from_kube, from_look_for_original, from_original, from_repository, from_vsphere};
pub use repositories::{FoundKey, Opened, Repositories, location_of};
pub use restore_point::restore_point;
pub use settings::Settings;
pub use stored::is_stored;
pub use usable::check;
pub use vcenters::Vcenters;
