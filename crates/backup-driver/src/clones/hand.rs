//! Hands a written volume to its claim. Each step looks the same however often it is done.
//!
//! The order is what the volume controller needs to bind within a second: the claim names the volume, so that nothing is
//! provisioned for it; the volume then names the claim with its uid; and one more change of the claim makes the
//! controller look at it again, which it otherwise does only at its next resync.

use std::time::Duration;

use api::{Reason, labels};
use connections::from_kube;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::clone::claims::{self, wanted};
use lifecycle::clone::{Hand, is_bound, ownership, status, volumes};
use serde_json::{Value, json};

use super::observe::Looked;
use super::{Next, apply};
use crate::error::{is_code, is_refusal};
use crate::steps::Step;
use crate::{Attempts, Context, Error, To};

/// How long one step waits for the volume controller before the clone is looked at anew.
const CONTROLLER: Duration = Duration::from_secs(20);
/// Annotation on a claim that waits for its volume; changing it makes the volume controller look again.
const NUDGE: &str = "velero-plugin-for-vsphere/awaits-volume";

/// Takes one step.
pub(super) async fn apply(step: Hand, looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    let Some(volume) = &looked.seen.volume else { return Ok(Next::Look(Action::requeue(CONTROLLER))) };
    match step {
        Hand::Keep => keep(looked, volume, ctx).await,
        Hand::DropScratch => drop_scratch(looked, volume, ctx).await,
        Hand::CreateClaim => create_claim(looked, volume, ctx).await,
        Hand::Point => point(looked, volume, ctx).await,
        Hand::AwaitBound => await_bound(looked, volume, ctx).await,
        Hand::Settle => settle(looked, volume, ctx).await,
    }
}

async fn keep(looked: &Looked, volume: &PersistentVolume, ctx: &Context) -> Result<Next, Error> {
    let before = looked.clone.status.clone().unwrap_or_default();
    let message = "the volume is written; giving it to the claim";
    ctx.publish(&looked.clone, &status::working(&before, Reason::Binding, message, ctx.now())).await?;
    let own = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Delete");
    // a volume that somebody let go, or whose mark was lost, remembers what it had
    let own = volume.annotations().get(labels::RECLAIM_POLICY).map_or(own, String::as_str);
    let mut marks = volumes::labels_put_back(&looked.clone, volume);
    marks.insert(labels::SCRATCH_FOR.to_owned(), looked.clone.uid().unwrap_or_default());
    patch_volume(
        volume,
        json!({
            "metadata": {
                "labels": marks,
                "annotations": { labels::RECLAIM_POLICY: volumes::reclaim_policy(&looked.clone, own) },
            },
            "spec": { "persistentVolumeReclaimPolicy": "Retain" },
        }),
        ctx,
    )
    .await?;
    Step::VolumeKept.done();
    Ok(Next::Step)
}

async fn drop_scratch(looked: &Looked, volume: &PersistentVolume, ctx: &Context) -> Result<Next, Error> {
    let Some(scratch) = &looked.seen.scratch else { return Ok(Next::Step) };
    let kept = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) == Some("Retain");
    if !kept {
        return keep(looked, volume, ctx).await; // somebody changed it: the data would go with the claim
    }
    let name = scratch.name_any();
    apply::delete::<PersistentVolumeClaim>(ctx, &ctx.namespace, &name).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let uid = scratch.uid().unwrap_or_default();
    let gone = await_condition(claims, &name, conditions::is_deleted(&uid));
    if tokio::time::timeout(CONTROLLER, gone).await.is_err() {
        return Ok(Next::Look(Action::requeue(CONTROLLER)));
    }
    let released = |v: Option<&PersistentVolume>| v.is_none_or(|v| phase(v) == Some("Released"));
    if !wait_for_volume(volume, released, ctx).await {
        return Ok(Next::Look(Action::requeue(CONTROLLER)));
    }
    Step::ScratchDropped.done();
    Ok(Next::Step)
}

async fn create_claim(looked: &Looked, volume: &PersistentVolume, ctx: &Context) -> Result<Next, Error> {
    let attempts = Attempts::of(&looked.clone, To::Hand);
    if let Some(due) = ctx.pauses.due(&attempts).filter(|due| *due > ctx.now()) {
        return Ok(Next::Look(ctx.wake_at(due)));
    }
    let begun = ctx.now();
    let like = match wanted(&looked.clone) {
        Ok(like) => like,
        Err(problem) => return apply::give_up(&looked.clone, &problem, ctx).await,
    };
    let mut claim = claims::real(&looked.clone, &like, volume);
    claim.annotations_mut().insert(NUDGE.to_owned(), "true".to_owned());
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ctx.client.clone(), &looked.clone.namespace().unwrap_or_default());
    match claims.create(&PostParams::default(), &claim).await {
        Ok(_) => {}
        Err(e) if is_code(&e, 409) => return Ok(Next::Look(Action::requeue(Duration::from_secs(1)))),
        Err(e) if is_refusal(&e) => {
            let problem = Problem::lasting(Reason::InvalidSpec, format!("make claim {}: {e}", claim.name_any()));
            return apply::give_up(&looked.clone, &problem, ctx).await;
        }
        // the data is written: a quota, or a server that has just started and knows nobody yet, must not cost it
        Err(e) => {
            let problem = from_kube(&format!("make claim {}", claim.name_any()), &e);
            return apply::not_handed(&looked.clone, &problem, begun, ctx).await;
        }
    }
    let before = looked.clone.status.clone().unwrap_or_default();
    ctx.publish(&looked.clone, &status::goes_on(&before)).await?;
    ctx.pauses.forget(&attempts);
    Step::ClaimMade.done();
    Ok(Next::Step)
}

