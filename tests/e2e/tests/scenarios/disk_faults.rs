//! Disks that cannot be opened, read, written, flushed or closed: nothing unreadable counts as a backup, nothing that may
//! not be on its disk as restored.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, Reason, SnapshotPhase, UploadPhase, conditions};
use e2e::{Claim, DEADLINE, DiskFault, Disks, Namespace, World, explained, nothing_left, wait_until};
use kube::ResourceExt as _;
use serde_json::json;

crate::scenarios![
    a_disk_that_cannot_be_opened_is_no_backup,
    a_disk_that_cannot_be_read_at_one_place_is_no_backup,
    a_disk_library_that_crashes_takes_only_its_own_backup_along,
    a_disk_that_heals_is_backed_up_by_the_next_attempt,
    a_host_short_of_memory_costs_no_attempt,
    a_disk_that_stays_busy_holds_up_no_other,
    a_restore_that_cannot_write_never_binds_the_claim,
    a_restore_reports_a_failed_flush,
    a_restore_reports_a_failed_close,
];

/// Backs up a disk with that fault: the attempt fails for that reason, and the upload can be cancelled with nothing left.
async fn is_no_backup(world: &World, prefix: &str, fault: Fault, reason: Reason, words: &[&str]) -> Result<()> {
    let shop = world.namespace(prefix).await?;
    let claim = shop.claim("data").mib(16).create().await?;
    claim.fill_random(61)?;
    world.control().disk_fault(&fault(claim.disk.as_str())).await?;
    let outcome = attempt_fails(world, &shop, &claim, reason, words).await;
    world.control().heal(claim.disk.as_str()).await?;
    outcome?.cancel().await?;
    nothing_left(world, &shop, 0).await
}

type Fault = fn(&str) -> DiskFault;

async fn attempt_fails(
    world: &World,
    shop: &Namespace,
    claim: &Claim,
    reason: Reason,
    words: &[&str],
) -> Result<e2e::Snapshot> {
    let asked = shop.snapshot(claim).await?;
    let seen = asked.wait_for(SnapshotPhase::UploadFailed).await?;
    let conditions = seen.status.map(|s| s.conditions).unwrap_or_default();
    explained(world, shop.name(), &asked.name, &conditions, reason, words).await?;
    let upload = asked.upload().await?;
    let status = upload.status.clone().context("status")?;
    ensure!(status.phase == Some(UploadPhase::UploadError), "it is {status:#?}");
    ensure!((status.retry_count, status.current_back_off) == (1, 1), "the next attempt comes in a minute: {status:#?}");
    explained(world, world.velero(), &upload.name_any(), &status.conditions, reason, words).await?;
    let points = world.repository_folder(shop.name()).join("snapshots");
    let points = std::fs::read_dir(points)
        .map_or(0, |found| found.filter_map(Result::ok).filter(|e| e.path().is_file()).count());
    ensure!(points == 0, "a restore point of a disk that was not read");
    Ok(asked)
}

async fn a_disk_that_cannot_be_opened_is_no_backup(world: World) -> Result<()> {
    let fault: Fault = |disk| DiskFault { code: 13, ..DiskFault::new(disk, "Open", "fail") };
    is_no_backup(&world, "noopen", fault, Reason::VddkOpenFailed, &["13", "Detach the volume"]).await
}

async fn a_disk_that_cannot_be_read_at_one_place_is_no_backup(world: World) -> Result<()> {
    let fault: Fault = |disk| DiskFault { code: 7, at_offset: Some(9 << 20), ..DiskFault::new(disk, "Read", "fail") };
    is_no_backup(&world, "noread", fault, Reason::DiskReadFailed, &["back up the disk", Reason::DiskReadFailed.fix()])
        .await
}

async fn a_disk_library_that_crashes_takes_only_its_own_backup_along(world: World) -> Result<()> {
    let shop = world.namespace("neighbour").await?;
    let neighbour = shop.claim("data").mib(24).create().await?;
    neighbour.fill_random(62)?;
    let asked = shop.snapshot(&neighbour).await?;
    let fault: Fault = |disk| DiskFault::new(disk, "Read", "abort");
    is_no_backup(&world, "crash", fault, Reason::VddkCrashed, &["back up the disk", Reason::VddkCrashed.fix()]).await?;
    asked.wait_for(SnapshotPhase::Uploaded).await?;
    nothing_left(&world, &shop, 1).await
}

async fn a_disk_that_heals_is_backed_up_by_the_next_attempt(world: World) -> Result<()> {
    let shop = world.namespace("heals").await?;
    let claim = shop.claim("data").mib(8).create().await?;
    claim.fill_random(63)?;
    let fault = DiskFault { code: 7, at_offset: Some(5 << 20), ..DiskFault::new(claim.disk.as_str(), "Read", "fail") };
    world.control().disk_fault(&fault).await?;
    let failed = attempt_fails(&world, &shop, &claim, Reason::DiskReadFailed, &[Reason::DiskReadFailed.fix()]).await;
    world.control().heal(claim.disk.as_str()).await?;
    let asked = failed?;
    let snapshot = asked.wait_for_within(SnapshotPhase::Uploaded, Duration::from_secs(60) + DEADLINE).await?;
    let upload = asked.upload().await?;
    ensure!(upload.status.is_some_and(|s| s.retry_count == 1), "one attempt failed");
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 1).await
}

