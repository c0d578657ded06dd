//! Faults of what everyone shares: servers that go away, credentials that are wrong, programs that are killed.
//! Each has a lab to itself while it runs, and puts right what it has put wrong.

mod at_once;
mod cleanups;
mod definitions;
pub(crate) mod doctor;
mod driver;
mod kept;
mod limits;
mod migrated;
mod new_disks;
mod nodes;
mod orphans;
mod peers;
mod phases;
mod places;
mod rights;
mod steps;
mod storm;
mod take_over;

use anyhow::Result;
use api::SnapshotPhase;
use e2e::{Claim, Namespace};

/// The scenarios of this folder.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static (&'static str, crate::Scenario)> {
    [
        storm::SCENARIOS, // first: it takes longest
        at_once::SCENARIOS,
        kept::SCENARIOS,
        take_over::SCENARIOS,
        take_over::restores::SCENARIOS,
        limits::SCENARIOS,
        peers::SCENARIOS,
        places::SCENARIOS,
        nodes::SCENARIOS,
        steps::SCENARIOS,
        driver::SCENARIOS,
        orphans::SCENARIOS,
        phases::SCENARIOS,
        cleanups::SCENARIOS,
        definitions::SCENARIOS,
        migrated::SCENARIOS,
        new_disks::SCENARIOS,
        rights::SCENARIOS,
        crate::velero::last_moment::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// The lab's data-managers.
const DATA_MANAGERS: [&str; 2] = ["data-manager-node-a", "data-manager-node-b"];

async fn back_up(namespace: &Namespace, claim: &Claim) -> Result<api::Snapshot> {
    namespace.snapshot(claim).await?.wait_for(SnapshotPhase::Uploaded).await
}
