//! Snapshot: repository, disk snapshot, Upload, then one status write; after that it says what its Upload says.

mod apply;
mod observe;

use std::sync::Arc;

use api::{Snapshot, Upload};
use futures::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use lifecycle::snapshot::{Plan, plan};

use crate::{Context, Error};

/// Moves one Snapshot one step towards what its spec asks for.
pub async fn reconcile(known: Arc<Snapshot>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(seen) = observe::observe(&known, &ctx).await? else { return Ok(Action::await_change()) };
    let planned = plan(&seen.snapshot, seen.upload.as_ref(), ctx.now());
    tracing::debug!(namespace = ?known.namespace(), name = known.name_any(), plan = ?planned, "decided");
    let action = match planned {
        Plan::Rest => Action::await_change(),
        Plan::WakeAt(at) => ctx.wake_at(at),
        Plan::Remove => apply::remove(&seen.snapshot, &ctx).await?,
        Plan::Begin => apply::begin(&seen.snapshot, &ctx).await?,
        Plan::Cancel => apply::cancel(&seen.snapshot, &ctx).await?,
        Plan::StopUpload => apply::stop_upload(&seen, &ctx).await?,
        Plan::Follow => apply::follow(&seen, &ctx).await?,
        Plan::Abandon => apply::abandon(&seen.snapshot, &ctx).await?,
    };
    ctx.pace.forget(&known.uid().unwrap_or_default());
    Ok(action)
}

/// Runs the controller until `stop`.
pub async fn run(ctx: Arc<Context>, stop: tokio_util::sync::CancellationToken) {
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    Controller::new(Api::<Snapshot>::all(ctx.client.clone()), watcher::Config::default())
        .with_config(Config::default().concurrency(ctx.workers))
        .watches(uploads, watcher::Config::default(), |upload| snapshot_of(&upload))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |snapshot, error, ctx| ctx.after_error(&*snapshot, error), ctx)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// The Snapshot an Upload names: exactly one `/`.
fn snapshot_of(upload: &Upload) -> Option<ObjectRef<Snapshot>> {
    let (namespace, name) = upload.spec.snapshot_reference.as_deref()?.split_once('/')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    valid.then(|| ObjectRef::new(name).within(namespace))
}
