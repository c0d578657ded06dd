//! Reads what exists for a clone. Writes nothing.

use api::{CloneFromSnapshot, ClonePhase, Download, labels, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifecycle::clone::claims::{self, download_name, scratch_name};
use lifecycle::clone::ownership::was_made_for;
use lifecycle::clone::{Seen, is_ending, volumes};

use crate::{Context, Error};

/// The clone as it is now, and what exists for it.
pub(super) struct Looked {
    pub(super) clone: CloneFromSnapshot,
    pub(super) seen: Seen,
}

/// Reads them; `None` when the clone is gone or another one has its name.
pub(super) async fn observe(known: &CloneFromSnapshot, ctx: &Context) -> Result<Option<Looked>, Error> {
    let clones: Api<CloneFromSnapshot> = Api::namespaced(ctx.client.clone(), &known.namespace().unwrap_or_default());
    let read = clones.get_opt(&known.name_any()).await.map_err(Error::cluster("read the CloneFromSnapshot"))?;
    let Some(clone) = read.filter(|c| c.uid() == known.uid()) else { return Ok(None) };
    if clone.phase().is_some_and(ClonePhase::is_terminal) {
        return Ok(Some(Looked { clone, seen: Seen::default() })); // an end is a fact, whatever exists
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let scratch = claims.get_opt(&scratch_name(&clone)).await.map_err(Error::cluster("read the scratch claim"))?;
    let volume = volume(&clone, scratch.as_ref(), ctx).await?;
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let download = match download_name(&clone) {
        Some(name) => downloads.get_opt(&name).await.map_err(Error::cluster("read the Download"))?,
        None => None,
    };
    let writing = is_ending(&clone) && is_being_written(&clone, ctx).await?;
    let target = target(&clone, ctx).await?;
    let target_volume = target_volume(target.as_ref(), volume.as_ref(), ctx).await?;
    Ok(Some(Looked { seen: Seen { scratch, volume, download, writing, target, target_volume }, clone }))
}

/// Whether a node holds the lease of the clone's Download. One that died loses it within a minute.
async fn is_being_written(clone: &CloneFromSnapshot, ctx: &Context) -> Result<bool, Error> {
    let Some(name) = download_name(clone) else { return Ok(false) };
    Ok(ctx.transfers.held_by_another(&names::download_lease(&name)).await?.is_some())
}

/// The marked volume, else the one the scratch claim is bound to.
async fn volume(
    clone: &CloneFromSnapshot,
    scratch: Option<&PersistentVolumeClaim>,
    ctx: &Context,
) -> Result<Option<PersistentVolume>, Error> {
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let marked = ListParams::default().labels(&format!("{}={}", labels::SCRATCH_FOR, clone.uid().unwrap_or_default()));
    let found = volumes.list(&marked).await.map_err(Error::cluster("list marked volumes"))?;
    if let Some(volume) = found.items.into_iter().next() {
        return Ok(Some(volume));
    }
    let name = scratch.and_then(|s| s.spec.as_ref()?.volume_name.clone()).filter(|n| !n.is_empty());
    match name {
        Some(name) => volumes.get_opt(&name).await.map_err(Error::cluster(format!("read volume {name}"))),
        None => Ok(None),
    }
}

/// The claim of the wanted name; where Velero makes it, the one with the clone's uid in its selector, whatever it is
/// called, before one that only has the name.
async fn target(clone: &CloneFromSnapshot, ctx: &Context) -> Result<Option<PersistentVolumeClaim>, Error> {
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ctx.client.clone(), &clone.namespace().unwrap_or_default());
    let name = claims::name(clone);
    if clone.spec.claim_creator.is_some() {
        let all = claims.list(&ListParams::default()).await.map_err(Error::cluster("list claims"))?;
        let (ours, others): (Vec<_>, Vec<_>) = all.items.into_iter().partition(|claim| was_made_for(clone, claim));
        return Ok(ours.into_iter().chain(others.into_iter().filter(|c| c.metadata.name == name)).next());
    }
    match name.filter(|name| !name.contains(['/', '?', '%', '#'])) {
        Some(name) => claims.get_opt(&name).await.map_err(Error::cluster(format!("read claim {name}"))),
        None => Ok(None), // the API server will say what is wrong with it
    }
}

/// The volume the claim names, where that is not the one at hand.
async fn target_volume(
    target: Option<&PersistentVolumeClaim>,
    at_hand: Option<&PersistentVolume>,
    ctx: &Context,
) -> Result<Option<PersistentVolume>, Error> {
    let Some(name) = target.and_then(volumes::named_by) else { return Ok(None) };
    if at_hand.and_then(|v| v.metadata.name.as_deref()) == Some(name) {
        return Ok(None);
    }
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    volumes.get_opt(name).await.map_err(Error::cluster(format!("read volume {name}")))
}