async fn point(looked: &Looked, volume: &PersistentVolume, ctx: &Context) -> Result<Next, Error> {
    let Some(target) = &looked.seen.target else { return Ok(Next::Step) };
    // a volume that names a claim which is bound elsewhere loses the claim's uid, and a later claim takes it (V-04)
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ctx.client.clone(), &target.namespace().unwrap_or_default());
    let name = target.name_any();
    let now = claims.get_opt(&name).await.map_err(Error::cluster(format!("read claim {name}")))?;
    if let Err(problem) = ownership::check_again(&looked.clone, target, now.as_ref(), &volume.name_any()) {
        return apply::give_up(&looked.clone, &problem, ctx).await;
    }
    let reference = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": target.namespace(),
        "name": target.name_any(),
        "uid": target.uid(),
        "resourceVersion": Value::Null,
        "fieldPath": Value::Null,
    });
    patch_volume(volume, json!({ "spec": { "claimRef": reference } }), ctx).await?;
    Step::VolumePointed.done();
    Ok(Next::Step)
}

async fn await_bound(looked: &Looked, volume: &PersistentVolume, ctx: &Context) -> Result<Next, Error> {
    let Some(target) = &looked.seen.target else { return Ok(Next::Step) };
    if !wait_for_volume(volume, |v| v.is_some_and(|v| phase(v) == Some("Bound")), ctx).await {
        return Ok(Next::Look(Action::requeue(CONTROLLER)));
    }
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(ctx.client.clone(), &target.namespace().unwrap_or_default());
    let nudged = target.annotations().contains_key(NUDGE);
    if target.spec.as_ref().is_some_and(|s| s.volume_name.is_some()) && !is_bound(target) {
        let flip = if nudged { Value::Null } else { json!("true") };
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { NUDGE: flip } } }));
        let patched = claims.patch(&target.name_any(), &PatchParams::default(), &patch).await;
        patched.map_err(Error::cluster("make the volume controller look at the claim"))?;
    }
    let bound = |c: Option<&PersistentVolumeClaim>| c.is_none_or(is_bound);
    let name = target.name_any();
    let waited = await_condition(claims, &name, bound);
    if tokio::time::timeout(CONTROLLER, waited).await.is_err() {
        return Ok(Next::Look(Action::requeue(Duration::from_secs(1))));
    }
    Step::ClaimBound.done();
    Ok(Next::Step)
}

async fn settle(looked: &Looked, volume: &PersistentVolume, ctx: &Context) -> Result<Next, Error> {
    if let Some(target) = looked.seen.target.as_ref().filter(|t| t.annotations().contains_key(NUDGE)) {
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(ctx.client.clone(), &target.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { NUDGE: Value::Null } } }));
        let patched = claims.patch(&target.name_any(), &PatchParams::default(), &patch).await;
        patched.map_err(Error::cluster("tidy the claim"))?;
    }
    settle_volume(volume, ctx).await?;
    Step::VolumeSettled.done();
    Ok(Next::Step)
}

/// Gives a volume its own reclaim policy back, and turns the mark into a note of which restore it came from.
pub(crate) async fn settle_volume(volume: &PersistentVolume, ctx: &Context) -> Result<(), Error> {
    let policy = volume.annotations().get(labels::RECLAIM_POLICY).map_or("Delete", String::as_str);
    patch_volume(
        volume,
        json!({
            "metadata": {
                "labels": { labels::SCRATCH_FOR: Value::Null },
                "annotations": {
                    labels::RECLAIM_POLICY: Value::Null,
                    labels::CLONE_UID: volume.labels().get(labels::SCRATCH_FOR),
                },
            },
            "spec": { "persistentVolumeReclaimPolicy": policy },
        }),
        ctx,
    )
    .await
}

async fn patch_volume(volume: &PersistentVolume, patch: Value, ctx: &Context) -> Result<(), Error> {
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let name = volume.name_any();
    let patched = volumes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(Error::cluster(format!("change volume {name}")))
}

async fn wait_for_volume(
    volume: &PersistentVolume,
    reached: impl Fn(Option<&PersistentVolume>) -> bool,
    ctx: &Context,
) -> bool {
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let name = volume.name_any();
    tokio::time::timeout(CONTROLLER, await_condition(volumes, &name, reached)).await.is_ok_and(|waited| waited.is_ok())
}

fn phase(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}
