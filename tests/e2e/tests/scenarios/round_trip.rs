//! A disk goes into the bucket and comes back the same, in every shape and size, with nothing left behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use api::{CloneFromSnapshotSpec, ClonePhase, Reason, ResourceHandle, SnapshotPhase, SnapshotSpec, Upload};
use e2e::{Claim, DEADLINE, Disks, Namespace, World, asked, digest, explained, wait_until};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;

crate::scenarios![
    a_file_system_comes_back_byte_for_byte_and_restic_agrees,
    a_disk_of_one_mib_comes_back,
    what_kubectl_applies_without_a_phase_is_done_all_the_same,
    a_disk_that_ends_inside_a_chunk_comes_back,
    a_disk_larger_than_a_gibibyte_with_data_in_its_last_sector_comes_back,
    an_empty_disk_costs_nothing_and_comes_back_empty,
    three_claims_on_two_nodes_at_once_all_come_back,
    two_snapshots_of_one_claim_at_once_are_both_restorable,
    a_second_backup_stores_only_what_is_new,
    a_raw_block_claim_comes_back,
    a_read_write_once_pod_claim_comes_back,
    a_claim_that_waits_for_its_first_consumer_comes_back,
    no_application_sees_a_claim_before_its_data_is_there,
    twenty_first_backups_at_once_make_one_sound_repository,
    a_finished_backup_can_be_deleted_and_is_gone,
];

/// Backs the claim up and returns its Snapshot once it is `Uploaded`.
async fn back_up(namespace: &Namespace, claim: &Claim) -> Result<api::Snapshot> {
    namespace.snapshot(claim).await?.wait_for(SnapshotPhase::Uploaded).await
}

/// Restores under a new name and returns the bound claim.
async fn restore(world: &World, namespace: &Namespace, snapshot: &api::Snapshot, name: &str) -> Result<Claim> {
    namespace.clone_as(snapshot, name).await?.wait_for(ClonePhase::Completed).await?;
    Claim::bound(world, namespace.name(), name).await
}

/// There and back; the restored disk must equal the original and hold no more blocks than it needs.
async fn there_and_back(world: &World, namespace: &Namespace, claim: &Claim) -> Result<Claim> {
    let before = claim.digest()?;
    let snapshot = back_up(namespace, claim).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "a disk snapshot was left behind");
    let back = restore(world, namespace, &snapshot, &format!("{}-back", claim.name)).await?;
    ensure!(back.disk != claim.disk, "restored into a disk of its own");
    ensure!(back.digest()? == before, "{} came back different", claim.name);
    ensure!(claim.digest()? == before, "{} itself was changed", claim.name);
    Ok(back)
}

async fn a_file_system_comes_back_byte_for_byte_and_restic_agrees(world: World) -> Result<()> {
    let shop = world.namespace("ext4").await?;
    let claim = shop.claim("data-0").mib(96).create().await?;
    let content = tempfile::tempdir()?;
    for number in 0..40_u32 {
        let text = format!("order {number}: ").repeat(5_000 + 1_000 * number as usize);
        std::fs::write(content.path().join(format!("order-{number}.txt")), text)?;
    }
    claim.make_ext4(content.path())?;
    let before = claim.digest()?;

    let applied = shop.snapshot(&claim).await?;
    let snapshot = applied.wait_for(SnapshotPhase::Uploaded).await?;
    let status = snapshot.status.as_ref().context("status")?;
    ensure!(status.completion_timestamp.is_some(), "Uploaded carries its time");
    applied.told(Reason::Uploaded).await?;

    let upload = applied.upload().await?;
    let told = upload.status.as_ref().context("the upload has a status")?;
    ensure!(told.progress.total_bytes == claim.size()?, "totalBytes is the disk's size: {told:?}");
    ensure!(told.progress.bytes_done == told.progress.total_bytes, "settled to the end: {told:?}");
    ensure!(told.progress.bytes_read > 0 && told.progress.bytes_read < told.progress.total_bytes, "holes are not read");
    ensure!(told.progress.bytes_stored > 0 && told.progress.bytes_stored < told.progress.bytes_read, "compressed");
    ensure!(told.next_retry_timestamp.is_some(), "the original's programs crash without it");
    ensure!(claim.disk_snapshots().await?.is_empty(), "a disk snapshot was left behind");
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let left = leases.get_opt(&api::names::upload_lease(&upload.name_any())).await?;
    ensure!(left.is_none(), "a lease was left behind");

    let restic = world.restic(shop.name());
    restic.check().await?;
    ensure!(
        restic.run(&["list", "locks", "--no-cache", "--no-lock"]).await?.trim().is_empty(),
        "a lock was left behind"
    );
    let points = restic.snapshots().await?;
    ensure!(points.len() == 1, "one restore point: {points:?}");
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("disk.raw");
    restic.dump(points[0]["id"].as_str().context("id")?, &raw).await?;
    ensure!(digest(&raw)? == before, "the documented one-liner gives another disk");

    claim.delete().await?;
    let back = restore(&world, &shop, &snapshot, "data-0").await?;
    ensure!(back.digest()? == before, "the disk came back different");
    let table = world.run("kubectl", &["get", "upload,download", "-n", world.velero()]).await?;
    for column in ["PHASE", "NODE", "REASON"] {
        ensure!(table.contains(column), "kubectl get shows {column}: {table}");
    }
    Ok(())
}

