//! What belongs to objects that are gone: disk snapshots and half-restored volumes go, and nothing else does.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::conditions::{self, PROCEEDS, READY};
use api::{
    BackupRepository, BackupRepositoryClaim, DeleteSnapshot, Reason, Snapshot, SnapshotPhase, Upload, UploadPhase,
    names,
};
use e2e::{Claim, DEADLINE, Disks, World, delete_if_there, nothing_left, put_right, wait_until, warned};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::back_up;
use crate::velero::storage_locations::{Keys, Location, prefix};

crate::scenarios![
    a_disk_snapshot_whose_backup_was_deleted_while_the_driver_was_dead_goes,
    a_disk_snapshot_of_local_mode_whose_backup_was_cancelled_while_the_driver_was_dead_goes,
    a_deleted_restore_stops_at_once,
    a_node_that_does_not_stop_holds_up_no_other_deleted_restore,
    a_node_that_does_not_let_go_of_a_backup_whose_upload_was_deleted_is_told_of,
    a_claim_that_no_storage_location_asks_for_goes_and_one_made_by_hand_stays,
];

const DRIVER: &str = "backup-driver";
/// The driver dies after the disk snapshot, once while the mark of it is there.
pub(super) const DIES: (&str, &str) = ("BACKUP_DRIVER_DIE_AFTER", "SnapshotTaken");
/// Pause between two looks at what is not watched.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn restart_driver(world: &World, env: &[(&str, &str)]) -> Result<()> {
    world.kill(DRIVER).await?;
    world.start_process_with(DRIVER, env).await
}

/// Forgets that a driver has died of that step: the next one shall.
pub(super) fn may_die_again(world: &World) {
    let _ = std::fs::remove_file(world.folder().join(format!("pods/{DRIVER}/scratch/died-after-{}", DIES.1)));
}

