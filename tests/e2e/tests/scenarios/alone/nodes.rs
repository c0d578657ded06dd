//! Data-managers that are killed in the middle: the same node goes on after a restart, another one when it stays away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, Download, SnapshotPhase, Upload, names};
use e2e::{Claim, DEADLINE, DiskFault, Disks, Namespace, World, nothing_left, wait_until, written_for_good};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};

use super::{DATA_MANAGERS, back_up};

crate::scenarios![
    an_upload_goes_on_after_its_node_is_restarted,
    an_upload_is_taken_over_from_a_dead_node,
    an_upload_of_a_drained_node_goes_on_at_once,
    a_restore_of_a_drained_node_goes_on_at_once,
    a_restore_goes_on_after_its_node_is_restarted,
    a_restore_is_taken_over_from_a_dead_node,
    an_upload_in_the_originals_layout_goes_on_after_its_node_is_restarted,
    a_restore_from_the_originals_layout_goes_on_after_its_node_is_restarted,
    a_disk_far_larger_than_the_memory_for_it_goes_there_and_back,
];

/// What a data-manager may hold at one time, in MiB, its child with the disk library apart.
const MEMORY: u64 = 256;

/// Bytes of a disk that are read again at most after a kill.
const READ_AGAIN: u64 = 256 << 20;

/// How long the lease of a transfer outlasts its dead holder.
const LEASE: Duration = Duration::from_secs(60);

/// Time for the lease of the dead and the copy.
const TAKEN_OVER: Duration = Duration::from_secs(LEASE.as_secs() + DEADLINE.as_secs());

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Restarted,
    StaysDead,
}

/// The node of that process, which was killed, has that lease still, by its name and for the time that is promised.
async fn has_lease(world: &World, lease: &str, process: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let told = leases.get(lease).await?.spec.context("a lease says who has it")?;
    let node = process.strip_prefix("data-manager-");
    ensure!(node.is_some() && told.holder_identity.as_deref() == node, "{node:?} should have {lease}: {told:#?}");
    ensure!(told.lease_duration_seconds.map(u64::try_from) == Some(Ok(LEASE.as_secs())), "its time: {told:#?}");
    Ok(())
}

async fn upload_with(world: &World, prefix: &str, node: Node) -> Result<()> {
    let shop = world.namespace(prefix).await?;
    let claim = shop.claim("data").mib(500).create().await?;
    claim.fill_random(81)?;
    let late = DiskFault { at_offset: Some(480 << 20), ..DiskFault::new(claim.disk.as_str(), "Read", "hang") };
    world.control().disk_fault(&late).await?;
    let asked = shop.snapshot(&claim).await?;
    let process = asked.copying().await?;
    let done = asked.copied(440 << 20).await?;
    world.kill(&process).await?;
    has_lease(world, &names::upload_lease(&asked.upload().await?.name_any()), &process).await?;
    world.control().heal(claim.disk.as_str()).await?;
    if node == Node::Restarted {
        world.start_process(&process).await?;
    }
    let finished = asked.wait_for_within(SnapshotPhase::Uploaded, TAKEN_OVER).await;
    if node == Node::StaysDead {
        world.start_process(&process).await?;
    }
    let snapshot = finished?;
    let status = asked.upload().await?.status.context("a status")?;
    let (last, progress) = (status.processing_node.context("a node")?, status.progress);
    ensure!(node == Node::Restarted || process != format!("data-manager-{last}"), "the dead node finished it?");
    let (left, read) = (progress.total_bytes - done, progress.bytes_read);
    ensure!(read <= left + READ_AGAIN, "{read} bytes were read again where {left} were left");
    world.restic(shop.name()).check().await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(world, &shop, 1).await
}

