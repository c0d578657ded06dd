//! Reads what exists for a Snapshot. Writes nothing.

use api::entity::EntityId;
use api::{Snapshot, Upload, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifecycle::snapshot::is_upload_of;

use crate::{Context, Error};

/// What exists.
pub(super) struct Seen {
    /// The Snapshot as it is now: a look may be older than our own last write.
    pub(super) snapshot: Snapshot,
    /// The Upload that was made for it.
    pub(super) upload: Option<Upload>,
}

/// Reads Snapshot and Upload; `None` when the Snapshot is gone or another one has its name.
pub(super) async fn observe(known: &Snapshot, ctx: &Context) -> Result<Option<Seen>, Error> {
    let snapshots: Api<Snapshot> = Api::namespaced(ctx.client.clone(), &known.namespace().unwrap_or_default());
    let read = snapshots.get_opt(&known.name_any()).await.map_err(Error::cluster("read the Snapshot"))?;
    let Some(snapshot) = read.filter(|s| s.uid() == known.uid()) else { return Ok(None) };
    let ended = snapshot.phase().is_some_and(api::SnapshotPhase::is_terminal);
    let upload = if ended { None } else { upload_of(&snapshot, ctx).await? };
    Ok(Some(Seen { snapshot, upload }))
}

/// The Upload made for a Snapshot: by its name where the Snapshot says which, else by its label or reference.
async fn upload_of(snapshot: &Snapshot, ctx: &Context) -> Result<Option<Upload>, Error> {
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.as_deref());
    if let Some(taken) = id.and_then(|id| id.parse::<EntityId>().ok()?.disk_snapshot().ok()) {
        let found =
            uploads.get_opt(&names::upload(&taken.snapshot)).await.map_err(Error::cluster("read the Upload"))?;
        return Ok(found.filter(|u| is_upload_of(u, snapshot)));
    }
    let all = uploads.list(&ListParams::default()).await.map_err(Error::cluster("list Uploads"))?;
    Ok(all.items.into_iter().find(|u| is_upload_of(u, snapshot)))
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

/// The claim a Snapshot names. A name that the API server would refuse names nothing.
pub(super) async fn claim(snapshot: &Snapshot, ctx: &Context) -> Result<Option<PersistentVolumeClaim>, Error> {
    let handle = &snapshot.spec.resource_handle;
    if !handle.is_claim() || handle.name.is_empty() || handle.name.contains(['/', '?', '%', '#']) {
        return Ok(None);
    }
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ctx.client.clone(), &snapshot.namespace().unwrap_or_default());
    claims.get_opt(&handle.name).await.map_err(Error::cluster(format!("read claim {}", handle.name)))
}
