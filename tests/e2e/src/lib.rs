//! Scenarios on a running lab: what they share.
//!
//! [`World`] is one lab and the clients to look at it; [`Claim`] is a bound claim with its raw file; `wait` waits for an
//! object with a deadline and shows the object when it passes. Everything goes through the lab's stable face
//! (`lab`, `lab-disk`, the `env` file), as it would for a person.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let world = e2e::World::start("e2e", e2e::Server::Absent).await?;
//! let shop = world.namespace("shop").await?;
//! let claim = shop.claim("data-0").mib(17).create().await?;
//! claim.fill_random(1)?;
//! let snapshot = shop.snapshot(&claim).await?;
//! snapshot.wait_for(api::SnapshotPhase::Uploaded).await?;
//! # Ok(())
//! # }
//! ```

mod asked;
mod bucket;
mod claim;
mod control;
mod deletion;
mod explained;
mod hosts;
mod left;
mod midway;
mod namespace;
mod plugins;
mod put_right;
mod requests;
mod restic;
mod second_vcenter;
mod strike;
mod velero;
mod wait;
mod world;

pub use asked::asked;
pub use bucket::Bucket;
pub use claim::{Claim, NewClaim, digest};
pub use control::{Control, DiskFault, Disks};
pub use explained::{explained, warned};
pub use left::{
    disks_without_volume, nothing_left, nothing_left_at_all, nothing_left_of_the_dead, still_there, unended,
};
pub use midway::written_for_good;
pub use namespace::{BY_HAND, Clone, Namespace, Snapshot};
pub use put_right::{delete_if_there, put_right};
pub use requests::{Program, Request, tally};
pub use restic::Restic;
pub use second_vcenter::SECOND_VCENTER;
pub use velero::{Status as VeleroStatus, VELERO_DEADLINE, Velero, bytes_done_and_total};
pub use wait::{DEADLINE, insist, wait_until};
pub use world::{Server, World};
