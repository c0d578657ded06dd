//! Disk snapshots that vCenter refuses to delete when their upload has ended: a backup that is stored stays one, an
//! upload that failed becomes none, and both end when vCenter lets go.

use anyhow::{Context as _, Result, ensure};
use api::conditions::{self, STORED, Status};
use api::{ClonePhase, Condition, Reason, SnapshotPhase, Upload, UploadPhase, names};
use e2e::{Claim, DEADLINE, DiskFault, Namespace, Snapshot, World, explained, nothing_left, put_right, wait_until};
use kube::{Api, ResourceExt as _};
use serde_json::json;

crate::scenarios![a_disk_snapshot_that_vcenter_does_not_delete_costs_no_backup_and_makes_none_of_a_failed_upload];

/// What our account lacks then.
const PRIVILEGE: &str = "Datastore.FileManagement";

async fn a_disk_snapshot_that_vcenter_does_not_delete_costs_no_backup_and_makes_none_of_a_failed_upload(
    world: World,
) -> Result<()> {
    let shop = world.namespace("uncleaned").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(115)?;
    // no copy is tried again; what is left of one is
    world.set(names::CONFIG, &json!({"upload-cr-retry-max": "0"})).await?;
    let outcome = async {
        stored(&world, &shop, &claim).await.context("the copy was good")?;
        failed(&world, &shop, &claim).await.context("the copy had failed")
    };
    let outcome = outcome.await;
    let acts = [
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await,
        world.control().heal(claim.disk.as_str()).await,
    ];
    put_right(outcome, acts)?;
    nothing_left(&world, &shop, 1).await
}

async fn stored(world: &World, shop: &Namespace, claim: &Claim) -> Result<()> {
    let outcome = async {
        let asked = shop.snapshot(claim).await?;
        is_stuck(world, shop, claim, &asked, (Status::True, Reason::Uploaded)).await?;
        asked.back_off_is_over().await?;
        let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
        let name = asked.upload().await?.name_any();
        let is_tried_again =
            |seen: Option<&Upload>| seen.and_then(|u| u.status.as_ref()).is_some_and(|status| status.retry_count >= 2);
        wait_until(&uploads, &name, DEADLINE, "was cleaned up in vain again", is_tried_again).await?;
        is_stuck(world, shop, claim, &asked, (Status::True, Reason::Uploaded)).await?;
        anyhow::Ok(asked)
    };
    let asked = while_refused(world, claim, outcome).await?;
    asked.back_off_is_over().await?;
    let uploaded = asked.wait_for(SnapshotPhase::Uploaded).await?;
    let phase = asked.upload().await?.phase().cloned();
    ensure!(phase == Some(UploadPhase::Completed), "its Upload is {phase:?}");
    ensure!(claim.disk_snapshots().await?.is_empty(), "Uploaded says that the disk snapshot is gone");
    shop.clone_as(&uploaded, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    Ok(())
}

async fn failed(world: &World, shop: &Namespace, claim: &Claim) -> Result<()> {
    let unreadable = DiskFault { code: 13, ..DiskFault::new(claim.disk.as_str(), "Open", "fail") };
    world.control().disk_fault(&unreadable).await?;
    let outcome = async {
        let asked = shop.snapshot(claim).await?;
        is_stuck(world, shop, claim, &asked, (Status::False, Reason::VddkOpenFailed)).await?;
        anyhow::Ok(asked)
    };
    let asked = while_refused(world, claim, outcome).await?;
    asked.back_off_is_over().await?;
    let ended = asked.wait_for(SnapshotPhase::UploadFailedAfterRetry).await?;
    let said = ended.status.context("a status")?.conditions;
    explained(world, shop.name(), &asked.name, &said, Reason::VddkOpenFailed, &["13"]).await?;
    let phase = asked.upload().await?.phase().cloned();
    ensure!(phase == Some(UploadPhase::UploadFailedAfterRetry), "its Upload is {phase:?}");
    ensure!(claim.disk_snapshots().await?.is_empty(), "its disk snapshot is left for good");
    Ok(())
}

/// Does that while vCenter does not delete snapshots of the claim's disk.
async fn while_refused<T>(world: &World, claim: &Claim, act: impl Future<Output = Result<T>>) -> Result<T> {
    let rule = json!({"method": "VslmDeleteSnapshot_Task", "disk": claim.disk.as_str(), "fault": "NoPermission",
        "fields": {"privilegeId": PRIVILEGE}});
    let rule = world.control().fault(&rule).await?;
    let outcome = act.await;
    put_right(outcome, [world.control().fault_is_over(&rule).await])
}

/// Snapshot and Upload say that the disk snapshot stays, why, and what became of the copy.
async fn is_stuck(
    world: &World,
    shop: &Namespace,
    claim: &Claim,
    asked: &Snapshot,
    copy: (Status, Reason),
) -> Result<()> {
    let seen = asked.wait_for(SnapshotPhase::CleanupAfterUploadFailed).await?;
    let status = seen.status.context("a status")?;
    says_both(&status.conditions, copy).context("the Snapshot")?;
    let denied = Reason::VCenterPermission;
    explained(world, shop.name(), &asked.name, &status.conditions, denied, &[PRIVILEGE]).await?;
    let upload = asked.upload().await?;
    let status = upload.status.clone().context("a status")?;
    ensure!(status.phase == Some(UploadPhase::CleanupFailed), "its Upload is {status:#?}");
    says_both(&status.conditions, copy).context("its Upload")?;
    explained(world, world.velero(), &upload.name_any(), &status.conditions, denied, &[PRIVILEGE]).await?;
    ensure!(claim.disk_snapshots().await?.len() == 1, "vCenter has deleted it all the same");
    Ok(())
}

/// What became of the copy is said beside what keeps the disk snapshot.
fn says_both(said: &[Condition], (is_stored, reason): (Status, Reason)) -> Result<()> {
    let stored = conditions::get(said, STORED).context("it does not say what is stored")?;
    ensure!(stored.status == is_stored.as_str() && stored.reason == reason.as_str(), "it says {stored:?}");
    Ok(())
}
