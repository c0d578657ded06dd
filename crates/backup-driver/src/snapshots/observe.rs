//! Reads what exists for a Snapshot. Writes nothing.

use std::sync::Arc;

use api::entity::EntityId;
use api::{Snapshot, Upload, labels, names};
use disk::DiskSnapshot;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use lifecycle::snapshot::{has_begun, is_upload_of};

use crate::{Context, Error};

/// What exists.
pub(super) struct Seen {
    /// The Snapshot, no older than our own last write.
    pub(super) snapshot: Snapshot,
    /// The Upload that was made for it.
    pub(super) upload: Option<Upload>,
}

/// Finds the Upload of a Snapshot.
pub(super) async fn observe(known: &Snapshot, ctx: &Context) -> Result<Seen, Error> {
    let ended = known.phase().is_some_and(api::SnapshotPhase::is_terminal);
    let shown = if ended { None } else { shown(known, ctx) };
    let upload = match shown {
        Some(upload) => Some(upload.as_ref().clone()),
        // the watch may lag behind our own work
        None if !ended && has_begun(known) => upload_of(known, ctx).await?,
        None => None,
    };
    Ok(Seen { snapshot: known.clone(), upload })
}

/// The Upload of a Snapshot as the watch shows it.
fn shown(snapshot: &Snapshot, ctx: &Context) -> Option<Arc<Upload>> {
    let uploads = ctx.uploads.objects();
    let named = disk_snapshot_of(snapshot);
    let named = named.and_then(|s| uploads.get(&ObjectRef::new(&names::upload(&s.snapshot)).within(&ctx.namespace)));
    named.filter(|u| is_upload_of(u, snapshot)).or_else(|| uploads.find(|u| is_upload_of(u, snapshot)))
}

/// Whether the Snapshot is still as the watch shows it; every change comes as an event.
pub(super) async fn is_unchanged(known: &Snapshot, ctx: &Context) -> Result<bool, Error> {
    let snapshots: Api<Snapshot> = Api::namespaced(ctx.client.clone(), &known.namespace().unwrap_or_default());
    let now = snapshots.get_opt(&known.name_any()).await.map_err(Error::cluster("read the Snapshot"))?;
    Ok(now.is_some_and(|now| now.resource_version() == known.resource_version()))
}

fn disk_snapshot_of(snapshot: &Snapshot) -> Option<DiskSnapshot> {
    let id = snapshot.status.as_ref()?.snapshot_id.as_deref()?;
    id.parse::<EntityId>().ok()?.disk_snapshot().ok()
}

/// The Upload made for a Snapshot as it is now: by its name where the Snapshot says which, else by its label. One that the original
/// made, which has no label, is shown: it was there before us.
async fn upload_of(snapshot: &Snapshot, ctx: &Context) -> Result<Option<Upload>, Error> {
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    if let Some(taken) = disk_snapshot_of(snapshot) {
        let found =
            uploads.get_opt(&names::upload(&taken.snapshot)).await.map_err(Error::cluster("read the Upload"))?;
        return Ok(found.filter(|u| is_upload_of(u, snapshot)));
    }
    // all of them may be thousands
    let labelled = format!("{}={}", labels::SNAPSHOT_UID, snapshot.uid().unwrap_or_default());
    let found = uploads.list(&ListParams::default().labels(&labelled)).await;
    let found = found.map_err(Error::cluster("look for the Upload of a Snapshot"))?;
    Ok(found.items.into_iter().find(|u| is_upload_of(u, snapshot)))
}

/// The claim a Snapshot names, and the volume it is bound to.
pub(super) async fn claim_and_volume(
    snapshot: &Snapshot,
    ctx: &Context,
) -> Result<(Option<PersistentVolumeClaim>, Option<PersistentVolume>), Error> {
    let Some(claim) = claim(snapshot, ctx).await? else { return Ok((None, None)) };
    let Some(name) = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| !n.is_empty()) else {
        return Ok((Some(claim), None));
    };
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let volume = volumes.get_opt(&name).await.map_err(Error::cluster(format!("read volume {name}")))?;
    Ok((Some(claim), volume))
}

/// The claim a Snapshot names. A name that no object can have names nothing.
pub(super) async fn claim(snapshot: &Snapshot, ctx: &Context) -> Result<Option<PersistentVolumeClaim>, Error> {
    let handle = &snapshot.spec.resource_handle;
    if !handle.is_claim() || !names::is_object_name(&handle.name) {
        return Ok(None);
    }
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ctx.client.clone(), &snapshot.namespace().unwrap_or_default());
    claims.get_opt(&handle.name).await.map_err(Error::cluster(format!("read claim {}", handle.name)))
}
