//! Deletes disk snapshots that a killed driver took and nobody will delete: their Snapshot was deleted, or ended, before
//! their Upload was made. `lifecycle::orphans` says which these are.
//!
//! It looks at the disks of this cluster's volumes, one call a disk and one disk at a time, and gives a disk snapshot
//! [`Sweeps::orphan_grace`](crate::arguments::Sweeps::orphan_grace) by our own clock: the first pass that meets it only
//! remembers it, a later one deletes it if it still has no owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Reason, Snapshot, Upload};
use connections::from_vsphere;
use disk::{DiskId, DiskSnapshot};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::ListParams;
use lifecycle::Problem;
use lifecycle::orphans::{Taken, find};
use lifecycle::snapshot::disk_of;
use operator::Note;
use tokio_util::sync::CancellationToken;
use vsphere::{ReasonKind, Vcenter};

use crate::{Context, Error};

/// Pause between two calls to vCenter: a pass is never more than ten calls a second.
const BETWEEN_CALLS: Duration = Duration::from_millis(100);
/// Volumes that are listed at a time.
const PAGE: u32 = 500;
/// How long vCenter may refuse for passing reasons; the next pass tries again.
const DELETING: Duration = Duration::from_secs(120);

/// The disks of this cluster, each with its volume's name and no more.
type Disks = HashMap<DiskId, PersistentVolume>;
/// When we first met each disk snapshot that nobody owns.
type Met = HashMap<DiskSnapshot, Instant>;

/// Looks at once, and then so often that a second pass finds the grace over, until `stop`.
pub async fn run(ctx: Arc<Context>, grace: Duration, stop: CancellationToken) {
    let mut met = Met::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            passed = pass(&ctx, grace, &mut met) => if let Err(error) = passed {
                tracing::warn!(error = Problem::chain(&error), "disk snapshots that nobody owns were not looked for");
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(grace * 3 / 2) => {}
        }
    }
}

/// One pass over all disks. Disk snapshots are listed before Snapshots and Uploads: a new one's owner is then listed.
async fn pass(ctx: &Context, grace: Duration, met: &mut Met) -> Result<(), Error> {
    let disks = disks(ctx).await?;
    if disks.is_empty() {
        return Ok(());
    }
    let vcenter = ctx.vcenters.get().await?;
    let taken = taken(&disks, &vcenter, ctx).await?;
    if taken.is_empty() {
        met.clear();
        return Ok(());
    }
    let everything = ListParams::default();
    let snapshots: Api<Snapshot> = Api::all(ctx.client.clone());
    let snapshots = snapshots.list(&everything).await.map_err(Error::cluster("list Snapshots"))?;
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let uploads = uploads.list(&everything).await.map_err(Error::cluster("list Uploads"))?;
    let orphans = find(taken, &snapshots.items, &uploads.items);
    met.retain(|known, _| orphans.iter().any(|orphan| orphan.disk_snapshot == *known));
    for orphan in orphans {
        let since = *met.entry(orphan.disk_snapshot.clone()).or_insert_with(|| first_meeting(&orphan, grace));
        if since.elapsed() >= grace {
            delete(&orphan, disks.get(&orphan.disk_snapshot.disk), &vcenter, ctx).await;
        }
    }
    Ok(())
}

fn first_meeting(orphan: &Taken, grace: Duration) -> Instant {
    let (disk_snapshot, snapshot_uid) = (&orphan.disk_snapshot, &orphan.snapshot_uid);
    tracing::info!(%disk_snapshot, snapshot_uid, ?grace, "nobody owns this disk snapshot; it goes if that stays so");
    Instant::now()
}

/// The disks of our CSI driver's volumes.
async fn disks(ctx: &Context) -> Result<Disks, Error> {
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let (mut found, mut page) = (Disks::new(), ListParams::default().limit(PAGE));
    loop {
        let listed = volumes.list(&page).await.map_err(Error::cluster("list volumes"))?;
        let more = listed.metadata.continue_.clone().filter(|token| !token.is_empty());
        let named = |volume: PersistentVolume| {
            let disk = disk_of(&volume).ok()?; // somebody else's
            Some((disk, PersistentVolume { spec: None, status: None, ..volume }))
        };
        found.extend(listed.items.into_iter().filter_map(named));
        match more {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// The disk snapshots that we took for Uploads. A disk that cannot be looked at is left for the next pass; a vCenter that
/// cannot be reached ends this one.
async fn taken(disks: &Disks, vcenter: &Vcenter, ctx: &Context) -> Result<Vec<Taken>, Error> {
    let mut taken = Vec::new();
    for disk in disks.keys() {
        match vcenter.list_snapshots(disk).await {
            Ok(listed) => taken.extend(listed.into_iter().filter_map(|snapshot| {
                let disk_snapshot = DiskSnapshot { disk: disk.clone(), snapshot: snapshot.id };
                ctx.installation().recognise(disk_snapshot, &snapshot.description)
            })),
            Err(error) if concerns_this_disk(error.reason_kind()) => {
                tracing::debug!(%disk, error = Problem::chain(&error), "its disk snapshots were not looked at");
            }
            Err(error) => return Err(from_vsphere("look for disk snapshots that nobody owns", &error).into()),
        }
        tokio::time::sleep(BETWEEN_CALLS).await;
    }
    Ok(taken)
}

/// Whether the other disks may still be looked at: with wrong credentials every further call would be one refusal more.
fn concerns_this_disk(kind: ReasonKind) -> bool {
    !matches!(
        kind,
        ReasonKind::LoginRefused | ReasonKind::CertificateUntrusted | ReasonKind::Unreachable | ReasonKind::BadConfig
    )
}

/// Deletes one, and says so in the log and in an event of the volume.
async fn delete(orphan: &Taken, volume: Option<&PersistentVolume>, vcenter: &Vcenter, ctx: &Context) {
    let disk_snapshot = &orphan.disk_snapshot;
    let note = match vcenter.delete_snapshot(disk_snapshot, DELETING).await {
        Ok(deleted) => {
            let snapshot_uid = &orphan.snapshot_uid;
            tracing::info!(%disk_snapshot, snapshot_uid, ?deleted, "deleted a disk snapshot that nobody owned");
            let message = format!(
                "deleted disk snapshot {disk_snapshot}: its Snapshot (uid {snapshot_uid}) is gone or has ended, and no \
                 Upload is for it"
            );
            Note { reason: Reason::SnapshotSwept, message, warning: false }
        }
        Err(error) => {
            let problem = from_vsphere(&format!("delete disk snapshot {disk_snapshot}, which nobody owns"), &error);
            tracing::warn!(%disk_snapshot, %problem, "a disk snapshot that nobody owns stays; tried again");
            Note { reason: problem.reason, message: problem.message(), warning: true }
        }
    };
    if let Some(volume) = volume {
        ctx.publisher.note(volume, &note).await;
    }
}
