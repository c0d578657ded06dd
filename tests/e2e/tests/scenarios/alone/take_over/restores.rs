//! Restores that the original has left: its Downloads write the disks of claims that are there, and that somebody may use by now.

use anyhow::{Context as _, Result, ensure};
use api::entity::DiskEntity;
use api::{CloneFromSnapshot, ClonePhase, Download, DownloadPhase, DownloadSpec, Reason, names};
use disk::DiskSnapshot;
use e2e::{Claim, DEADLINE, Namespace, World, delete_if_there, explained, nothing_left, wait_until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use uuid::Uuid;

use super::{DRIVER, LONG_AGO, without_nulls};
use crate::alone::{DATA_MANAGERS, back_up};
use crate::bad_input::disk_snapshot;

crate::scenarios![a_restore_that_the_original_has_left_overwrites_no_disk_of_a_claim];

/// How the clone of such a restore stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Of {
    /// The original has given it up, and goes on all the same (W-02).
    Failed,
    /// Somebody has deleted it.
    Gone,
    /// The original was in the middle of it.
    Begun,
}

/// Phases in which the original leaves a Download, each with its clone in every state.
const LEFT: [(&str, Of); 9] = [
    ("New", Of::Failed),
    ("New", Of::Gone),
    ("New", Of::Begun),
    ("InProgress", Of::Failed),
    ("InProgress", Of::Gone),
    ("InProgress", Of::Begun),
    ("Retry", Of::Failed),
    ("Retry", Of::Gone),
    ("Retry", Of::Begun),
];

/// One restore that is left, onto the disk of a claim that no machine has attached at the moment.
struct Left {
    claim: Claim,
    /// What is on the disk.
    digest: String,
    phase: &'static str,
    of: Of,
    clone: String,
    download: String,
}

async fn a_restore_that_the_original_has_left_overwrites_no_disk_of_a_claim(world: World) -> Result<()> {
    let shop = world.namespace("leftback").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(620)?;
    let old = back_up(&shop, &claim).await?;
    let mut live = Vec::new();
    for number in 0..LEFT.len() {
        let claim = shop.claim(&format!("live-{number}")).mib(2).create().await?;
        claim.fill_random(621 + number as u64)?;
        live.push(claim);
    }
    let by_hand = shop.claim("by-hand").mib(2).create().await?;
    by_hand.fill_random(640)?;

    for process in DATA_MANAGERS.into_iter().chain([DRIVER]) {
        world.kill(process).await?;
    }
    let mut all = Vec::new();
    for ((phase, of), claim) in LEFT.into_iter().zip(live) {
        all.push(Left::put(&world, &shop, &old, claim, phase, of).await?);
    }
    let asked = asked_by_hand(&world, &shop, &disk_snapshot(&old)?, &by_hand).await?;
    // nodes that are there before the driver take none of them, and what somebody asked for by hand as ever
    for process in DATA_MANAGERS {
        world.start_process(process).await?;
    }
    let seen = ended(&world, &asked).await?;
    ensure!(seen.phase() == Some(&DownloadPhase::Completed), "made by hand, it is {:#?}", seen.status);
    ensure!(by_hand.digest()? == claim.digest()?, "what was asked for by hand is not there");
    for left in &all {
        left.is_as_it_was(&world).await.with_context(|| format!("before the driver, {left}"))?;
    }
    world.start_process(DRIVER).await?;
    for left in &all {
        left.has_ended(&world, &shop).await.with_context(|| left.to_string())?;
    }

    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    for left in &all {
        delete_if_there(&leases, &names::download_lease(&left.download)).await?;
    }
    nothing_left(&world, &shop, 1).await
}

/// A Download that names no clone, as the documents tell.
async fn asked_by_hand(world: &World, shop: &Namespace, source: &DiskSnapshot, onto: &Claim) -> Result<String> {
    let spec = DownloadSpec {
        snapshot_id: Some(DiskEntity::from(source.clone()).to_string()),
        protected_entity_id: Some(DiskEntity::from(onto.disk.clone()).to_string()),
        backup_repository_name: Some(shop.repository().to_owned()),
        source_namespace: Some(shop.name().to_owned()),
        ..DownloadSpec::default()
    };
    let name = names::download(&source.snapshot, Uuid::new_v4());
    downloads(world).create(&PostParams::default(), &Download::new(&name, spec)).await?;
    Ok(name)
}

fn downloads(world: &World) -> Api<Download> {
    Api::namespaced(world.client(), world.velero())
}

