//! Removes what clones that were deleted in the middle have left: a clone has no finalizer, because deleting a namespace
//! must never hang. What belongs to a clone carries its uid; where no clone has that uid, it goes.
//!
//! A deletion is seen at once; a look every minute finds what was missed. What one clone has left is removed apart from
//! the others': a node that does not stop writing holds up nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{CloneFromSnapshot, Download, Reason, labels, names};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::transfer::STOPPING;
use operator::Note;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clones::{delete, doom, settle_volume};
use crate::{Context, Error, leases};

/// Pause between two looks at a node that was asked to stop writing; it sends no event.
const LETTING_GO: Duration = Duration::from_millis(500);

/// What a deleted clone has left.
#[derive(Default)]
struct Left {
    downloads: Vec<Download>,
    claims: Vec<PersistentVolumeClaim>,
    volumes: Vec<PersistentVolume>,
}

/// Sweeps at once, whenever a clone is deleted, and every `every`, until `stop`.
pub async fn run(ctx: Arc<Context>, every: Duration, stop: CancellationToken) {
    tokio::select! {
        () = sweeping(&ctx, every, &stop) => {}
        never = follow_deletions(&ctx) => match never {},
    }
}

async fn sweeping(ctx: &Arc<Context>, every: Duration, stop: &CancellationToken) {
    let mut removing = JoinSet::new();
    let mut under_way: HashMap<String, AbortHandle> = HashMap::new();
    while !stop.is_cancelled() {
        while removing.try_join_next().is_some() {}
        under_way.retain(|_, task| !task.is_finished());
        match left(ctx).await {
            Ok(left) => {
                for (uid, left) in left.into_iter().filter(|(uid, _)| !under_way.contains_key(uid)).collect::<Vec<_>>()
                {
                    under_way.insert(uid.clone(), removing.spawn(remove(uid, left, ctx.clone())));
                }
            }
            Err(error) => {
                tracing::warn!(error = Problem::chain(&error), "what deleted restores have left was not looked for");
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = ctx.clone_gone.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
    removing.shutdown().await; // the next start takes it up
}

/// Has a sweep follow each deletion of a clone: a controller is told nothing about objects that are gone.
async fn follow_deletions(ctx: &Context) -> Infallible {
    let clones: Api<PartialObjectMeta<CloneFromSnapshot>> = Api::all(ctx.client.clone());
    let mut events = pin!(watcher(clones, operator::client::watching()).default_backoff());
    loop {
        match events.next().await.expect("a watch goes on for ever, and its pauses too") {
            Ok(watcher::Event::Delete(clone)) => {
                // it may have failed last, and nobody looks at it again
                let uid = clone.uid().unwrap_or_default();
                ctx.pace.forget(&uid);
                ctx.pauses.forget_all(&uid);
                ctx.clone_gone.notify_one();
            }
            // a watch that begins anew is not told what was deleted meanwhile
            Ok(watcher::Event::InitDone) => ctx.clone_gone.notify_one(),
            Ok(_) | Err(_) => {}
        }
    }
}

/// What clones that are gone have left, by their uid. What is there is listed before the clones are, so that a new
/// clone's first object is never taken for left.
async fn left(ctx: &Context) -> Result<BTreeMap<String, Left>, Error> {
    let marked = ListParams::default().labels(labels::SCRATCH_FOR);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let claims = claims.list(&marked).await.map_err(Error::cluster("list scratch claims"))?;
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let downloads = downloads.list(&marked).await.map_err(Error::cluster("list Downloads"))?;
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let volumes = volumes.list(&marked).await.map_err(Error::cluster("list marked volumes"))?;
    let mut left = BTreeMap::<String, Left>::new();
    for download in downloads.items {
        left.entry(clone_of(&download)).or_default().downloads.push(download);
    }
    for claim in claims.items {
        left.entry(clone_of(&claim)).or_default().claims.push(claim);
    }
    for volume in volumes.items {
        left.entry(clone_of(&volume)).or_default().volumes.push(volume);
    }
    if !left.is_empty() {
        let clones: Api<CloneFromSnapshot> = Api::all(ctx.client.clone());
        let clones = clones.list_metadata(&ListParams::default()).await;
        let clones = clones.map_err(Error::cluster("list CloneFromSnapshots"))?;
        let alive: HashSet<String> = clones.items.iter().filter_map(ResourceExt::uid).collect();
        left.retain(|uid, _| !alive.contains(uid));
    }
    Ok(left)
}

/// The uid of the clone that an object is marked with.
fn clone_of(object: &impl ResourceExt) -> String {
    object.labels().get(labels::SCRATCH_FOR).cloned().unwrap_or_default()
}

/// Removes what one clone has left; what cannot be removed now is found again by the next sweep.
async fn remove(uid: String, left: Left, ctx: Arc<Context>) {
    let removed = async { if stop_writing(&uid, &left, &ctx).await? { end(&uid, &left, &ctx).await } else { Ok(()) } };
    if let Err(error) = removed.await {
        let error = Problem::chain(&error);
        tracing::warn!(clone_uid = uid, error, "what a deleted restore has left is not all removed; tried again");
    }
}

/// Deletes the Downloads and waits until no node holds their leases: a volume must not go while it is written. `false`
/// when a node has not stopped in time, which is said.
async fn stop_writing(uid: &str, left: &Left, ctx: &Context) -> Result<bool, Error> {
    for download in &left.downloads {
        tracing::info!(download = download.name_any(), "its CloneFromSnapshot was deleted; deleting the Download");
        delete::<Download>(ctx, &ctx.namespace, &download.name_any()).await?;
    }
    let since = Instant::now();
    // looked for by name: the Download may have been deleted long before its node stops
    while let Some(holder) = writer(uid, ctx).await? {
        if since.elapsed() >= STOPPING {
            not_stopping(&holder, left, ctx).await;
            return Ok(false);
        }
        tokio::time::sleep(LETTING_GO).await;
    }
    Ok(true)
}

/// The node that holds a lease of a clone's Download. Leases that nobody holds any more are deleted.
async fn writer(uid: &str, ctx: &Context) -> Result<Option<String>, Error> {
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let all = api.list(&ListParams::default()).await.map_err(Error::cluster("list leases of transfers"))?;
    let (begins, ends) = (names::download_lease(""), format!("-{uid}"));
    let of_clone = |name: &str| name.starts_with(&begins) && name.ends_with(&ends);
    for lease in all.items.iter().filter(|lease| of_clone(&lease.name_any())) {
        let name = lease.name_any();
        if let Some((holder, _)) = ctx.transfers.held_by_another(&name).await? {
            return Ok(Some(holder));
        }
        leases::forget(&api, lease).await?;
    }
    Ok(None)
}

/// Says that a node goes on writing, on what it keeps from going.
async fn not_stopping(holder: &str, left: &Left, ctx: &Context) {
    let cause = format!(
        "remove the volume of a deleted restore: node {holder} still holds it {} seconds after it was to stop",
        STOPPING.as_secs()
    );
    let problem = Problem::passing(Reason::NotStopping, cause);
    tracing::warn!(%problem, "the volume of a deleted restore stays until its node stops");
    let note = Note { reason: problem.reason, message: problem.message(), warning: true };
    for claim in &left.claims {
        ctx.publisher.note(claim, &note).await;
    }
    if left.claims.is_empty() {
        for volume in &left.volumes {
            ctx.publisher.note(volume, &note).await;
        }
    }
}

/// Nobody writes any more: claims and volumes go.
async fn end(uid: &str, left: &Left, ctx: &Context) -> Result<(), Error> {
    for claim in &left.claims {
        tracing::info!(claim = claim.name_any(), "its CloneFromSnapshot was deleted; deleting the scratch claim");
        let of_claim = |v: &&PersistentVolume| {
            v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.uid.as_deref()) == claim.metadata.uid.as_deref()
        };
        if let Some(volume) = left.volumes.iter().find(of_claim) {
            doom(volume, uid, ctx).await?;
        }
        delete::<PersistentVolumeClaim>(ctx, &ctx.namespace, &claim.name_any()).await?;
    }
    for volume in &left.volumes {
        end_volume(volume, ctx).await?;
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
        false => doom(volume, &clone_of(volume), ctx).await,
    }
}
