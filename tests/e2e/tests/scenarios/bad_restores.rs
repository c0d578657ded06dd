//! Restores that cannot be met, or could do harm: each ends with a reason, and nobody's data is touched.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use api::conditions::{self, PROCEEDS};
use api::entity::{DiskEntity, PvcSnapshotId};
use api::{CloneFromSnapshot, ClonePhase, Download, DownloadPhase, DownloadSpec, Reason, labels};
use disk::DiskSnapshot;
use e2e::{Claim, DEADLINE, Namespace, World, explained, insist, nothing_left, wait_until};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use uuid::Uuid;

use super::bad_input::{back_up, disk_snapshot};

crate::scenarios![
    a_restore_into_a_smaller_disk_leaves_it_untouched,
    a_restore_of_a_missing_restore_point_makes_no_volume,
    a_restore_without_a_repository_makes_no_volume,
    a_restore_of_a_lost_restore_point_makes_no_volume,
    a_restore_of_a_damaged_restore_point_leaves_no_half_written_claim,
    a_restore_never_overwrites_a_claim,
    a_restore_whose_claim_a_quota_refuses_keeps_its_data_and_goes_on_once_there_is_room,
    a_restore_onto_a_used_disk_leaves_nothing_of_what_was_there,
];

async fn a_restore_into_a_smaller_disk_leaves_it_untouched(world: World) -> Result<()> {
    let shop = world.namespace("small").await?;
    let claim = shop.claim("data").mib(8).create().await?;
    claim.fill_random(42)?;
    let source = disk_snapshot(&back_up(&shop, &claim).await?)?;
    let target = shop.claim("small").mib(4).create().await?;
    target.fill_random(43)?;
    let before = target.digest()?;
    let spec = DownloadSpec {
        snapshot_id: Some(DiskEntity::from(source.clone()).to_string()),
        protected_entity_id: Some(DiskEntity::from(target.disk.clone()).to_string()),
        backup_repository_name: Some(shop.repository().to_owned()),
        source_namespace: Some(shop.name().to_owned()),
        ..DownloadSpec::default()
    };
    let api: Api<Download> = Api::namespaced(world.client(), world.velero());
    let name = api::names::download(&source.snapshot, Uuid::new_v4());
    api.create(&PostParams::default(), &Download::new(&name, spec)).await?;
    let ended = wait_until(&api, &name, DEADLINE, "has ended", |d| {
        d.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
    })
    .await?;
    let status = ended.and_then(|d| d.status).context("status")?;
    ensure!(status.phase == Some(DownloadPhase::Failed), "it is {status:#?}");
    let (needs, has) = (claim.size()?.to_string(), target.size()?.to_string());
    let words = [needs.as_str(), has.as_str(), Reason::TargetTooSmall.fix()];
    explained(&world, world.velero(), &name, &status.conditions, Reason::TargetTooSmall, &words).await?;
    ensure!(target.digest()? == before, "the disk was written to");
    nothing_left(&world, &shop, 1).await
}

/// The clone fails for that reason; no scratch claim ever existed, and no claim of that name.
async fn no_volume_was_made(
    world: &World,
    shop: &Namespace,
    clone: impl Future<Output = Result<e2e::Clone>>,
    reason: Reason,
    points: usize,
) -> Result<()> {
    let scratch: Api<PersistentVolumeClaim> = Api::namespaced(world.client(), world.velero());
    let before = scratch.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let clone = clone.await?;
    let seen = clone.wait_for(ClonePhase::Failed).await?;
    let conditions = seen.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    explained(world, shop.name(), &clone.name, &conditions, reason, &[reason.fix()]).await?;
    let name = format!("restore-{}", seen.uid().context("a uid")?);
    let history = scratch.watch(&WatchParams::default().timeout(2), &before).await?.boxed();
    let events: Vec<_> = history.try_collect().await?;
    let made = events.iter().any(|e| matches!(e, WatchEvent::Added(claim) if claim.name_any() == name));
    ensure!(!made, "a scratch claim was made although nothing can be restored");
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made");
    nothing_left(world, shop, points).await
}

async fn a_restore_of_a_missing_restore_point_makes_no_volume(world: World) -> Result<()> {
    let shop = world.namespace("nopoint").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(44)?;
    let mut snapshot = back_up(&shop, &claim).await?;
    forge_id(&mut snapshot, &claim)?;
    let clone = shop.clone_as(&snapshot, "back");
    no_volume_was_made(&world, &shop, clone, Reason::RestorePointMissing, 1).await
}