async fn a_disk_of_one_mib_comes_back(world: World) -> Result<()> {
    let shop = world.namespace("mib1").await?;
    let claim = shop.claim("tiny").mib(1).create().await?;
    claim.fill_random(1)?;
    there_and_back(&world, &shop, &claim).await.map(drop)
}

async fn what_kubectl_applies_without_a_phase_is_done_all_the_same(world: World) -> Result<()> {
    let shop = world.namespace("applied").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(2)?;
    let spec = SnapshotSpec {
        resource_handle: ResourceHandle::claim("data"),
        backup_repository: shop.repository().to_owned(),
        ..SnapshotSpec::default()
    };
    kubectl_apply(&world, &shop, api::Snapshot::new("by-hand", spec)).await?;
    let snapshots: Api<api::Snapshot> = Api::namespaced(world.client(), shop.name());
    let is_uploaded =
        |s: Option<&api::Snapshot>| s.and_then(|s| s.status.as_ref()?.phase.clone()) == Some(SnapshotPhase::Uploaded);
    let snapshot = wait_until(&snapshots, "by-hand", DEADLINE, "is Uploaded", is_uploaded).await?;
    let status = snapshot.and_then(|s| s.status).context("a status")?;
    let spec = CloneFromSnapshotSpec {
        snapshot_id: status.snapshot_id.context("an id")?,
        metadata: status.metadata,
        kind: api::CLAIM_KIND.to_owned(),
        backup_repository: shop.repository().to_owned(),
        ..CloneFromSnapshotSpec::default()
    };
    let before = claim.digest()?;
    claim.delete().await?;
    kubectl_apply(&world, &shop, api::CloneFromSnapshot::new("by-hand", spec)).await?;
    let is_completed = |c: Option<&api::CloneFromSnapshot>| {
        c.and_then(|c| c.status.as_ref()?.phase.clone()) == Some(ClonePhase::Completed)
    };
    wait_until(&shop.clones(), "by-hand", DEADLINE, "is Completed", is_completed).await?;
    ensure!(Claim::bound(&world, shop.name(), "data").await?.digest()? == before, "came back different");
    Ok(())
}

async fn kubectl_apply(world: &World, shop: &Namespace, object: impl Serialize) -> Result<()> {
    let mut object = serde_json::to_value(object)?;
    object["metadata"]["namespace"] = shop.name().into();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), object.to_string())?;
    let path = file.path().to_str().context("a path in UTF-8")?;
    world.run("kubectl", &["apply", "-f", path]).await.map(drop)
}

async fn a_disk_that_ends_inside_a_chunk_comes_back(world: World) -> Result<()> {
    let shop = world.namespace("mib17").await?;
    let claim = shop.claim("odd").mib(17).create().await?;
    claim.fill_random(17)?;
    there_and_back(&world, &shop, &claim).await.map(drop)
}

async fn a_disk_larger_than_a_gibibyte_with_data_in_its_last_sector_comes_back(world: World) -> Result<()> {
    let shop = world.namespace("gib1").await?;
    let claim = shop.claim("large").mib(1025).create().await?;
    claim.write_random(3, claim.size()? - 512, 512)?;
    let back = there_and_back(&world, &shop, &claim).await?;
    ensure!(back.allocated()? <= 1 << 20, "holes stay holes: {} bytes allocated", back.allocated()?);
    Ok(())
}

