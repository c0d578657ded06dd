//! Snapshot: repository, disk snapshot, Upload, then one status write; after that it says what its Upload says.

mod apply;
mod observe;
mod unheard;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::{Snapshot, Upload};
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use lifecycle::snapshot::{Plan, plan};
use tokio_util::task::AbortOnDropHandle;

use self::unheard::Unheard;
use crate::shown::shown;
use crate::{Context, Error};

/// When an object is looked at again that the watch shows older than we have written it, or without its Upload as the
/// watch has only begun. Its event comes sooner.
const CATCHING_UP: Duration = Duration::from_millis(500);

/// What a look at a Snapshot needs.
struct Look {
    ctx: Arc<Context>,
    /// The Uploads of the Velero namespace.
    uploads: Store<Upload>,
    /// Those that nobody has looked at.
    unheard: Arc<Unheard>,
}

/// Moves one Snapshot one step towards what its spec asks for.
async fn reconcile(known: Arc<Snapshot>, look: Arc<Look>) -> Result<Action, Error> {
    let ctx = &look.ctx;
    look.unheard.looked_at(&known);
    // not a wait: the store wakes the last of its waiters only, and each look is a task of its own
    let are_shown = look.uploads.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok());
    if ctx.written.is_newer_than(&*known) || !are_shown {
        return Ok(Action::requeue(CATCHING_UP));
    }
    let seen = observe::observe(&known, &look.uploads, ctx).await?;
    let planned = plan(&seen.snapshot, seen.upload.as_ref(), ctx.now());
    tracing::debug!(namespace = ?known.namespace(), name = known.name_any(), plan = ?planned, "decided");
    let action = match planned {
        Plan::Rest => Action::await_change(),
        Plan::WakeAt(at) => ctx.wake_at(at),
        Plan::Remove => apply::remove(&seen.snapshot, ctx).await?,
        Plan::Begin => apply::begin(&seen.snapshot, ctx).await?,
        Plan::Cancel => apply::cancel(&seen.snapshot, ctx).await?,
        Plan::StopUpload => apply::stop_upload(&seen, ctx).await?,
        Plan::Follow => apply::follow(&seen, ctx).await?,
        Plan::Abandon => apply::abandon(&seen.snapshot, ctx).await?,
    };
    ctx.pace.forget(&known.uid().unwrap_or_default());
    Ok(action)
}

/// Runs the controller until `stop`.
pub async fn run(ctx: Arc<Context>, stop: tokio_util::sync::CancellationToken) {
    let (snapshots, asked) = shown(Api::<Snapshot>::all(ctx.client.clone()));
    let (uploads, moved) = shown(Api::<Upload>::namespaced(ctx.client.clone(), &ctx.namespace));
    let unheard = Arc::new(Unheard::default());
    let telling = unheard.clone();
    let asked = asked.inspect(move |snapshot| telling.shown(snapshot));
    let config = Config::default().concurrency(ctx.workers);
    let queue = changes(asked, moved).take_until(stop.cancelled_owned());
    // each look is a task of its own: opening a repository keeps a processor busy
    let look = |snapshot, look| {
        let looking = AbortOnDropHandle::new(tokio::spawn(reconcile(snapshot, look)));
        Box::pin(async {
            looking.await.unwrap_or_else(|e| match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(Action::await_change()), // the process is about to end
            })
        })
    };
    let after_error = |snapshot: Arc<Snapshot>, error: &Error, look: Arc<Look>| look.ctx.after_error(&*snapshot, error);
    let all = Arc::new(Look { ctx: ctx.clone(), uploads, unheard: unheard.clone() });
    let looking = applier(look, after_error, all, snapshots, Box::pin(queue), config);
    // a task of its own: the queue of a thousand Snapshots does not keep them from hearing of it
    let _telling = AbortOnDropHandle::new(tokio::spawn(async move { unheard.tell(&ctx).await }));
    looking.for_each(|_| std::future::ready(())).await;
}

/// The Snapshots to look at: those that changed, and those whose Upload did.
fn changes(
    asked: impl Stream<Item = Arc<Snapshot>> + Send,
    moved: impl Stream<Item = Arc<Upload>> + Send,
) -> impl Stream<Item = Result<ObjectRef<Snapshot>, Infallible>> + Send {
    let asked = asked.map(|snapshot| Some(ObjectRef::from_obj(&*snapshot)));
    let moved = moved.map(|upload| snapshot_of(&upload));
    stream::select(asked, moved).filter_map(|found| std::future::ready(found.map(Ok)))
}

/// The Snapshot an Upload names: exactly one `/`.
fn snapshot_of(upload: &Upload) -> Option<ObjectRef<Snapshot>> {
    let (namespace, name) = upload.spec.snapshot_reference.as_deref()?.split_once('/')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    valid.then(|| ObjectRef::new(name).within(namespace))
}