async fn a_restore_without_a_repository_makes_no_volume(world: World) -> Result<()> {
    let shop = world.namespace("neverbacked").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let wanted = PersistentVolumeClaim {
        metadata: kube::core::ObjectMeta { name: Some("back".to_owned()), ..Default::default() },
        ..shop.claims().get("data").await?
    };
    let id = PvcSnapshotId {
        namespace: shop.name().to_owned(),
        claim: claim.name.clone(),
        disk_snapshot: DiskSnapshot { disk: claim.disk.clone(), snapshot: Uuid::new_v4().to_string().parse()? },
    };
    let id = id.to_string();
    let clone = shop.clone_with(&id, &wanted, shop.repository());
    no_volume_was_made(&world, &shop, clone, Reason::RepositoryMissing, 0).await
}

/// Makes a Snapshot name a disk snapshot that never was.
fn forge_id(snapshot: &mut api::Snapshot, claim: &Claim) -> Result<()> {
    let id = PvcSnapshotId {
        namespace: claim.namespace.clone(),
        claim: claim.name.clone(),
        disk_snapshot: DiskSnapshot { disk: claim.disk.clone(), snapshot: Uuid::new_v4().to_string().parse()? },
    };
    snapshot.status.as_mut().context("status")?.snapshot_id = Some(id.to_string());
    Ok(())
}

async fn a_restore_of_a_lost_restore_point_makes_no_volume(world: World) -> Result<()> {
    let shop = world.namespace("lost").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(45)?;
    let snapshot = back_up(&shop, &claim).await?;
    for pack in packs(&world, &shop)? {
        std::fs::remove_file(pack)?;
    }
    let clone = shop.clone_as(&snapshot, "back");
    no_volume_was_made(&world, &shop, clone, Reason::RestorePointDamaged, 1).await
}

async fn a_restore_of_a_damaged_restore_point_leaves_no_half_written_claim(world: World) -> Result<()> {
    let shop = world.namespace("damaged").await?;
    let claim = shop.claim("data").mib(8).create().await?;
    claim.fill_random(46)?;
    let snapshot = back_up(&shop, &claim).await?;
    let mut sizes = Vec::new();
    for pack in packs(&world, &shop)? {
        sizes.push((std::fs::metadata(&pack)?.len(), pack));
    }
    let (size, pack) = sizes.into_iter().max().context("a pack")?;
    flip(&pack, size / 2)?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let seen = clone.wait_for(ClonePhase::Failed).await?;
    let conditions = seen.status.map(|s| s.conditions).unwrap_or_default();
    let words = [Reason::RestorePointDamaged.fix(), " bytes at "]; // which of the disk are lost
    explained(&world, shop.name(), &clone.name, &conditions, Reason::RestorePointDamaged, &words).await?;
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim with half of the data was made");
    nothing_left(&world, &shop, 1).await
}

/// The packs of a namespace's repository, on the S3 server's own disk.
fn packs(world: &World, shop: &Namespace) -> Result<Vec<PathBuf>> {
    let mut packs = Vec::new();
    for folder in std::fs::read_dir(world.repository_folder(shop.name()).join("data"))? {
        let folder = folder?;
        if folder.file_type()?.is_dir() {
            for pack in std::fs::read_dir(folder.path())? {
                packs.push(pack?.path());
            }
        }
    }
    ensure!(!packs.is_empty(), "a backup has packs");
    Ok(packs)
}

fn flip(file: &std::path::Path, at: u64) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[!byte[0]], at)?;
    Ok(())
}

async fn a_restore_never_overwrites_a_claim(world: World) -> Result<()> {
    let shop = world.namespace("exists").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(47)?;
    let snapshot = back_up(&shop, &claim).await?;
    claim.fill_random(48)?; // what the application has written since
    let (before, uid) = (claim.digest()?, shop.claims().get("data").await?.uid());
    let clone = shop.clone_as(&snapshot, "data").await?;
    let seen = clone.wait_for(ClonePhase::Failed).await?;
    let conditions = seen.status.map(|s| s.conditions).unwrap_or_default();
    let words = ["data is already there", Reason::ClaimExists.fix()];
    explained(&world, shop.name(), &clone.name, &conditions, Reason::ClaimExists, &words).await?;
    ensure!(claim.digest()? == before, "the claim's data was overwritten");
    ensure!(shop.claims().get("data").await?.uid() == uid, "the claim was replaced");
    nothing_left(&world, &shop, 1).await
}