async fn an_empty_disk_costs_nothing_and_comes_back_empty(world: World) -> Result<()> {
    let shop = world.namespace("empty").await?;
    let claim = shop.claim("blank").mib(64).create().await?;
    let applied = shop.snapshot(&claim).await?;
    let snapshot = applied.wait_for(SnapshotPhase::Uploaded).await?;
    let progress = applied.upload().await?.status.context("status")?.progress;
    ensure!(progress.bytes_done == 64 << 20 && progress.bytes_read == 0, "nothing is read: {progress:?}");
    let back = restore(&world, &shop, &snapshot, "blank-back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    ensure!(back.allocated()? == 0, "nothing was written");
    Ok(())
}

async fn three_claims_on_two_nodes_at_once_all_come_back(world: World) -> Result<()> {
    let shop = world.namespace("three").await?;
    futures::stream::iter(0..3_u64)
        .map(|number| {
            let (world, shop) = (&world, &shop);
            async move {
                let claim = shop.claim(&format!("data-{number}")).mib(24).create().await?;
                claim.fill_random(100 + number)?;
                there_and_back(world, shop, &claim).await.map(drop)
            }
        })
        .buffer_unordered(3)
        .try_collect::<Vec<()>>()
        .await?;
    world.restic(shop.name()).check().await
}

async fn two_snapshots_of_one_claim_at_once_are_both_restorable(world: World) -> Result<()> {
    let shop = world.namespace("twice").await?;
    let claim = shop.claim("data").mib(8).create().await?;
    claim.fill_random(8)?;
    let (one, two) = futures::try_join!(back_up(&shop, &claim), back_up(&shop, &claim))?;
    let ids = [&one, &two].map(|s| s.status.as_ref().and_then(|s| s.snapshot_id.clone()));
    ensure!(ids[0] != ids[1], "two moments, two disk snapshots: {ids:?}");
    for (name, snapshot) in [("first", &one), ("second", &two)] {
        let back = restore(&world, &shop, snapshot, name).await?;
        ensure!(back.digest()? == claim.digest()?, "the {name} came back different");
    }
    ensure!(claim.disk_snapshots().await?.is_empty(), "a disk snapshot was left behind");
    Ok(())
}

async fn a_second_backup_stores_only_what_is_new(world: World) -> Result<()> {
    let shop = world.namespace("again").await?;
    let claim = shop.claim("data").mib(32).create().await?;
    claim.fill_random(5)?;
    let first = shop.snapshot(&claim).await?;
    first.wait_for(SnapshotPhase::Uploaded).await?;
    claim.write_random(6, 4 << 20, 64 << 10)?;
    let second = shop.snapshot(&claim).await?;
    let snapshot = second.wait_for(SnapshotPhase::Uploaded).await?;
    let stored = [first.upload().await?, second.upload().await?].map(|u| u.status.unwrap().progress.bytes_stored);
    ensure!(stored[0] >= 32 << 20, "random bytes do not shrink: {stored:?}");
    ensure!(stored[1] < 4 << 20, "64 KiB were new: {stored:?}");
    let back = restore(&world, &shop, &snapshot, "data-back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    Ok(())
}

async fn a_raw_block_claim_comes_back(world: World) -> Result<()> {
    let shop = world.namespace("block").await?;
    let claim = shop.claim("raw").mib(4).volume_mode("Block").create().await?;
    claim.fill_random(4)?;
    there_and_back(&world, &shop, &claim).await?;
    let back = shop.claims().get("raw-back").await?;
    ensure!(back.spec.and_then(|s| s.volume_mode).as_deref() == Some("Block"), "still a block claim");
    Ok(())
}

async fn a_read_write_once_pod_claim_comes_back(world: World) -> Result<()> {
    let shop = world.namespace("rwop").await?;
    let claim = shop.claim("single").mib(4).access_mode("ReadWriteOncePod").create().await?;
    claim.fill_random(9)?;
    there_and_back(&world, &shop, &claim).await?;
    let back = shop.claims().get("single-back").await?;
    let modes = back.spec.and_then(|s| s.access_modes).unwrap_or_default();
    ensure!(modes == ["ReadWriteOncePod"], "still ReadWriteOncePod: {modes:?}");
    Ok(())
}

async fn a_claim_that_waits_for_its_first_consumer_comes_back(world: World) -> Result<()> {
    let shop = world.namespace("wffc").await?;
    let claim = shop.claim("late").mib(4).class("vsphere-wffc").node("node-a").create().await?;
    claim.fill_random(10)?;
    there_and_back(&world, &shop, &claim).await.map(drop)
}

/// While the volume is written there is no bound claim of the restored name, not even for a moment.
async fn no_application_sees_a_claim_before_its_data_is_there(world: World) -> Result<()> {
    let shop = world.namespace("watch").await?;
    let claim = shop.claim("data").mib(45).create().await?;
    claim.fill_random(11)?;
    let snapshot = back_up(&shop, &claim).await?;

    let claims = shop.claims();
    let version = claims.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let is_healed = Arc::new(AtomicBool::new(false));
    let may_be_bound = is_healed.clone();
    let watched = tokio::spawn(async move {
        let mut events = claims.watch(&WatchParams::default(), &version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            let (WatchEvent::Added(seen) | WatchEvent::Modified(seen)) = event else { continue };
            if seen.name_any() == "data-back" && is_bound(&seen) {
                ensure!(may_be_bound.load(Ordering::SeqCst), "bound while its volume was being written");
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended before the claim was bound")
    });
    world.control().slow(Disks::OfMib(45), "Write").await?;
    let clone = shop.clone_as(&snapshot, "data-back").await?;
    let copying = clone.copying().await;
    let early = shop.claims().get_opt("data-back").await?;
    is_healed.store(true, Ordering::SeqCst);
    world.control().heal(Disks::OfMib(45)).await?;
    copying?;
    ensure!(!early.as_ref().is_some_and(is_bound), "bound while its volume was being written");
    clone.wait_for(ClonePhase::Completed).await?;
    tokio::time::timeout(DEADLINE, watched).await??
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

async fn twenty_first_backups_at_once_make_one_sound_repository(world: World) -> Result<()> {
    let shop = world.namespace("twenty").await?;
    let claims: Vec<Claim> = futures::stream::iter(0..20_u64)
        .map(|number| {
            let shop = &shop;
            async move {
                let claim = shop.claim(&format!("data-{number}")).mib(1).create().await?;
                claim.fill_random(200 + number)?;
                anyhow::Ok(claim)
            }
        })
        .buffer_unordered(20)
        .try_collect()
        .await?;
    let backups = claims.iter().map(|claim| back_up(&shop, claim));
    futures::future::try_join_all(backups).await?;
    let uploads = Api::<Upload>::namespaced(world.client(), world.velero()).list(&ListParams::default()).await?;
    let ours = uploads.iter().filter(|u| u.spec.source_namespace.as_deref() == Some(shop.name()));
    let nodes: BTreeSet<_> = ours.filter_map(|u| u.status.as_ref()?.processing_node.clone()).collect();
    ensure!(nodes.len() == 2, "twenty uploads are shared by two nodes: {nodes:?}");
    let restic = world.restic(shop.name());
    restic.check().await?;
    ensure!(restic.snapshots().await?.len() == 20, "every backup is there");
    let keys = restic.run(&["list", "keys", "--no-cache", "--no-lock"]).await?;
    ensure!(keys.lines().count() == 1, "one repository has one key: {keys}");
    Ok(())
}

async fn a_finished_backup_can_be_deleted_and_is_gone(world: World) -> Result<()> {
    let shop = world.namespace("delete").await?;
    let claim = shop.claim("data").mib(4).create().await?;
    claim.fill_random(12)?;
    let snapshot = back_up(&shop, &claim).await?;
    let id = snapshot.status.and_then(|s| s.snapshot_id).context("an id")?;
    let spec = api::DeleteSnapshotSpec { snapshot_id: id, backup_repository: shop.repository().to_owned() };
    let api: Api<api::DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let meant: api::entity::PvcSnapshotId = spec.snapshot_id.parse()?;
    let other = api::entity::PvcSnapshotId { claim: "dataa".to_owned(), ..meant };
    let mistyped = api::DeleteSnapshotSpec { snapshot_id: other.to_string(), ..spec.clone() };
    let object = api::DeleteSnapshot::new(&api::names::delete_snapshot(uuid::Uuid::new_v4()), mistyped);
    let name = asked(&api, &object).await?;
    let failed = wait_until(&api, &name, DEADLINE, "is Failed", |seen| {
        seen.and_then(|s| s.status.as_ref()?.phase.clone()) == Some(api::DeletePhase::Failed)
    });
    let conditions = failed.await?.and_then(|seen| seen.status).context("a status")?.conditions;
    let words = [format!("{}/data,", shop.name()), format!("{}/dataa", shop.name()), spec.snapshot_id.clone()];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    explained(&world, world.velero(), &name, &conditions, Reason::InvalidSpec, &words).await?;
    ensure!(world.restic(shop.name()).snapshots().await?.len() == 1, "the backup of another claim is gone");
    for attempt in ["first", "again"] {
        let object = api::DeleteSnapshot::new(&api::names::delete_snapshot(uuid::Uuid::new_v4()), spec.clone());
        let name = asked(&api, &object).await?;
        wait_until(&api, &name, DEADLINE, &format!("is Completed ({attempt})"), |seen| {
            seen.and_then(|s| s.status.as_ref()?.phase.clone()) == Some(api::DeletePhase::Completed)
        })
        .await?;
    }
    let restic = world.restic(shop.name());
    ensure!(restic.snapshots().await?.is_empty(), "the restore point is gone");
    restic.check().await
}