/// Waits until `is_so`.
pub(super) async fn until<F: Future<Output = Result<bool>>>(what: &str, mut is_so: impl FnMut() -> F) -> Result<()> {
    let due = tokio::time::Instant::now() + DEADLINE;
    while !is_so().await? {
        if tokio::time::Instant::now() > due {
            bail!("waited {} s until {what}", DEADLINE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn a_disk_snapshot_whose_backup_was_deleted_while_the_driver_was_dead_goes(world: World) -> Result<()> {
    let shop = world.namespace("orphan").await?;
    let (lost, kept, copied) = (
        shop.claim("lost").mib(2).create().await?,
        shop.claim("kept").mib(2).create().await?,
        shop.claim("copied").mib(52).create().await?,
    );
    // in local mode the disk snapshot is the backup, and outlives its Snapshot
    let local = shop.snapshot_of(&kept.name, "").await?;
    local.wait_for(SnapshotPhase::Snapshotted).await?;
    local.api().delete(&local.name, &DeleteParams::default()).await?;

    may_die_again(&world);
    restart_driver(&world, &[DIES]).await?;
    let asked = shop.snapshot(&lost).await?;
    let died = world.ended(DRIVER).await;
    may_die_again(&world);
    asked.api().delete(&asked.name, &DeleteParams::default()).await?;
    world.start_process_with(DRIVER, &[("ORPHAN_GRACE_SECONDS", "1")]).await?;
    died.context("the driver never took the disk snapshot")?;

    // an Upload that runs deletes its disk snapshot itself
    copied.fill_random(94)?;
    world.control().slow(copied.disk.as_str(), "Read").await?;
    let running = shop.snapshot(&copied).await?;
    let upload = running.upload_when_made().await?.name_any();
    running.api().delete(&running.name, &DeleteParams::default()).await?;

    until("the disk snapshot that nobody owns is gone", || async { Ok(lost.disk_snapshots().await?.is_empty()) })
        .await?;
    let volume = shop.claims().get("lost").await?.spec.and_then(|s| s.volume_name).context("a volume")?;
    let events: Api<Event> = Api::namespaced(world.client(), "default"); // where those of volumes lie
    let of_volume = ListParams::default().fields(&format!("involvedObject.name={volume}"));
    until("an event says so", || async {
        let told = events.list(&of_volume).await?;
        Ok(told.iter().any(|event| event.reason.as_deref() == Some(Reason::SnapshotSwept.as_str())))
    })
    .await?;
    ensure!(kept.disk_snapshots().await?.len() == 1, "a backup in local mode was deleted");
    world.control().heal(copied.disk.as_str()).await?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let ended = wait_until(&uploads, &upload, DEADLINE, "has ended", |u| {
        u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
    })
    .await?;
    let status = ended.and_then(|u| u.status).context("status")?;
    ensure!(status.phase == Some(UploadPhase::Completed), "its disk snapshot was taken away: {status:#?}");
    for left in kept.disk_snapshots().await? {
        let id = left.split_whitespace().next().context("an id")?;
        world.control().remove_snapshot(kept.disk.as_str(), id).await?;
    }
    restart_driver(&world, &[]).await?;
    nothing_left(&world, &shop, 1).await
}

/// No sweep looks for those: it goes with the cancellation or never.
async fn a_disk_snapshot_of_local_mode_whose_backup_was_cancelled_while_the_driver_was_dead_goes(
    world: World,
) -> Result<()> {
    let shop = world.namespace("orphan-local").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    may_die_again(&world);
    restart_driver(&world, &[DIES]).await?;
    let asked = shop.snapshot_of(&claim.name, "").await?;
    let died = world.ended(DRIVER).await;
    may_die_again(&world);
    let taken = claim.disk_snapshots().await;
    let stop = Patch::Merge(json!({"spec": {"snapshotCancel": true}}));
    let stopped = asked.api().patch(&asked.name, &PatchParams::default(), &stop).await;
    if died.is_err() {
        world.kill(DRIVER).await?; // the next scenario needs one that lives
    }
    world.start_process(DRIVER).await?;
    died.context("the driver never took the disk snapshot")?;
    stopped?;
    ensure!(taken?.len() == 1, "the disk snapshot was taken and not recorded");
    asked.wait_for(SnapshotPhase::Canceled).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "its disk snapshot is left for good");
    nothing_left(&world, &shop, 0).await
}

async fn a_deleted_restore_stops_at_once(world: World) -> Result<()> {
    let shop = world.namespace("deleted").await?;
    let claim = shop.claim("data").mib(53).create().await?;
    claim.fill_random(95)?;
    let snapshot = back_up(&shop, &claim).await?;
    restart_driver(&world, &[("SWEEP_SECONDS", "86400")]).await?; // no sweep will find it
    world.control().slow(Disks::OfMib(53), "Write").await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let target = clone.disk().await?;
    clone.copying().await?;
    clone.api().delete(&clone.name, &DeleteParams::default()).await?;
    world.lets_go_of(&target).await?;
    world.control().disk_goes(&target).await?;
    world.control().heal(Disks::OfMib(53)).await?;
    restart_driver(&world, &[]).await?;
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made without its data");
    nothing_left(&world, &shop, 1).await
}

async fn a_node_that_does_not_stop_holds_up_no_other_deleted_restore(world: World) -> Result<()> {
    let shop = world.namespace("stuck").await?;
    let claim: Claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(96)?;
    let snapshot = back_up(&shop, &claim).await?;
    let mut held = None;
    let outcome = stuck_restore(&world, &shop, &snapshot, &mut held).await;
    let mut acts = Vec::new();
    if let Some(lease) = held {
        acts.push(delete_if_there(&Api::<Lease>::namespaced(world.client(), world.velero()), &lease).await);
    }
    acts.push(restart_driver(&world, &[]).await);
    for name in super::DATA_MANAGERS {
        acts.push(world.start_process(name).await); // one that runs goes on
    }
    put_right(outcome, acts)?;
    nothing_left(&world, &shop, 1).await
}

/// `held`: the name of the lease that it takes, for whoever gives it back when this fails.
async fn stuck_restore(
    world: &World,
    shop: &e2e::Namespace,
    snapshot: &Snapshot,
    held: &mut Option<String>,
) -> Result<()> {
    for name in super::DATA_MANAGERS {
        world.kill(name).await?; // nobody writes but the one that we play
    }
    restart_driver(world, &[("SWEEP_SECONDS", "2")]).await?;
    let (stuck, other) = (shop.clone_as(snapshot, "stuck").await?, shop.clone_as(snapshot, "other").await?);
    let (stuck_disk, other_disk) = (stuck.disk().await?, other.disk().await?);
    let uid = stuck.api().get(&stuck.name).await?.uid().context("a uid")?;
    until("its Download is made", || async { Ok(stuck.download().await.is_ok()) }).await?;
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let name = names::download_lease(&stuck.download().await?.name_any());
    let lease = json!({
        "metadata": {"name": name},
        "spec": {"holderIdentity": "node-stuck", "leaseDurationSeconds": 3600},
    });
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    *held = Some(name.clone());

    stuck.api().delete(&stuck.name, &DeleteParams::default()).await?;
    until("its Download is deleted", || async { Ok(stuck.download().await.is_err()) }).await?;
    other.api().delete(&other.name, &DeleteParams::default()).await?;
    world.control().disk_goes(&other_disk).await?;
    ensure!(world.control().disk(&stuck_disk).await.is_ok(), "a disk was deleted while a node held it");
    let words = ["node-stuck", Reason::NotStopping.fix()];
    until("somebody is told of the node", || async {
        Ok(warned(world, world.velero(), &format!("restore-{uid}"), Reason::NotStopping, &words).await.is_ok())
    })
    .await?;
    ensure!(world.control().disk(&stuck_disk).await.is_ok(), "a disk was deleted while a node held it");
    leases.delete(&name, &DeleteParams::default()).await?;
    world.control().disk_goes(&stuck_disk).await
}

/// The node may read the disk snapshot, so that stays for as long as the node does.
async fn a_node_that_does_not_let_go_of_a_backup_whose_upload_was_deleted_is_told_of(world: World) -> Result<()> {
    let shop = world.namespace("stuckupload").await?;
    let claim: Claim = shop.claim("data").mib(2).create().await?;
    let mut held = None;
    let outcome = stuck_upload(&world, &shop, &claim, &mut held).await;
    let mut acts = Vec::new();
    if let Some(lease) = held {
        acts.push(delete_if_there(&Api::<Lease>::namespaced(world.client(), world.velero()), &lease).await);
    }
    for name in super::DATA_MANAGERS {
        acts.push(world.start_process(name).await); // one that runs goes on
    }
    put_right(outcome, acts)?;
    nothing_left(&world, &shop, 0).await
}

/// `held`: the name of the lease that it takes, for whoever gives it back when this fails.
async fn stuck_upload(world: &World, shop: &e2e::Namespace, claim: &Claim, held: &mut Option<String>) -> Result<()> {
    for name in super::DATA_MANAGERS {
        world.kill(name).await?; // nobody reads but the one that we play
    }
    let asked = shop.snapshot(claim).await?;
    asked.wait_for(SnapshotPhase::Snapshotted).await?;
    let upload = asked.upload_when_made().await?.name_any();
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let lease = names::upload_lease(&upload);
    let by_us = json!({
        "metadata": {"name": lease},
        "spec": {"holderIdentity": "node-stuck", "leaseDurationSeconds": 3600},
    });
    *held = Some(lease.clone());
    leases.create(&PostParams::default(), &serde_json::from_value(by_us)?).await?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    uploads.delete(&upload, &DeleteParams::default()).await?;

    for (reason, word) in [(Reason::Canceling, "node-stuck"), (Reason::NotStopping, Reason::NotStopping.fix())] {
        let says = |seen: Option<&Snapshot>| {
            let ready = seen.and_then(|s| conditions::get(&s.status.as_ref()?.conditions, READY));
            ready.is_some_and(|ready| ready.reason == reason.as_str() && ready.message.contains(word))
        };
        wait_until(&asked.api(), &asked.name, DEADLINE, "says that a node holds it", says).await?;
    }
    warned(world, shop.name(), &asked.name, Reason::NotStopping, &["node-stuck", Reason::NotStopping.fix()]).await?;
    ensure!(claim.disk_snapshots().await?.len() == 1, "a disk snapshot was deleted while a node held it");

    leases.delete(&lease, &DeleteParams::default()).await?;
    let ended = asked.wait_for(SnapshotPhase::UploadFailedAfterRetry).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "its disk snapshot is left for good");
    let said = ended.status.map(|status| status.conditions).unwrap_or_default();
    ensure!(conditions::get(&said, PROCEEDS).is_none(), "it says still that it waits: {said:?}");
    Ok(())
}

/// W-42: one location is deleted with its backup; the location `default` and what was made by hand lose nothing.
async fn a_claim_that_no_storage_location_asks_for_goes_and_one_made_by_hand_stays(world: World) -> Result<()> {
    let shop = world.namespace("unasked").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(303)?;
    let before = claim.digest()?;
    let (name, velero) = (shop.name(), world.velero_server());
    let config = [("s3Url", world.var("S3_ENDPOINT").to_owned()), ("profile", "lab".to_owned())];
    let location = Location::create(&world, name, &Keys::of_lab(&world), &config, json!({})).await?;
    velero.back_up(name, name, &["--storage-location", name]).await?;
    velero.backup_is(name, "Completed").await?;
    let kept = format!("{name}-kept");
    velero.back_up(&kept, name, &[]).await?;
    velero.backup_is(&kept, "Completed").await?;
    let of_location = |claim: &&BackupRepositoryClaim| {
        claim.repository_parameters.get("storagePrefix").is_some_and(|found| *found == prefix(name))
    };
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let all = claims.list(&ListParams::default()).await?.items;
    let unasked = all.iter().find(of_location).context("the plugin made a claim for the location")?;
    let described = unasked.backup_repository.clone().context("it was answered")?;
    let of_shop = |claim: &BackupRepositoryClaim| claim.allowed_namespaces.as_deref() == Some(&[name.to_owned()][..]);
    let others: Vec<_> = all.iter().filter(|claim| of_shop(claim) && claim.uid() != unasked.uid()).collect();
    ensure!(others.len() == 2, "one was made by hand, one by the plugin for the location default: {others:#?}");

    location.remove(&world, &shop).await?;
    restart_driver(&world, &[("LEFTOVERS_SECONDS", "1"), ("ORPHAN_AGE_SECONDS", "1")]).await?;
    // a request names its repository for as long as it is kept, which is a day
    forget_requests(&world, &shop, &described).await?;
    let repositories: Api<BackupRepository> = Api::all(world.client());
    until("the claim and its repository are gone", || async {
        Ok(claims.get_opt(&unasked.name_any()).await?.is_none() && repositories.get_opt(&described).await?.is_none())
    })
    .await?;
    for other in others {
        let repository = other.backup_repository.as_deref().context("it was answered")?;
        claims.get(&other.name_any()).await.context("somebody asks for it, or made it by hand")?;
        repositories.get(repository).await?;
    }
    let counted = "vsphere_backup_orphans_removed_total{kind=\"repository-claim\",component=\"backup-driver\"} ";
    let metrics = world.metrics(DRIVER).await?;
    ensure!(metrics.contains(counted), "no {counted}in\n{metrics}");

    claim.delete().await?;
    velero.restore(&kept, &kept, &[]).await?;
    velero.restore_is(&kept, "Completed").await?;
    ensure!(Claim::bound(&world, name, "data").await?.digest()? == before, "it came back different");
    restart_driver(&world, &[]).await?;
    nothing_left(&world, &shop, 1).await
}

/// Deletes what has ended and names that repository.
pub(super) async fn forget_requests(world: &World, shop: &e2e::Namespace, repository: &str) -> Result<()> {
    let (all, delete) = (ListParams::default(), DeleteParams::default());
    let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
    for snapshot in snapshots.list(&all).await?.items.iter().filter(|s| s.spec.backup_repository == repository) {
        snapshots.delete(&snapshot.name_any(), &delete).await?;
    }
    let deletes: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    for asked in deletes.list(&all).await?.items.iter().filter(|d| d.spec.backup_repository == repository) {
        deletes.delete(&asked.name_any(), &delete).await?;
    }
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let names_it = |upload: &&Upload| upload.spec.backup_repository.as_deref() == Some(repository);
    for upload in uploads.list(&all).await?.items.iter().filter(names_it) {
        uploads.delete(&upload.name_any(), &delete).await?;
    }
    Ok(())
}
