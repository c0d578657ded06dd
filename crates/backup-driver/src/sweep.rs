//! Removes what clones that were deleted in the middle have left: a clone has no finalizer, because deleting a namespace
//! must never hang. What belongs to a clone carries its uid; where no clone has that uid, it goes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::{CloneFromSnapshot, Download, labels, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use tokio_util::sync::CancellationToken;

use crate::clones::{delete, doom, settle_volume};
use crate::{Context, Error};

/// Pause between two looks at a node that was asked to stop writing; it sends no event.
const LETTING_GO: Duration = Duration::from_millis(500);
/// Pause between two sweeps.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps at once and then every minute, until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    loop {
        if let Err(error) = sweep(&ctx).await {
            tracing::warn!(error = Problem::chain(&error), "the sweep of deleted restores did not finish");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One sweep. What is there is listed before the clones are, so that a new clone's first object is never taken for left.
pub async fn sweep(ctx: &Context) -> Result<(), Error> {
    let marked = ListParams::default().labels(labels::SCRATCH_FOR);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let claims = claims.list(&marked).await.map_err(Error::cluster("list scratch claims"))?;
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let downloads = downloads.list(&marked).await.map_err(Error::cluster("list Downloads"))?;
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let volumes = volumes.list(&marked).await.map_err(Error::cluster("list marked volumes"))?;
    if claims.items.is_empty() && downloads.items.is_empty() && volumes.items.is_empty() {
        return Ok(());
    }
    let clones: Api<CloneFromSnapshot> = Api::all(ctx.client.clone());
    let clones = clones.list(&ListParams::default()).await.map_err(Error::cluster("list CloneFromSnapshots"))?;
    let alive: HashSet<String> = clones.items.iter().filter_map(ResourceExt::uid).collect();
    let left = |uid: Option<&String>| uid.is_some_and(|uid| !alive.contains(uid));

    for download in downloads.items.iter().filter(|d| left(d.labels().get(labels::SCRATCH_FOR))) {
        tracing::info!(download = download.name_any(), "its CloneFromSnapshot was deleted; deleting the Download");
        delete::<Download>(ctx, &ctx.namespace, &download.name_any()).await?;
        await_node(&download.name_any(), ctx).await?;
    }
    for claim in claims.items.iter().filter(|c| left(c.labels().get(labels::SCRATCH_FOR))) {
        tracing::info!(claim = claim.name_any(), "its CloneFromSnapshot was deleted; deleting the scratch claim");
        let marked_volume = volumes
            .items
            .iter()
            .find(|v| v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.uid.clone()) == claim.uid());
        if let Some(volume) = marked_volume {
            doom(volume, &claim.labels()[labels::SCRATCH_FOR], ctx).await?;
        }
        delete::<PersistentVolumeClaim>(ctx, &ctx.namespace, &claim.name_any()).await?;
    }
    for volume in volumes.items.iter().filter(|v| left(v.labels().get(labels::SCRATCH_FOR))) {
        end_volume(volume, ctx).await?;
    }
    Ok(())
}

/// Waits until no node holds the lease of a deleted Download: a volume must not go while it is written. A node that
/// died loses its lease within a minute.
async fn await_node(download: &str, ctx: &Context) -> Result<(), Error> {
    let lease = names::download_lease(download);
    while ctx.transfers.held_by_another(&lease).await?.is_some() {
        tokio::time::sleep(LETTING_GO).await;
    }
    Ok(())
}

/// A volume that is bound to somebody's claim is theirs by now; any other goes.
async fn end_volume(volume: &PersistentVolume, ctx: &Context) -> Result<(), Error> {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    let to = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.namespace.clone());
    let is_users = phase == Some("Bound") && to.as_deref() != Some(ctx.namespace.as_str());
    tracing::info!(volume = volume.name_any(), is_users, "its CloneFromSnapshot was deleted in the middle");
    match is_users {
        true => settle_volume(volume, ctx).await,
        false => doom(volume, &volume.labels()[labels::SCRATCH_FOR], ctx).await,
    }
}
