//! Deletes disk snapshots that a killed driver took and nobody will delete: their Snapshot was deleted, or ended, before
//! their Upload was made, or says in local mode that there is no backup. `lifecycle::orphans` says which these are.
//!
//! It looks at the disks of this cluster's volumes, one call a disk and one disk at a time, and gives a disk snapshot
//! [`Sweeps::orphan_grace`](crate::arguments::Sweeps::orphan_grace) by our own clock: the first pass that meets it only
//! remembers it, a later one deletes it if it still has no owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Reason;
use connections::leftovers;
use disk::DiskSnapshot;
use k8s_openapi::api::core::v1::PersistentVolume;
use lifecycle::orphans::{Kind, Taken};
use operator::Note;
use tokio_util::sync::CancellationToken;

use crate::every::every;
use crate::{Context, Error};

/// How long vCenter may refuse for passing reasons; the next pass tries again.
const DELETING: Duration = Duration::from_secs(120);

/// When we first met each disk snapshot that nobody owns.
type Met = HashMap<DiskSnapshot, Instant>;

/// Looks at once, and then so often that a second pass finds the grace over, until `stop`.
pub async fn run(ctx: Arc<Context>, grace: Duration, stop: CancellationToken) {
    let mut met = Met::new();
    let missed = "disk snapshots that nobody owns were not looked for";
    every(grace * 3 / 2, &stop, missed, async || pass(&ctx, grace, &mut met).await).await;
}

/// One pass over all disks.
async fn pass(ctx: &Context, grace: Duration, met: &mut Met) -> Result<(), Error> {
    let disks = leftovers::disks(&ctx.client).await?;
    if disks.is_empty() {
        ctx.metrics.orphans_found(Kind::DiskSnapshot.as_str(), 0);
        return Ok(());
    }
    let centers = ctx.vcenters.centers().await?;
    let (orphans, problems) = leftovers::disk_snapshots(&ctx.client, &centers, &disks, ctx.installation()).await?;
    for problem in problems {
        tracing::warn!(%problem, "disk snapshots that nobody owns were not looked for on all disks");
    }
    ctx.metrics.orphans_found(Kind::DiskSnapshot.as_str(), orphans.len());
    met.retain(|known, _| orphans.iter().any(|orphan| orphan.disk_snapshot == *known));
    for orphan in orphans {
        let since = *met.entry(orphan.disk_snapshot.clone()).or_insert_with(|| first_meeting(&orphan, grace));
        if since.elapsed() >= grace {
            delete(&orphan, disks.get(&orphan.disk_snapshot.disk), ctx).await;
        }
    }
    Ok(())
}

fn first_meeting(orphan: &Taken, grace: Duration) -> Instant {
    let (disk_snapshot, snapshot_uid) = (&orphan.disk_snapshot, &orphan.snapshot_uid);
    tracing::info!(%disk_snapshot, snapshot_uid, ?grace, "nobody owns this disk snapshot; it goes if that stays so");
    Instant::now()
}

/// Deletes one, and says so in the log and in an event of the volume.
async fn delete(orphan: &Taken, volume: Option<&PersistentVolume>, ctx: &Context) {
    let disk_snapshot = &orphan.disk_snapshot;
    let act = format!("delete disk snapshot {disk_snapshot}, which nobody owns");
    let note = match ctx.vcenters.delete_snapshot(&act, disk_snapshot, DELETING).await {
        Ok(deleted) => {
            let snapshot_uid = &orphan.snapshot_uid;
            tracing::info!(%disk_snapshot, snapshot_uid, ?deleted, "deleted a disk snapshot that nobody owned");
            ctx.metrics.orphans_removed(Kind::DiskSnapshot.as_str(), 1);
            let message = format!(
                "deleted disk snapshot {disk_snapshot}: its Snapshot (uid {snapshot_uid}) is gone or has ended, and no \
                 Upload is for it"
            );
            Note { reason: Reason::SnapshotSwept, message, warning: false }
        }
        Err(problem) => {
            tracing::warn!(%disk_snapshot, %problem, "a disk snapshot that nobody owns stays; tried again");
            Note { reason: problem.reason, message: problem.message(), warning: true }
        }
    };
    if let Some(volume) = volume {
        ctx.publisher.note(volume, &note).await;
    }
}
