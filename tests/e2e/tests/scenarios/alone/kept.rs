//! Backups that are kept: their Snapshots and Uploads stay in the cluster for a day, and users make thousands a day. What they
//! cost the driver in memory, and that those that are gone cost it nothing.

use anyhow::{Context as _, Result, ensure};
use api::{Snapshot, SnapshotPhase, Upload, labels};
use e2e::{Claim, Namespace, World, nothing_left};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

crate::scenarios![kept_backups_cost_little_memory_and_those_that_are_gone_none];

/// How many there are, unless the variable says otherwise.
const KEPT: usize = 500;
const VARIABLE: &str = "E2E_KEPT";
/// How often they come and go.
const ROUNDS: usize = 3;
/// Memory that one, a Snapshot and its Upload, may cost the driver, in KiB. It was 50 when each was kept by all who look at it, with the
/// record of who had written which of its fields.
const EACH: u64 = 24;
/// What one that is gone may cost it, in KiB: not nothing, as the allocator's pages are never all full.
const GONE: u64 = 4;
/// Label of what is made here.
const MARK: &str = "e2e/kept";
/// How many requests are under way.
const AT_A_TIME: usize = 32;

/// A backup that was made; the kept ones are made after it.
struct Made {
    snapshot: Snapshot,
    upload: Upload,
}

async fn kept_backups_cost_little_memory_and_those_that_are_gone_none(world: World) -> Result<()> {
    let count = std::env::var(VARIABLE).map_or(Ok(KEPT), |text| text.parse()).context("a number of backups")?;
    let shop = world.namespace("kept").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.write_random(7, 0, 64 << 10)?;
    let made = backed_up(&shop, &claim).await?;
    let before = held(&world, "with one backup").await?;
    let mut with_them = Vec::new();
    for round in 1..=ROUNDS {
        keep(&world, &shop, &made, count).await?;
        backed_up(&shop, &claim).await?; // asked for after them: they have been seen
        with_them.push(held(&world, &format!("round {round}, {count} kept")).await?);
        forget(&world, &shop).await?;
        backed_up(&shop, &claim).await?;
        held(&world, &format!("round {round}, all gone")).await?;
    }
    let (first, last) = (with_them[0], with_them[ROUNDS - 1]);
    let each = first.saturating_sub(before) / count as u64;
    ensure!(each <= EACH, "a kept backup costs the driver {each} KiB, not {EACH}");
    let gone = last.saturating_sub(first) / (count * (ROUNDS - 1)) as u64;
    ensure!(gone <= GONE, "a backup that is gone costs the driver {gone} KiB, not {GONE}");
    nothing_left(&world, &shop, 1 + 2 * ROUNDS).await
}

/// What the driver holds, in KiB; said with what the nodes hold.
async fn held(world: &World, when: &str) -> Result<u64> {
    let [a, b] = super::DATA_MANAGERS;
    let driver = world.own_memory_kib("backup-driver").await?;
    let (a, b) = (world.own_memory_kib(a).await?, world.own_memory_kib(b).await?);
    println!("{when}: {driver} KiB, nodes {a} and {b} KiB");
    Ok(driver)
}

/// A backup from the beginning to the end.
async fn backed_up(shop: &Namespace, claim: &Claim) -> Result<Made> {
    let asked = shop.snapshot(claim).await?;
    let snapshot = asked.wait_for(SnapshotPhase::Uploaded).await?;
    Ok(Made { snapshot, upload: asked.upload().await? })
}

/// Makes so many Snapshots and Uploads that ended as the one did. The Snapshots are of a claim that is not there: where the driver looks
/// before they have their end, it backs nothing up.
async fn keep(world: &World, shop: &Namespace, made: &Made, count: usize) -> Result<()> {
    let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let mut asked = made.snapshot.spec.clone();
    asked.resource_handle.name = "nobodys".to_owned();
    let one = |number: usize| {
        let (snapshots, uploads, asked) = (&snapshots, &uploads, &asked);
        async move {
            let name = format!("kept-{number:04}");
            let snapshot = Snapshot::new(&name, asked.clone());
            let snapshot = snapshots.create(&PostParams::default(), &snapshot).await?;
            let ended = Patch::Merge(json!({ "status": made.snapshot.status }));
            snapshots.patch_status(&name, &PatchParams::default(), &ended).await?;
            let mut upload = Upload::new(&format!("upload-{name}"), made.upload.spec.clone());
            upload.spec.snapshot_reference = Some(format!("{}/{name}", shop.name()));
            let mut marks = made.upload.labels().clone();
            marks.insert(labels::SNAPSHOT_UID.to_owned(), snapshot.uid().context("it has a uid")?);
            marks.insert(MARK.to_owned(), String::new());
            upload.metadata.labels = Some(marks);
            upload.status = made.upload.status.clone();
            uploads.create(&PostParams::default(), &upload).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter((0..count).map(one)).buffer_unordered(AT_A_TIME).try_collect().await
}

/// Deletes them.
async fn forget(world: &World, shop: &Namespace) -> Result<()> {
    let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
    snapshots.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    uploads.delete_collection(&DeleteParams::default(), &ListParams::default().labels(MARK)).await?;
    Ok(())
}