/// A node that ends in order gives its work back: nobody waits for its lease to run out.
async fn an_upload_of_a_drained_node_goes_on_at_once(world: World) -> Result<()> {
    let shop = world.namespace("drained").await?;
    let claim = shop.claim("data").mib(47).create().await?;
    claim.fill_random(84)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    let process = asked.copying().await?;
    let name = asked.upload().await?.name_any();
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let terminated = world.terminate(&process).await;
    let is_taken_over = |upload: Option<&Upload>| {
        let node = upload.and_then(|u| u.status.as_ref()?.processing_node.clone());
        node.is_some_and(|node| format!("data-manager-{node}") != process)
    };
    let taken_over = wait_until(&uploads, &name, LEASE - Duration::from_secs(10), "is taken over", is_taken_over).await;
    world.control().heal(claim.disk.as_str()).await?;
    world.start_process(&process).await?;
    terminated?;
    taken_over?;
    asked.wait_for(SnapshotPhase::Uploaded).await?;
    world.restic(shop.name()).check().await?;
    nothing_left(&world, &shop, 1).await
}

/// The same for a restore: the next node goes on where the volume is written to, and writes nothing of it twice.
async fn a_restore_of_a_drained_node_goes_on_at_once(world: World) -> Result<()> {
    let shop = world.namespace("drainback").await?;
    let claim = shop.claim("data").mib(44).create().await?;
    claim.fill_random(86)?;
    let snapshot = back_up(&shop, &claim).await?;
    let slow = DiskFault { delay_ms: 200, ..DiskFault::new(Disks::OfMib(44), "Write", "slow") };
    world.control().disk_fault(&slow).await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let process = clone.checkpointed().await?;
    let before = clone.download().await?;
    let written = written_for_good(&before);
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let terminated = world.terminate(&process).await;
    let is_taken_over = |download: Option<&Download>| {
        let node = download.and_then(|d| d.status.as_ref()?.processing_node.clone());
        node.is_some_and(|node| format!("data-manager-{node}") != process)
    };
    let soon = LEASE - Duration::from_secs(10);
    let taken_over = wait_until(&downloads, &before.name_any(), soon, "is taken over", is_taken_over).await;
    world.control().heal(Disks::OfMib(44)).await?;
    world.start_process(&process).await?;
    terminated?;
    taken_over?;
    clone.wait_for(ClonePhase::Completed).await?;
    let progress = clone.download().await?.status.context("a status")?.progress;
    let stored = progress.bytes_stored;
    ensure!(
        written > 0 && stored <= (44 << 20) - written,
        "{written} bytes were there, and {stored} were written again"
    );
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 1).await
}

/// Lines that a data-manager may log about one backup and one restore, however large the disk is (W-22).
const LINES: usize = 30;

async fn a_disk_far_larger_than_the_memory_for_it_goes_there_and_back(world: World) -> Result<()> {
    let shop = world.namespace("large").await?;
    let claim = shop.claim("data").mib(512).create().await?;
    claim.write_random(83, 0, 384 << 20)?;
    for process in DATA_MANAGERS {
        world.kill(process).await?; // the peak counts from here
        world.start_process(process).await?;
    }
    let mut lines = Vec::new();
    for process in DATA_MANAGERS {
        lines.push(world.logs(process).await?.lines().count());
    }
    let snapshot = back_up(&shop, &claim).await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    for (process, before) in DATA_MANAGERS.into_iter().zip(lines) {
        let log = world.logs(process).await?;
        let more = log.lines().count() - before;
        println!("{process} logged {more} lines");
        let end: Vec<&str> = log.lines().rev().take(10).collect();
        ensure!(more <= LINES, "{process} logged {more} lines, the last of them {end:#?}");
    }
    for process in DATA_MANAGERS {
        let peak = world.peak_memory_mib(process).await?;
        ensure!(peak <= MEMORY, "{process} held {peak} MiB at one time");
        println!("{process} held at most {peak} MiB");
    }
    nothing_left(&world, &shop, 1).await
}

async fn an_upload_goes_on_after_its_node_is_restarted(world: World) -> Result<()> {
    upload_with(&world, "upagain", Node::Restarted).await
}

