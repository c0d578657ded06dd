//! DeleteSnapshot: stops an Upload that still runs, then deletes disk snapshot and restore point, however often it takes.

mod apply;

use std::sync::Arc;

use api::{DeletePhase, DeleteSnapshot, Upload, names};
use futures::{StreamExt as _, stream};
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use lifecycle::delete::{Plan, Seen, has_let_go, plan, target};

use crate::shown::{Change, Shown, look_at, named};
use crate::{Context, Error};

/// Moves one DeleteSnapshot one step on.
pub async fn reconcile(known: Arc<DeleteSnapshot>, ctx: Arc<Context>) -> Result<Action, Error> {
    let deletes: Api<DeleteSnapshot> = Api::namespaced(ctx.client.clone(), &known.namespace().unwrap_or_default());
    let read = deletes.get_opt(&known.name_any()).await.map_err(Error::cluster("read the DeleteSnapshot"))?;
    let Some(delete) = read.filter(|d| d.uid() == known.uid()) else {
        ctx.pauses.forget_all(&known.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    let seen = observe(&delete, &ctx).await?;
    let planned = plan(&delete, &seen, ctx.now());
    tracing::debug!(name = delete.name_any(), plan = ?planned, "decided");
    match planned {
        Plan::Rest => Ok(Action::await_change()),
        Plan::WakeAt(at) => Ok(ctx.wake_at(at)),
        Plan::SayWhen => ctx.say_when(&delete).await,
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
    let (deletes, watching) =
        Shown::new(Api::<DeleteSnapshot>::namespaced(ctx.client.clone(), &ctx.namespace), &ctx.metrics);
    let (objects, forgetting) = (deletes.objects().clone(), ctx.clone());
    let asked = deletes.changes().map(move |change| {
        if let Change::Gone(delete) = &change {
            let uid = delete.uid().unwrap_or_default();
            forgetting.pauses.forget_all(&uid);
            forgetting.pace.forget(&uid);
        }
        named(&change)
    });
    let all = objects.clone();
    let moved = ctx.uploads.changes().flat_map(move |upload| stream::iter(waiting_for(upload.object(), &all)));
    let config = Config::default().concurrency(ctx.workers);
    let after_error = |delete: Arc<DeleteSnapshot>, error: &Error, ctx: Arc<Context>| ctx.after_error(&*delete, error);
    let looking = look_at(objects, stream::select(asked, moved), reconcile, after_error, ctx, config, stop);
    tokio::select! {
        () = looking => {}
        never = watching => match never {},
    }
}

/// The DeleteSnapshots of the disk snapshot that an Upload copies.
fn waiting_for(upload: &Upload, deletes: &Store<DeleteSnapshot>) -> Vec<ObjectRef<DeleteSnapshot>> {
    let name = upload.name_any();
    let waits =
        |delete: &DeleteSnapshot| target(delete).is_ok_and(|t| names::upload(&t.disk_snapshot.snapshot) == name);
    deletes.state_filter(waits).into_iter().map(|delete| ObjectRef::from_obj(&*delete)).collect()
}