async fn a_restore_whose_claim_a_quota_refuses_keeps_its_data_and_goes_on_once_there_is_room(
    world: World,
) -> Result<()> {
    let shop = world.namespace("quota").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(49)?;
    let snapshot = back_up(&shop, &claim).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client(), shop.name());
    let quota = serde_json::from_value(json!({
        "metadata": {"name": "one-claim"}, "spec": {"hard": {"persistentvolumeclaims": "1"}},
    }))?;
    quotas.create(&PostParams::default(), &quota).await?;
    // in place of the controller that counts, which the lab has not; it is the API server that refuses
    let one = json!({"persistentvolumeclaims": "1"});
    let counted = Patch::Merge(json!({"status": {"hard": one, "used": one}}));
    quotas.patch_status("one-claim", &PatchParams::default(), &counted).await?;
    let mut another = shop.claims().get("data").await?;
    another.metadata = kube::core::ObjectMeta { name: Some("another".to_owned()), ..Default::default() };
    let another = PersistentVolumeClaim { status: None, ..another };
    insist("see the quota at work", || async {
        let tried = shop.claims().create(&PostParams { dry_run: true, ..PostParams::default() }, &another).await;
        let refused = matches!(&tried, Err(kube::Error::Api(why)) if why.message.contains("exceeded quota"));
        ensure!(refused, "another claim would be taken, or refused for another reason: {tried:?}");
        Ok(())
    })
    .await?;

    let clone = shop.clone_as(&snapshot, "back").await?;
    let refused = |c: Option<&CloneFromSnapshot>| {
        c.and_then(|c| c.status.as_ref()).is_some_and(|s| conditions::get(&s.conditions, PROCEEDS).is_some())
    };
    let waits = wait_until(&clone.api(), &clone.name, DEADLINE, "says that the quota is in its way", refused).await?;
    let all = waits.and_then(|c| c.status).context("a status")?.conditions;
    let words = ["exceeded quota: one-claim", "Raise that ResourceQuota"];
    explained(&world, shop.name(), &clone.name, &all, Reason::ClusterForbidden, &words).await?;
    quotas.delete("one-claim", &DeleteParams::default()).await?;

    let done = clone.wait_for(ClonePhase::Completed).await?;
    let all = done.status.context("a status")?.conditions;
    ensure!(conditions::get(&all, PROCEEDS).is_none(), "it says still that it does not go on: {all:?}");
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "it came back different");
    nothing_left(&world, &shop, 1).await
}

async fn a_restore_onto_a_used_disk_leaves_nothing_of_what_was_there(world: World) -> Result<()> {
    let shop = world.namespace("used").await?;
    let claim = shop.claim("data").mib(16).create().await?;
    claim.write_random(59, 3 << 20, 1 << 20)?; // holes all around
    let snapshot = back_up(&shop, &claim).await?;
    let source = disk_snapshot(&snapshot)?;
    let clone = shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let target = shop.claim("used").mib(16).create().await?;
    target.fill_random(60)?;
    let spec = DownloadSpec {
        snapshot_id: Some(DiskEntity::from(source.clone()).to_string()),
        protected_entity_id: Some(DiskEntity::from(target.disk.clone()).to_string()),
        backup_repository_name: Some(shop.repository().to_owned()),
        source_namespace: Some(shop.name().to_owned()),
        clone_from_snapshot_reference: Some(format!("{}/{}", shop.name(), clone.name_any())),
        ..DownloadSpec::default()
    };
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let name = api::names::download(&source.snapshot, Uuid::new_v4());
    let mut marked = Download::new(&name, spec);
    // its word alone, that the disk was made for this restore, must not be believed
    marked.metadata.labels = clone.uid().map(|uid| [(labels::SCRATCH_FOR.to_owned(), uid)].into());
    downloads.create(&PostParams::default(), &marked).await?;
    let seen = wait_until(&downloads, &name, DEADLINE, "has ended", |d| {
        d.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
    })
    .await?;
    let phase = seen.as_ref().and_then(Download::phase).cloned();
    ensure!(phase == Some(DownloadPhase::Completed), "it is {:#?}", seen.and_then(|d| d.status));
    ensure!(target.digest()? == claim.digest()?, "what was on the disk before is still there");
    downloads.delete(&name, &DeleteParams::default()).await?;
    nothing_left(&world, &shop, 1).await
}
