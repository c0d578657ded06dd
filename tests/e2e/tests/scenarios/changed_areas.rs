//! Backups of disks whose changes vCenter tracks: only what changed is read, and never at the price of a wrong backup.

use anyhow::{Context as _, Result, ensure};
use api::conditions::{self, INCREMENTAL};
use api::{ClonePhase, Condition, Reason, SnapshotPhase};
use e2e::{Claim, Namespace, World, nothing_left, warned};
use kube::ResourceExt as _;
use serde_json::json;

crate::scenarios![
    a_second_backup_reads_only_what_changed,
    a_change_that_vcenter_forgets_is_found_and_everything_is_read,
    whatever_breaks_the_chain_leads_to_a_full_read_that_says_why,
];

/// Bytes of a chunk.
const CHUNK: u64 = 512 << 10;

/// A backup that has ended well.
struct Done {
    asked: e2e::Snapshot,
    snapshot: api::Snapshot,
    read: u64,
    incremental: Condition,
}

impl Done {
    fn is_full_because(&self, why: &str) -> Result<()> {
        let said = &self.incremental;
        ensure!((said.status.as_str(), said.reason.as_str()) == ("False", "AllocatedAreas"), "it is {said:?}");
        ensure!(said.message.contains(why), "it says `{}`, not `{why}`", said.message);
        Ok(())
    }

    fn is_incremental(&self) -> Result<()> {
        let said = &self.incremental;
        ensure!((said.status.as_str(), said.reason.as_str()) == ("True", "ChangedAreas"), "it is {said:?}");
        Ok(())
    }
}

/// Backs a claim up, and hears on Snapshot and Upload how its content was found.
async fn back_up(shop: &Namespace, claim: &Claim) -> Result<Done> {
    let asked = shop.snapshot(claim).await?;
    let snapshot = asked.wait_for(SnapshotPhase::Uploaded).await?;
    let upload = asked.upload().await?.status.context("a status")?;
    let heard = |all: &[Condition]| conditions::get(all, INCREMENTAL).cloned().context("how its content was found");
    let incremental = heard(&upload.conditions)?;
    let mirrored = heard(&snapshot.status.as_ref().context("a status")?.conditions)?;
    ensure!(mirrored.message == incremental.message, "Snapshot and Upload differ: {mirrored:?}, {incremental:?}");
    Ok(Done { asked, snapshot, read: upload.progress.bytes_read, incremental })
}

/// A claim whose disk is tracked, filled.
async fn tracked(world: &World, shop: &Namespace, mib: u64, seed: u64) -> Result<Claim> {
    let claim = shop.claim("data").mib(mib).create().await?;
    claim.fill_random(seed)?;
    world.control().tell("/tracking", &json!({"disk": claim.disk.as_str(), "on": true})).await?;
    Ok(claim)
}

async fn comes_back(world: &World, shop: &Namespace, done: &Done, name: &str, digest: &str) -> Result<()> {
    shop.clone_as(&done.snapshot, name).await?.wait_for(ClonePhase::Completed).await?;
    ensure!(Claim::bound(world, shop.name(), name).await?.digest()? == digest, "{name} came back different");
    Ok(())
}

async fn a_second_backup_reads_only_what_changed(world: World) -> Result<()> {
    let shop = world.namespace("changed").await?;
    let claim = tracked(&world, &shop, 48, 401).await?;
    let first = back_up(&shop, &claim).await?;
    first.is_full_because("first restore point")?;
    ensure!(first.read == claim.size()?, "{} bytes were read", first.read);
    let before = claim.digest()?;

    claim.write_random(402, 3 << 20, 100)?;
    claim.write_random(403, (20 << 20) - 50, 100)?; // across the border of two chunks
    let second = back_up(&shop, &claim).await?;
    second.is_incremental()?;
    // three chunks, and one of the sample
    ensure!(second.read <= 4 * CHUNK, "{} bytes were read", second.read);
    let third = back_up(&shop, &claim).await?;
    third.is_incremental()?;
    ensure!(third.read <= CHUNK, "{} bytes were read though nothing changed", third.read);
    let table =
        world.run("kubectl", &["describe", "snapshots.backupdriver.cnsdp.vmware.com", "-n", shop.name()]).await?;
    ensure!(table.contains("what was read: changed areas"), "describe does not say so:\n{table}");

    world.restic(shop.name()).check().await?;
    let now = claim.digest()?;
    comes_back(&world, &shop, &first, "of-first", &before).await?;
    comes_back(&world, &shop, &second, "of-second", &now).await?;
    comes_back(&world, &shop, &third, "of-third", &now).await?;
    nothing_left(&world, &shop, 3).await
}

