//! A data-manager dies right after each of a transfer's steps, as if by SIGKILL, and is started again: the backup is whole, the
//! restored claim is what it was, and nothing is left. Kills in the middle of the bytes are in [`super::nodes`].

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, SnapshotPhase};
use e2e::{Claim, World, nothing_left_of_the_dead, put_right};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{DATA_MANAGERS, back_up};

crate::scenarios![
    a_backup_survives_a_node_killed_after_any_step,
    a_restore_survives_a_node_killed_after_any_step,
    a_restore_that_is_cancelled_after_its_node_died_leaves_no_lock,
];

/// The node that dies, and goes on; the other one is away, so that nobody else takes the work.
const NODE: &str = DATA_MANAGERS[0];
const OTHER: &str = DATA_MANAGERS[1];

/// Starts the node so that it dies after that step.
async fn doomed(world: &World, step: &str) -> Result<()> {
    world.kill(NODE).await?;
    world.start_process_with(NODE, &[("DATA_MANAGER_DIE_AFTER", step)]).await
}

/// Waits until the node died of that step, and starts it as it should be.
async fn revived(world: &World, step: &str) -> Result<()> {
    let died = world.ended(NODE).await;
    if died.is_err() {
        world.kill(NODE).await?;
    }
    world.start_process(NODE).await?;
    died.with_context(|| format!("the node never came to step {step}"))?;
    let mark = world.folder().join("pods").join(NODE).join("scratch").join(format!("died-after-{step}"));
    ensure!(mark.is_file(), "the node ended before step {step} for another reason");
    Ok(())
}

async fn a_backup_survives_a_node_killed_after_any_step(world: World) -> Result<()> {
    let steps = [
        "UploadBegun",
        "UploadLocked",
        "SnapshotOpened",
        "PointWritten",
        "CheckpointsForgotten",
        "SnapshotClosed",
        "DiskSnapshotDeleted",
        "UploadTold",
    ];
    let shop = world.namespace("step-backup").await?;
    let claim = shop.claim("data").mib(3).create().await?;
    world.kill(OTHER).await?;
    let mut survived = Ok(());
    for (step, number) in steps.into_iter().zip(1_u8..) {
        let once = async {
            claim.fill_random(100 + u64::from(number))?;
            doomed(&world, step).await?;
            let asked = shop.snapshot(&claim).await?;
            revived(&world, step).await?;
            asked.wait_for(SnapshotPhase::Uploaded).await?;
            nothing_left_of_the_dead(&world, &shop, usize::from(number)).await
        };
        survived = once.await.with_context(|| format!("killed after {step}"));
        if survived.is_err() {
            break;
        }
    }
    world.start_process(OTHER).await?; // the scenarios that follow need it, whatever became of this one
    survived?;
    world.restic(shop.name()).check().await?;
    let snapshot = back_up(&shop, &claim).await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    Ok(())
}

async fn a_restore_survives_a_node_killed_after_any_step(world: World) -> Result<()> {
    let steps = [
        "DownloadBegun",
        "DownloadLocked",
        "VolumeOpened",
        "WritingNoted",
        "VolumeWritten",
        "VolumeClosed",
        "RestoreUnlocked",
        "DownloadTold",
    ];
    let shop = world.namespace("step-restore").await?;
    let claim = shop.claim("data").mib(3).create().await?;
    claim.fill_random(110)?;
    let snapshot = back_up(&shop, &claim).await?;
    world.kill(OTHER).await?;
    let mut survived = Ok(());
    for (number, step) in steps.into_iter().enumerate() {
        let once = async {
            let name = format!("back-{number}");
            doomed(&world, step).await?;
            let clone = shop.clone_as(&snapshot, &name).await?;
            revived(&world, step).await?;
            clone.wait_for(ClonePhase::Completed).await?;
            let back = Claim::bound(&world, shop.name(), &name).await?;
            ensure!(back.digest()? == claim.digest()?, "came back different");
            nothing_left_of_the_dead(&world, &shop, 1).await
        };
        survived = once.await.with_context(|| format!("killed after {step}"));
        if survived.is_err() {
            break;
        }
    }
    world.start_process(OTHER).await?;
    survived
}

/// No node has that Download any more: what its node held in the repository, only the driver knows of.
async fn a_restore_that_is_cancelled_after_its_node_died_leaves_no_lock(world: World) -> Result<()> {
    let shop = world.namespace("dead-lock").await?;
    let claim = shop.claim("data").mib(3).create().await?;
    claim.fill_random(111)?;
    let snapshot = back_up(&shop, &claim).await?;
    world.kill(OTHER).await?;
    let cancelled = async {
        doomed(&world, "WritingNoted").await?;
        let clone = shop.clone_as(&snapshot, "back").await?;
        world.ended(NODE).await?;
        let locks = std::fs::read_dir(world.repository_folder(shop.name()).join("locks"))?.count();
        ensure!(locks == 1, "{locks} locks of a node that died while it wrote");
        let stop = Patch::Merge(json!({"spec": {"cloneCancel": true}}));
        clone.api().patch(&clone.name, &PatchParams::default(), &stop).await?;
        clone.wait_for(ClonePhase::Canceled).await?;
        nothing_left_of_the_dead(&world, &shop, 1).await
    };
    let cancelled = cancelled.await;
    let _ = world.kill(NODE).await; // it has ended, if all went well
    put_right(cancelled, [world.start_process(NODE).await, world.start_process(OTHER).await])
}
