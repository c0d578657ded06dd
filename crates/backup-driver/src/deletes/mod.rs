//! DeleteSnapshot: stops an Upload that still runs, then deletes disk snapshot and restore point, however often it takes.

mod apply;

use std::sync::Arc;

use api::{DeletePhase, DeleteSnapshot, Upload, names};
use futures::StreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use lifecycle::delete::{Plan, Seen, has_let_go, plan, target};

use crate::{Context, Error};

/// Moves one DeleteSnapshot one step on.
pub async fn reconcile(known: Arc<DeleteSnapshot>, ctx: Arc<Context>) -> Result<Action, Error> {
    let deletes: Api<DeleteSnapshot> = Api::namespaced(ctx.client.clone(), &known.namespace().unwrap_or_default());
    let read = deletes.get_opt(&known.name_any()).await.map_err(Error::cluster("read the DeleteSnapshot"))?;
    let Some(delete) = read.filter(|d| d.uid() == known.uid()) else {
        ctx.pauses.forget(&apply::attempts_of(&known));
        return Ok(Action::await_change());
    };
    let seen = observe(&delete, &ctx).await?;
    let planned = plan(&delete, &seen, ctx.now());
    tracing::debug!(name = delete.name_any(), plan = ?planned, "decided");
    match planned {
        Plan::Rest => Ok(Action::await_change()),
        Plan::WakeAt(at) => Ok(ctx.wake_at(at)),
        Plan::Remove => apply::remove(&delete, &ctx).await,
        Plan::Fail(problem) => apply::fail(&delete, &problem, &ctx).await,
        Plan::CancelUpload => apply::cancel_upload(&delete, &seen, &ctx).await,
        Plan::AwaitUpload(waits) => apply::await_upload(&delete, &seen, &waits, &ctx).await,
        Plan::Erase => apply::erase(&delete, &ctx).await,
    }
}

/// Reads the Upload of the snapshot and whether a node holds its lease. A node that died loses it within a minute.
async fn observe(delete: &DeleteSnapshot, ctx: &Context) -> Result<Seen, Error> {
    let ended = delete.phase().is_some_and(DeletePhase::is_terminal);
    let Some(target) = target(delete).ok().filter(|_| !ended) else { return Ok(Seen::default()) };
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let name = names::upload(&target.disk_snapshot.snapshot);
    let upload = uploads.get_opt(&name).await.map_err(Error::cluster(format!("read Upload {name}")))?;
    let writing = match upload.as_ref().is_some_and(has_let_go) {
        true => false,
        false => ctx.transfers.held_by_another(&names::upload_lease(&name)).await?.is_some(),
    };
    Ok(Seen { upload, writing, due: ctx.pauses.due(&apply::attempts_of(delete)) })
}

/// Runs the controller until `stop`.
pub async fn run(ctx: Arc<Context>, stop: tokio_util::sync::CancellationToken) {
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let deletes: Api<DeleteSnapshot> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let controller = Controller::new(deletes, watcher::Config::default());
    let known = controller.store();
    controller
        .with_config(Config::default().concurrency(ctx.workers))
        .watches(uploads, watcher::Config::default(), move |upload| {
            let name = upload.name_any();
            let waits = move |d: &Arc<DeleteSnapshot>| {
                target(d).is_ok_and(|t| names::upload(&t.disk_snapshot.snapshot) == name)
            };
            known.state().into_iter().filter(waits).map(|d| ObjectRef::from_obj(&*d)).collect::<Vec<_>>()
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |delete, error, ctx| ctx.after_error(&*delete, error), ctx)
        .for_each(|_| std::future::ready(()))
        .await;
}
