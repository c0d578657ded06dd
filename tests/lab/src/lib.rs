//! The lab: real peers on one machine, started and stopped as one thing. etcd, the Kubernetes API server and controllers,
//! an S3 server, a vCenter double with real disk content, a provisioner of volumes, Velero with its plugins, and our own
//! programs as the committed manifests describe them, each with the rights of its account. `docs/testing.md` says how people use it.
//!
//! [`Lab`] is one running lab; [`Options`] say what it is to have; [`Control`] tells the vCenter double what to do. The
//! programs `lab` and `lab-disk` are this library with a command line. It builds the peers with `go build` the first time.
//!
//! ```no_run
//! # async fn example(folder: &std::path::Path) -> anyhow::Result<()> {
//! let lab = lab::Lab::start(lab::Options::in_folder(folder)).await?;
//! let shop = lab.create_namespace("shop").await?;
//! let claim = lab::NewClaim::new(&shop, "data-0").mib(17).create(lab.client()).await?;
//! let disk = lab.disk_of(&shop, &claim).await?;
//! std::fs::write(&disk.path, b"content")?; // the raw file behind the claim
//! lab.stop().await?; // dropping it ends its processes too
//! # Ok(())
//! # }
//! ```

mod certificates;
mod cluster;
mod control;
mod env_file;
mod facts;
mod fixtures;
mod keeper;
mod kubeconfig;
mod lab;
mod peer_process;
mod peers;
mod place;
mod processes;
mod progress;
mod readiness;
mod up;
mod wait;

pub use control::{Control, Disk, DiskSnapshot};
pub use facts::{BUCKET, Facts, Keys, REGION, S3, SCRATCH_BUCKET, SECOND_BUCKET, SECOND_PREFIX, VELERO_NAMESPACE};
pub use fixtures::{NewClaim, wait_for};
pub use keeper::keep;
pub use lab::{Keeper, Lab, Options, Programs, SharedS3, Velero};
pub use peers::{PEERS, Part, Peer, peer};
pub use place::{FIRST, Place, programs};
pub use processes::{Fingerprint, Processes, Record, State};
pub use wait::until;