async fn an_upload_is_taken_over_from_a_dead_node(world: World) -> Result<()> {
    upload_with(&world, "upover", Node::StaysDead).await
}

async fn restore_with(world: &World, prefix: &str, node: Node) -> Result<()> {
    let shop = world.namespace(prefix).await?;
    let repository = shop.repository().to_owned();
    restore_from(world, &shop, &repository, node).await?;
    nothing_left(world, &shop, 1).await
}

async fn restore_from(world: &World, shop: &Namespace, repository: &str, node: Node) -> Result<()> {
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(82)?;
    let snapshot = shop.snapshot_of(&claim.name, repository).await?.wait_for(SnapshotPhase::Uploaded).await?;
    // 19 s for all of it: several checkpoints, and half of it is left when the first is seen
    let slow = DiskFault { delay_ms: 200, ..DiskFault::new(Disks::OfMib(48), "Write", "slow") };
    world.control().disk_fault(&slow).await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let process = clone.checkpointed().await?;
    world.kill(&process).await?;
    let download = clone.download().await?;
    has_lease(world, &names::download_lease(&download.name_any()), &process).await?;
    let written = written_for_good(&download);
    world.control().heal(Disks::OfMib(48)).await?;
    if node == Node::Restarted {
        world.start_process(&process).await?;
    }
    let finished = clone.wait_for_within(ClonePhase::Completed, TAKEN_OVER).await;
    if node == Node::StaysDead {
        world.start_process(&process).await?;
    }
    finished?;
    let status = clone.download().await?.status.context("a status")?;
    ensure!(status.checkpoint.is_none(), "the checkpoint of a restore that is complete stays in the Download");
    let api::Progress { bytes_read, bytes_stored, .. } = status.progress;
    ensure!(
        bytes_read <= bytes_stored && bytes_stored <= (48 << 20) - written,
        "{written} bytes were on the volume for good, and the second attempt read {bytes_read} and wrote {bytes_stored}"
    );
    let last = status.processing_node.context("a node")?;
    ensure!(node == Node::Restarted || process != format!("data-manager-{last}"), "the dead node finished it?");
    let back = Claim::bound(world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    Ok(())
}

async fn an_upload_in_the_originals_layout_goes_on_after_its_node_is_restarted(world: World) -> Result<()> {
    let shop = world.namespace("oldagain").await?;
    let claim = shop.claim("data").mib(72).create().await?;
    claim.fill_random(85)?;
    let late = DiskFault { at_offset: Some(65 << 20), ..DiskFault::new(claim.disk.as_str(), "Read", "hang") };
    world.control().disk_fault(&late).await?;
    let repository = shop.repository_with(&[("repositoryFormat", "legacy")]).await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    let process = asked.copying().await?;
    let done = asked.copied(40 << 20).await?;
    world.kill(&process).await?;
    world.control().heal(claim.disk.as_str()).await?;
    world.start_process(&process).await?;
    let snapshot = asked.wait_for_within(SnapshotPhase::Uploaded, TAKEN_OVER).await?;
    let progress = asked.upload().await?.status.context("a status")?.progress;
    let left = progress.total_bytes - done;
    ensure!(progress.bytes_read <= left, "{} bytes were read where {left} were left", progress.bytes_read);
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 0).await
}

async fn a_restore_from_the_originals_layout_goes_on_after_its_node_is_restarted(world: World) -> Result<()> {
    let shop = world.namespace("olddown").await?;
    let repository = shop.repository_with(&[("repositoryFormat", "legacy")]).await?;
    restore_from(&world, &shop, &repository, Node::Restarted).await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_restore_goes_on_after_its_node_is_restarted(world: World) -> Result<()> {
    restore_with(&world, "downagain", Node::Restarted).await
}

async fn a_restore_is_taken_over_from_a_dead_node(world: World) -> Result<()> {
    restore_with(&world, "downover", Node::StaysDead).await
}
