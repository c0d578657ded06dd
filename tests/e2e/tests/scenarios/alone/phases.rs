//! Jobs that are cancelled by their own objects, as somebody with `kubectl` does, before, between and after what the nodes do. In the
//! middle of the bytes: [`crate::cancelling`]; while a restore is tried again: [`crate::disk_faults`].

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, Reason, SnapshotPhase, Upload, UploadPhase, conditions};
use e2e::{Claim, DEADLINE, Namespace, Snapshot, World, nothing_left, put_right, wait_until};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::DATA_MANAGERS;
use super::orphans::until;

crate::scenarios![what_is_cancelled_before_or_between_its_steps_leaves_nothing_and_what_is_done_stays];

const DRIVER: &str = "backup-driver";
const TAKE: &str = "VslmCreateSnapshot_Task";

/// When a backup is cancelled.
#[derive(Debug, Clone, Copy)]
enum When {
    /// Nobody has looked at it: the driver is away.
    NotBegun,
    /// vCenter takes its disk snapshot.
    Snapshotting,
    /// No node has taken its Upload: all are away.
    NotTaken,
    /// An attempt has failed, since the store was away, and the next one comes in a minute.
    BackedOff,
}

async fn what_is_cancelled_before_or_between_its_steps_leaves_nothing_and_what_is_done_stays(
    world: World,
) -> Result<()> {
    let shop = world.namespace("phases").await?;
    let claim = shop.claim("done").mib(2).create().await?;
    claim.fill_random(112)?;
    let done = shop.snapshot(&claim).await?;
    let uploaded = done.wait_for(SnapshotPhase::Uploaded).await?;
    stop(&done).await?;

    for when in [When::NotBegun, When::Snapshotting, When::NotTaken, When::BackedOff] {
        let once = async {
            cancelled(&world, &shop, when).await?;
            nothing_left(&world, &shop, 1).await
        };
        once.await.with_context(|| format!("cancelled {when:?}"))?;
    }
    restore_that_no_node_has(&world, &shop, &uploaded).await.context("a restore that no node has")?;

    // the driver has looked at it since, and was started anew
    let kept = done.wait_for(SnapshotPhase::Uploaded).await.context("it was too late to cancel it")?;
    ensure!(kept.spec.snapshot_cancel, "it was asked to stop");
    ensure!(!done.upload().await?.spec.upload_cancel, "what has ended is not asked to stop");
    shop.clone_as(&kept, "again").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "again").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 1).await?;
    world.locations_are_available().await // the store was away
}

/// Cancels a backup then, and waits until it has ended as cancelled.
async fn cancelled(world: &World, shop: &Namespace, when: When) -> Result<()> {
    // slow, so that no backup is done before its driver or node hears of it
    let claim = shop.claim(&format!("{when:?}").to_lowercase()).mib(48).create().await?;
    claim.fill_random(113)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = match when {
        When::NotBegun => not_begun(world, shop, &claim).await,
        When::Snapshotting => while_it_is_taken(world, shop, &claim).await,
        When::NotTaken => not_taken(world, shop, &claim).await,
        When::BackedOff => backed_off(world, shop, &claim).await,
    };
    let ended = async {
        let asked = asked?;
        let ended = asked.wait_for(SnapshotPhase::Canceled).await?;
        let status = ended.status.context("status")?;
        let ready = conditions::get(&status.conditions, conditions::READY).context("it says why it ended")?;
        ensure!(ready.reason == Reason::Canceled.as_str(), "it says {ready:?}");
        ensure!(status.completion_timestamp.is_some(), "it does not say when: {status:#?}");
        let taken = world.control().calls(claim.disk.as_str(), TAKE).await?;
        match when {
            When::NotBegun => {
                ensure!(taken == 0, "{taken} disk snapshots were taken for what nobody wanted any more");
                ensure!(asked.upload().await.is_err(), "an Upload was made");
            }
            When::Snapshotting | When::NotTaken | When::BackedOff => {
                ensure!(taken == 1, "{taken} disk snapshots were taken for one backup");
                let phase = asked.upload().await?.phase().cloned();
                ensure!(phase == Some(UploadPhase::Canceled), "its Upload is {phase:?}");
            }
        }
        world.lets_go_of(claim.disk.as_str()).await?;
        ensure!(claim.disk_snapshots().await?.is_empty(), "Canceled says that the disk snapshot is gone");
        anyhow::Ok(())
    };
    put_right(ended.await, [world.control().heal(claim.disk.as_str()).await])
}