async fn ended(world: &World, name: &str) -> Result<Download> {
    let has_ended = |seen: Option<&Download>| seen.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal);
    wait_until(&downloads(world), name, DEADLINE, "has ended", has_ended).await?.context("a Download")
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "left {} onto claim {}, its clone {:?}", self.phase, self.claim.name, self.of)
    }
}

impl Left {
    /// Writes Download, lease and clone as the original does: without a label that tells whose they are.
    async fn put(
        world: &World,
        shop: &Namespace,
        old: &api::Snapshot,
        claim: Claim,
        phase: &'static str,
        of: Of,
    ) -> Result<Self> {
        let clone = match of {
            Of::Gone => Uuid::new_v4().to_string(),
            Of::Failed | Of::Begun => shop.clone_as(old, &claim.name).await?.name,
        };
        let stands = match of {
            Of::Gone => None,
            Of::Failed => Some(json!({"status": {"phase": "Failed", "message": "Timed out"}})),
            Of::Begun => Some(json!({"status": {"phase": "InProgress"}})),
        };
        if let Some(stands) = stands {
            shop.clones().patch_status(&clone, &PatchParams::default(), &Patch::Merge(stands)).await?;
        }
        let source = disk_snapshot(old)?;
        let name = names::download(&source.snapshot, Uuid::new_v4());
        let (begun, failed) = (phase != "New", phase == "Retry");
        let download: Download = serde_json::from_value(json!({
            "apiVersion": "datamover.cnsdp.vmware.com/v1alpha1", "kind": "Download",
            "metadata": {"name": name, "labels": {"velero.io/exclude-from-backup": "true"}},
            "spec": {
                "snapshotID": format!("ivd:{source}"), "restoreTimestamp": LONG_AGO,
                "protectedEntityID": format!("ivd:{}", claim.disk), "backupRepositoryName": shop.repository(),
                "clonefromSnapshotReference": format!("{}/{clone}", shop.name()),
            },
            "status": without_nulls(&json!({
                "phase": phase, "progress": {}, "nextRetryTimestamp": LONG_AGO,
                "startTimestamp": begun.then_some(LONG_AGO), "processingNode": begun.then_some("node-a"),
                "retryCount": failed.then_some(2), "message": failed.then_some("Failed to download snapshot"),
            })),
        }))?;
        downloads(world).create(&PostParams::default(), &download).await?;
        if begun {
            // nodes keep their names, and the original gives no lease back (W-07)
            let lease = json!({
                "metadata": {"name": names::download_lease(&name)},
                "spec": {
                    "holderIdentity": "node-a", "leaseDurationSeconds": 60, "renewTime": "2026-01-05T09:20:02.000000Z",
                },
            });
            let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
            leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
        }
        Ok(Self { digest: claim.digest()?, claim, phase, of, clone, download: name })
    }

    async fn is_as_it_was(&self, world: &World) -> Result<()> {
        let seen = downloads(world).get(&self.download).await?;
        ensure!(seen.phase() == Some(&DownloadPhase::from(self.phase)), "a node took it: {:#?}", seen.status);
        ensure!(self.claim.digest()? == self.digest, "the disk was written to");
        Ok(())
    }

    async fn has_ended(&self, world: &World, shop: &Namespace) -> Result<()> {
        let status = ended(world, &self.download).await?.status.context("a status")?;
        ensure!(status.phase == Some(DownloadPhase::Failed), "it is {status:#?}");
        ensure!(status.completion_timestamp.is_some(), "the original dies of an end without a time: {status:#?}");
        let (disk, clone) = (format!("ivd:{}", self.claim.disk), format!("{}/{}", shop.name(), self.clone));
        let words = [disk.as_str(), clone.as_str(), "Restore again", Reason::BegunByOriginal.fix()];
        let told = status.message.clone().unwrap_or_default();
        ensure!(words.iter().all(|word| told.contains(word)), "its message is {told}");
        explained(world, world.velero(), &self.download, &status.conditions, Reason::BegunByOriginal, &words).await?;
        if self.of == Of::Begun {
            let is_over = |seen: Option<&CloneFromSnapshot>| {
                seen.and_then(CloneFromSnapshot::phase).is_some_and(ClonePhase::is_terminal)
            };
            let seen = wait_until(&shop.clones(), &self.clone, DEADLINE, "has ended", is_over).await?;
            let seen = seen.context("a clone")?;
            ensure!(seen.phase() == Some(&ClonePhase::Failed), "its clone is {:#?}", seen.status);
        }
        ensure!(self.claim.digest()? == self.digest, "the disk was written to");
        Ok(())
    }
}
