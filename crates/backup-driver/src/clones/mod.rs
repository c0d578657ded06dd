//! CloneFromSnapshot: restore point looked for, volume made through a scratch claim, written by a node, handed to the
//! real claim. Nothing of a user's is bound before its data is flushed, and nothing of a user's is overwritten.

mod apply;
mod hand;
mod observe;

use std::sync::Arc;

use api::{CloneFromSnapshot, Download, labels};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use lifecycle::clone::{Plan, plan};
use operator::Watches;
use operator::client::watching;

pub(crate) use apply::{delete, doom};
pub(crate) use hand::settle_volume;

use crate::{Context, Error};

/// A restore takes fewer steps than this; one that takes more is looked at again later.
const MOST_STEPS: usize = 24;

/// What follows a step.
enum Next {
    /// The next step at once.
    Step,
    /// Another look then.
    Look(Action),
}

/// Moves one clone as far as it goes without waiting for others.
pub async fn reconcile(known: Arc<CloneFromSnapshot>, ctx: Arc<Context>) -> Result<Action, Error> {
    for _ in 0..MOST_STEPS {
        let Some(looked) = observe::observe(&known, &ctx).await? else {
            ctx.pauses.forget_all(&known.uid().unwrap_or_default());
            ctx.clone_gone.notify_one(); // what we made a moment ago may have come after the sweep
            return Ok(Action::await_change());
        };
        let planned = plan(&looked.clone, &looked.seen, ctx.now());
        tracing::debug!(namespace = ?known.namespace(), name = known.name_any(), plan = ?planned, "decided");
        let next = match planned {
            Plan::Rest => Next::Look(Action::await_change()),
            Plan::WakeAt(at) => Next::Look(ctx.wake_at(at)),
            Plan::SayWhen => Next::Look(ctx.say_when(&looked.clone).await?),
            Plan::Remove => apply::remove(&looked.clone, &ctx).await?,
            Plan::Provision => apply::provision(&looked, &ctx).await?,
            Plan::AwaitVolume(at) => Next::Look(apply::look_by(&looked.clone, Some(at), &ctx)),
            Plan::Download => apply::download(&looked, &ctx).await?,
            Plan::Follow(at) => apply::follow(&looked, at, &ctx).await?,
            Plan::Hand(step) => hand::apply(step, &looked, &ctx).await?,
            Plan::AwaitClaim(at) => apply::await_claim(&looked.clone, at, &ctx).await?,
            Plan::GiveUp(problem) => apply::give_up(&looked.clone, &problem, &ctx).await?,
            Plan::StopNow => apply::stop_now(&looked.clone, &ctx).await?,
            Plan::StopWriting => apply::stop_writing(&looked, &ctx).await?,
            Plan::Clean => apply::clean(&looked, &ctx).await?,
            Plan::End => apply::end(&looked, &ctx).await?,
            Plan::Complete => apply::complete(&looked, &ctx).await?,
        };
        ctx.pace.forget(&known.uid().unwrap_or_default());
        if let Next::Look(action) = next {
            return Ok(action);
        }
    }
    Ok(Action::requeue(std::time::Duration::from_secs(1)))
}

/// Runs the controller until `stop`.
pub async fn run(ctx: Arc<Context>, stop: tokio_util::sync::CancellationToken) {
    let client = &ctx.client;
    let downloads: Api<Download> = Api::namespaced(client.clone(), &ctx.namespace);
    let scratch: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &ctx.namespace);
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let marked = || watching().labels(labels::SCRATCH_FOR);
    let controller = Controller::new(Api::<CloneFromSnapshot>::all(client.clone()), watching());
    let (of_claims, of_volumes) = (controller.store(), controller.store());
    let mut watches = Watches::of::<CloneFromSnapshot>(&ctx.metrics).with_others(3);
    controller
        .with_config(Config::default().concurrency(ctx.workers))
        .watches(downloads, watching(), |download| clone_of(&download))
        .watches(scratch, marked(), move |claim| worked_for(&of_claims, &claim))
        .watches(volumes, marked(), move |volume| worked_for(&of_volumes, &volume))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |clone, error, ctx| ctx.after_error(&*clone, error), ctx.clone())
        .for_each(|looked| {
            watches.looked(&looked);
            std::future::ready(())
        })
        .await;
}

/// The clone a Download names: exactly one `/`.
fn clone_of(download: &Download) -> Option<ObjectRef<CloneFromSnapshot>> {
    let (namespace, name) = download.spec.clone_from_snapshot_reference.as_deref()?.split_once('/')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    valid.then(|| ObjectRef::new(name).within(namespace))
}

/// The clone whose uid an object is labelled with.
fn worked_for(clones: &Store<CloneFromSnapshot>, object: &impl ResourceExt) -> Option<ObjectRef<CloneFromSnapshot>> {
    let uid = object.labels().get(labels::SCRATCH_FOR)?;
    let found = clones.find(|clone| clone.metadata.uid.as_ref() == Some(uid))?;
    Some(ObjectRef::from_obj(&*found))
}