async fn not_begun(world: &World, shop: &Namespace, claim: &Claim) -> Result<Snapshot> {
    world.kill(DRIVER).await?;
    let asked = async {
        let asked = shop.snapshot(claim).await?;
        stop(&asked).await?;
        anyhow::Ok(asked)
    };
    put_right(asked.await, [world.start_process(DRIVER).await])
}

async fn while_it_is_taken(world: &World, shop: &Namespace, claim: &Claim) -> Result<Snapshot> {
    let late = json!({"method": TAKE, "disk": claim.disk.as_str(), "where": "task", "delayMs": 8000, "count": 1});
    let late = world.control().fault(&late).await?;
    let asked = async {
        let asked = shop.snapshot(claim).await?;
        let is_at_work = |seen: Option<&api::Snapshot>| {
            let ready = seen.and_then(|s| conditions::get(&s.status.as_ref()?.conditions, conditions::READY));
            ready.is_some_and(|c| c.reason == Reason::Snapshotting.as_str())
        };
        wait_until(&asked.api(), &asked.name, DEADLINE, "is at work", is_at_work).await?;
        stop(&asked).await?;
        asked.wait_for(SnapshotPhase::Canceled).await?;
        anyhow::Ok(asked)
    };
    put_right(asked.await, [world.control().fault_is_over(&late).await])
}

async fn not_taken(world: &World, shop: &Namespace, claim: &Claim) -> Result<Snapshot> {
    let asked = async {
        without_nodes(world).await?;
        let asked = shop.snapshot(claim).await?;
        let upload = asked.upload_when_made().await?;
        ensure!(upload.phase() == Some(&UploadPhase::New), "somebody has taken it: {:#?}", upload.status);
        stop(&asked).await?;
        let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
        let is_asked = |seen: Option<&Upload>| seen.is_some_and(|upload| upload.spec.upload_cancel);
        wait_until(&uploads, &upload.name_any(), DEADLINE, "is asked to stop", is_asked).await?;
        anyhow::Ok(asked)
    };
    put_right(asked.await, nodes_are_back(world).await)
}

async fn backed_off(world: &World, shop: &Namespace, claim: &Claim) -> Result<Snapshot> {
    let asked = shop.snapshot(claim).await?;
    asked.copying().await?;
    let failed = async {
        world.kill("s3").await?;
        world.control().heal(claim.disk.as_str()).await?;
        asked.wait_for(SnapshotPhase::UploadFailed).await
    };
    put_right(failed.await, [world.start_process("s3").await])?;
    stop(&asked).await?;
    Ok(asked)
}

/// A restore is cancelled while its Download waits for a node; it ends though none comes.
async fn restore_that_no_node_has(world: &World, shop: &Namespace, uploaded: &api::Snapshot) -> Result<()> {
    let outcome = async {
        without_nodes(world).await?;
        let clone = shop.clone_as(uploaded, "back").await?;
        let target = clone.disk().await?;
        until("a Download waits for a node", || async { Ok(clone.download().await.is_ok()) }).await?;
        clone.cancel().await?;
        ensure!(clone.download().await.is_err(), "a node could still take its Download");
        ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made without its data");
        world.control().disk_goes(&target).await
    };
    put_right(outcome.await, nodes_are_back(world).await)?;
    nothing_left(world, shop, 1).await
}

/// Asks it to stop by its own spec.
async fn stop(asked: &Snapshot) -> Result<()> {
    let stop = Patch::Merge(json!({"spec": {"snapshotCancel": true}}));
    asked.api().patch(&asked.name, &PatchParams::default(), &stop).await?;
    Ok(())
}

async fn without_nodes(world: &World) -> Result<()> {
    for node in DATA_MANAGERS {
        world.kill(node).await?;
    }
    Ok(())
}

async fn nodes_are_back(world: &World) -> Vec<Result<()>> {
    let mut acts = Vec::new();
    for node in DATA_MANAGERS {
        acts.push(world.start_process(node).await); // one that runs goes on
    }
    acts
}