/// VIX_E_OUT_OF_MEMORY: other transfers have taken what an ESXi host has for disk connections.
async fn a_host_short_of_memory_costs_no_attempt(world: World) -> Result<()> {
    let shop = world.namespace("nomemory").await?;
    let claim = shop.claim("data").mib(12).create().await?;
    claim.fill_random(65)?;
    let fault = DiskFault { code: 2, count: 9, ..DiskFault::new(claim.disk.as_str(), "Read", "fail") };
    world.control().disk_fault(&fault).await?;
    let asked = shop.snapshot(&claim).await?;
    let uploaded = asked.wait_for(SnapshotPhase::Uploaded).await;
    world.control().heal(claim.disk.as_str()).await?;
    uploaded?;
    let status = asked.upload().await?.status.context("status")?;
    ensure!(status.retry_count == 0, "an attempt failed: {status:#?}");
    nothing_left(&world, &shop, 1).await
}

/// Restores onto a disk with that fault: the attempt fails for that reason and the claim is not made; then it is cancelled.
async fn is_not_restored(
    world: &World,
    mib: u64,
    function: &'static str,
    reason: Reason,
    words: &[&str],
) -> Result<()> {
    let shop = world.namespace(&format!("no{}", function.to_lowercase())).await?;
    let claim = shop.claim("data").mib(mib).create().await?;
    claim.fill_random(64)?;
    let snapshot = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    let fault = DiskFault { code: 8, ..DiskFault::new(Disks::OfMib(mib), function, "fail") };
    world.control().disk_fault(&fault).await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let target = clone.disk().await?;
    let outcome = write_fails(world, &shop, &clone, reason, words).await;
    world.control().heal(fault.disks).await?;
    outcome?;
    clone.cancel().await?;
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made without its data");
    world.control().disk_goes(&target).await?;
    nothing_left(world, &shop, 1).await
}

async fn write_fails(
    world: &World,
    shop: &Namespace,
    clone: &e2e::Clone,
    reason: Reason,
    words: &[&str],
) -> Result<()> {
    let seen = wait_until(&clone.api(), &clone.name, DEADLINE, &format!("says {reason}"), |seen| {
        let conditions = seen.and_then(|c| c.status.as_ref()).map(|s| s.conditions.as_slice()).unwrap_or_default();
        let ended = seen.and_then(api::CloneFromSnapshot::phase).is_some_and(ClonePhase::is_terminal);
        ended || api::conditions::get(conditions, api::conditions::READY).is_some_and(|c| c.reason == reason.as_str())
    })
    .await?;
    let status = seen.and_then(|c| c.status).context("status")?;
    explained(world, shop.name(), &clone.name, &status.conditions, reason, words).await?;
    let download = clone.download().await?;
    let told = download.status.clone().context("status")?;
    ensure!(told.phase == Some(api::DownloadPhase::Retry), "it is {told:#?}");
    explained(world, world.velero(), &download.name_any(), &told.conditions, reason, words).await?;
    ensure!(shop.claims().get_opt("back").await?.is_none(), "the claim was made before its data was there");
    Ok(())
}

/// W-19: vCenter works on one disk and takes no snapshot of it; the original's one worker waited for it for an hour or more.
async fn a_disk_that_stays_busy_holds_up_no_other(world: World) -> Result<()> {
    let shop = world.namespace("busy").await?;
    let busy = shop.claim("busy").mib(1).create().await?;
    let rule = json!({"method": "VslmCreateSnapshot_Task", "disk": busy.disk.as_str(), "where": "task",
        "fault": "TaskInProgress"});
    let rule = world.control().fault(&rule).await?;
    let held = shop.snapshot(&busy).await?;
    let others = async {
        let is_begun = |seen: Option<&api::Snapshot>| {
            let ready = seen.and_then(|s| conditions::get(&s.status.as_ref()?.conditions, conditions::READY));
            ready.is_some_and(|c| c.reason == Reason::Snapshotting.as_str())
        };
        wait_until(&held.api(), &held.name, DEADLINE, "is at work", is_begun).await?;
        for (number, seed) in [("one", 65), ("two", 66), ("three", 67)] {
            let claim = shop.claim(number).mib(1).create().await?;
            claim.fill_random(seed)?;
            shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
        }
        let status = held.api().get(&held.name).await?.status.context("status")?;
        ensure!(status.snapshot_id.is_none(), "it was not busy while the others were backed up: {status:#?}");
        anyhow::Ok(())
    };
    let others = others.await;
    world.control().fault_is_over(&rule).await?;
    others?;
    held.wait_for(SnapshotPhase::Uploaded).await.context("it goes on by itself")?;
    nothing_left(&world, &shop, 4).await
}

async fn a_restore_that_cannot_write_never_binds_the_claim(world: World) -> Result<()> {
    let reason = Reason::DiskWriteFailed;
    is_not_restored(&world, 18, "Write", reason, &[reason.fix()]).await
}

async fn a_restore_reports_a_failed_flush(world: World) -> Result<()> {
    let reason = Reason::DiskFlushFailed;
    is_not_restored(&world, 19, "Flush", reason, &[reason.fix()]).await
}

/// What the library had not written out is lost then.
async fn a_restore_reports_a_failed_close(world: World) -> Result<()> {
    let words = ["Close failed with 8", "Free space on the datastore."];
    is_not_restored(&world, 20, "Close", Reason::DiskFlushFailed, &words).await
}
