//! Faults of what everyone shares: servers that go away, credentials that are wrong, programs that are killed.
//! One after the other, on a lab of their own; each puts right what it has put wrong.

mod driver;
mod nodes;
mod peers;

use anyhow::{Context as _, Result, bail};
use api::{SnapshotPhase, Upload, UploadPhase};
use e2e::{Claim, DEADLINE, DiskFault, Namespace, World, wait_until};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

/// The scenarios of this folder.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static (&'static str, crate::Scenario)> {
    [peers::SCENARIOS, nodes::SCENARIOS, driver::SCENARIOS].into_iter().flatten()
}

/// The lab's data-managers.
const DATA_MANAGERS: [&str; 2] = ["data-manager-node-a", "data-manager-node-b"];

async fn back_up(namespace: &Namespace, claim: &Claim) -> Result<api::Snapshot> {
    namespace.snapshot(claim).await?.wait_for(SnapshotPhase::Uploaded).await
}

/// A disk whose reads take so long that a scenario can strike in the middle of its backup.
async fn slow(world: &World, disk: &str, function: &'static str) -> Result<()> {
    world.control().disk_fault(&DiskFault { delay_ms: 1500, ..DiskFault::new(disk, function, "slow") }).await
}

/// The Upload of a Snapshot, as soon as there is one.
async fn upload_of(world: &World, asked: &e2e::Snapshot) -> Result<Upload> {
    wait_until(&asked.api(), &asked.name, DEADLINE, "has an Upload", |seen| {
        seen.and_then(|s| s.status.as_ref()?.snapshot_id.as_ref()).is_some()
    })
    .await?;
    let name = asked.upload().await?.name_any();
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    uploads.get(&name).await.context("read the Upload")
}

/// Waits until a node is in the middle of an upload; returns the process of that node.
async fn in_the_middle_of_an_upload(world: &World, asked: &e2e::Snapshot) -> Result<String> {
    let name = upload_of(world, asked).await?.name_any();
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let seen = wait_until(&uploads, &name, DEADLINE, "has begun", |u| {
        let status = u.and_then(|u| u.status.as_ref());
        let begun = status.is_some_and(|s| s.phase == Some(UploadPhase::InProgress) && s.progress.total_bytes > 0);
        begun || u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
    })
    .await?;
    let status = seen.and_then(|u| u.status).context("status")?;
    if status.phase != Some(UploadPhase::InProgress) {
        bail!("the upload was over before it could be disturbed: {status:#?}");
    }
    Ok(format!("data-manager-{}", status.processing_node.context("a node")?))
}

/// Asks the Upload of a Snapshot to stop and waits until both say so.
async fn cancel(world: &World, asked: &e2e::Snapshot) -> Result<()> {
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let name = asked.upload().await?.name_any();
    let stop = Patch::Merge(json!({"spec": {"uploadCancel": true}}));
    uploads.patch(&name, &PatchParams::default(), &stop).await?;
    asked.wait_for(SnapshotPhase::Canceled).await.map(drop)
}
