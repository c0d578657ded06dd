//! Data-managers that are killed in the middle: the same node goes on after a restart, another one when it stays away.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::{ClonePhase, Download, DownloadPhase, SnapshotPhase};
use e2e::{Claim, DEADLINE, World, nothing_left, wait_until};
use kube::{Api, ResourceExt as _};

use super::{back_up, in_the_middle_of_an_upload, slow};

crate::scenarios![
    an_upload_goes_on_after_its_node_is_restarted,
    an_upload_is_taken_over_from_a_dead_node,
    a_restore_goes_on_after_its_node_is_restarted,
    a_restore_is_taken_over_from_a_dead_node,
];

/// Time for the lease of the dead (60 s) and the copy.
const TAKEN_OVER: Duration = Duration::from_secs(60 + DEADLINE.as_secs());

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Restarted,
    StaysDead,
}

async fn upload_with(world: &World, prefix: &str, node: Node) -> Result<()> {
    let shop = world.namespace(prefix).await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(81)?;
    slow(world, claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    let process = in_the_middle_of_an_upload(world, &asked).await?;
    world.kill(&process).await?;
    world.control().heal_disk(claim.disk.as_str()).await?;
    if node == Node::Restarted {
        world.start_process(&process).await?;
    }
    let finished = asked.wait_for_within(SnapshotPhase::Uploaded, TAKEN_OVER).await;
    if node == Node::StaysDead {
        world.start_process(&process).await?;
    }
    let snapshot = finished?;
    let last = asked.upload().await?.status.and_then(|s| s.processing_node).context("a node")?;
    ensure!(node == Node::Restarted || process != format!("data-manager-{last}"), "the dead node finished it?");
    world.restic(shop.name()).check().await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(world, &shop, 1).await
}

async fn an_upload_goes_on_after_its_node_is_restarted(world: World) -> Result<()> {
    upload_with(&world, "upagain", Node::Restarted).await
}

async fn an_upload_is_taken_over_from_a_dead_node(world: World) -> Result<()> {
    upload_with(&world, "upover", Node::StaysDead).await
}

async fn restore_with(world: &World, prefix: &str, node: Node) -> Result<()> {
    let shop = world.namespace(prefix).await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(82)?;
    let snapshot = back_up(&shop, &claim).await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let target = clone.disk().await?;
    slow(world, &target, "Write").await?;
    let process = in_the_middle_of_a_restore(world, &clone).await?;
    world.kill(&process).await?;
    world.control().heal_disk(&target).await?;
    if node == Node::Restarted {
        world.start_process(&process).await?;
    }
    let finished = clone.wait_for_within(ClonePhase::Completed, TAKEN_OVER).await;
    if node == Node::StaysDead {
        world.start_process(&process).await?;
    }
    finished?;
    let last = clone.download().await?.status.and_then(|s| s.processing_node).context("a node")?;
    ensure!(node == Node::Restarted || process != format!("data-manager-{last}"), "the dead node finished it?");
    let back = Claim::bound(world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(world, &shop, 1).await
}

/// Waits until a node is writing; returns its process.
async fn in_the_middle_of_a_restore(world: &World, clone: &e2e::Clone) -> Result<String> {
    wait_until(&clone.api(), &clone.name, DEADLINE, "is being written", |seen| {
        let status = seen.and_then(|c| c.status.as_ref());
        let ready = status.and_then(|s| api::conditions::get(&s.conditions, api::conditions::READY));
        let begun = ready.is_some_and(|c| c.reason == "Downloading");
        begun || seen.and_then(api::CloneFromSnapshot::phase).is_some_and(ClonePhase::is_terminal)
    })
    .await?;
    let name = clone.download().await?.name_any();
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let seen = wait_until(&downloads, &name, DEADLINE, "has begun", |d| {
        let status = d.and_then(|d| d.status.as_ref());
        let begun = status.is_some_and(|s| s.phase == Some(DownloadPhase::InProgress) && s.progress.total_bytes > 0);
        begun || d.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
    })
    .await?;
    let status = seen.and_then(|d| d.status).context("status")?;
    if status.phase != Some(DownloadPhase::InProgress) {
        bail!("the restore was over before it could be disturbed: {status:#?}");
    }
    Ok(format!("data-manager-{}", status.processing_node.context("a node")?))
}

async fn a_restore_goes_on_after_its_node_is_restarted(world: World) -> Result<()> {
    restore_with(&world, "downagain", Node::Restarted).await
}

async fn a_restore_is_taken_over_from_a_dead_node(world: World) -> Result<()> {
    restore_with(&world, "downover", Node::StaysDead).await
}