async fn a_change_that_vcenter_forgets_is_found_and_everything_is_read(world: World) -> Result<()> {
    let shop = world.namespace("forgets").await?;
    let claim = tracked(&world, &shop, 16, 411).await?;
    back_up(&shop, &claim).await?.is_full_because("first restore point")?;
    claim.write_random(412, 1 << 20, 100)?;
    back_up(&shop, &claim).await?.is_incremental()?;

    claim.fill_random(413)?; // any sample hits it
    let lie = json!({
        "method": "VslmQueryChangedDiskAreas", "disk": claim.disk.as_str(),
        "where": "answer", "lie": "nothing", "count": 1,
    });
    world.control().fault(&lie).await?;
    let found = back_up(&shop, &claim).await?;
    found.is_full_because("a part that vCenter called unchanged has changed")?;
    let upload = found.asked.upload().await?.name_any();
    warned(&world, world.velero(), &upload, Reason::TrackingUntrue, &["have changed"]).await?;
    comes_back(&world, &shop, &found, "back", &claim.digest()?).await?;

    let points = world.restic(shop.name()).snapshots().await?;
    let is_doubted = |point: &&serde_json::Value| {
        point["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "tracking=doubted"))
    };
    // the full one before it does not rest on tracking, and the new one was read whole
    ensure!(points.iter().filter(is_doubted).count() == 1, "one of three restore points is doubted: {points:#?}");
    back_up(&shop, &claim).await?.is_full_because("has missed changes before")?;
    world.control().tell("/tracking", &json!({"disk": claim.disk.as_str(), "on": true, "reset": true})).await?;
    back_up(&shop, &claim).await?.is_full_because("begun to track anew")?;
    back_up(&shop, &claim).await?.is_incremental()?;
    world.restic(shop.name()).check().await?;
    nothing_left(&world, &shop, 6).await
}

async fn whatever_breaks_the_chain_leads_to_a_full_read_that_says_why(world: World) -> Result<()> {
    let shop = world.namespace("chain").await?;
    let claim = tracked(&world, &shop, 2, 421).await?;
    let (control, disk) = (world.control(), claim.disk.as_str());
    back_up(&shop, &claim).await?.is_full_because("first restore point")?;

    control.tell("/relocate", &json!({"disk": disk, "keepChangeIds": true})).await?;
    back_up(&shop, &claim).await?.is_full_because("another one")?;

    let refused = json!({
        "method": "VslmQueryChangedDiskAreas", "disk": disk, "where": "call", "fault": "FileFault", "count": 1,
    });
    control.fault(&refused).await?;
    back_up(&shop, &claim).await?.is_full_because("did not say what changed")?;

    // an answer that never comes to the end of the disk
    let stuck = json!({
        "method": "VslmQueryChangedDiskAreas", "disk": disk, "where": "answer", "lie": "stuck", "count": 1,
    });
    control.fault(&stuck).await?;
    back_up(&shop, &claim).await?.is_full_because("did not say what changed")?;

    control.tell("/tracking", &json!({"disk": disk, "on": false})).await?;
    back_up(&shop, &claim).await?.is_full_because("not tracked")?;
    control.tell("/tracking", &json!({"disk": disk, "on": true})).await?;
    back_up(&shop, &claim).await?.is_full_because("not tracked at the last restore point")?;
    let last = back_up(&shop, &claim).await?;
    last.is_incremental()?;
    comes_back(&world, &shop, &last, "back", &claim.digest()?).await?;
    nothing_left(&world, &shop, 7).await
}
