//! Snapshot: repository, disk snapshot, Upload, then one status write; after that it says what its Upload says.

mod begin;
mod end;
mod follow;
mod observe;
mod opening;
mod undo;
mod unheard;

use std::sync::Arc;
use std::time::Duration;

use api::{Snapshot, Upload};
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use lifecycle::snapshot::{Plan, plan};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use self::unheard::Unheard;
use crate::shown::{Change, Shown, look_at, named};
use crate::{Context, Error};

/// When an object is looked at again that the watch shows older than we have written it, or without its Upload as the
/// watch has only begun. Its event comes sooner.
const CATCHING_UP: Duration = Duration::from_millis(500);

/// What a look at a Snapshot needs.
struct Look {
    ctx: Arc<Context>,
    /// Those that nobody has looked at.
    unheard: Arc<Unheard>,
}

/// Moves one Snapshot one step towards what its spec asks for.
async fn reconcile(known: Arc<Snapshot>, look: Arc<Look>) -> Result<Action, Error> {
    let ctx = &look.ctx;
    look.unheard.looked_at(&known);
    // not a wait: the store wakes the last of its waiters only, and each look is a task of its own
    let are_shown = ctx.uploads.objects().wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok());
    if ctx.written.is_newer_than(&*known) || !are_shown {
        return Ok(Action::requeue(CATCHING_UP));
    }
    let seen = observe::observe(&known, ctx).await?;
    let planned = plan(&seen.snapshot, seen.upload.as_ref(), ctx.now());
    tracing::debug!(namespace = ?known.namespace(), name = known.name_any(), plan = ?planned, "decided");
    let action = match planned {
        Plan::Rest => Action::await_change(),
        Plan::WakeAt(at) => ctx.wake_at(at),
        Plan::SayWhen => ctx.say_when(&seen.snapshot).await?,
        Plan::Remove => end::remove(&seen.snapshot, ctx).await?,
        Plan::Begin => begin::begin(&seen.snapshot, ctx).await?,
        Plan::Cancel(undo) => end::cancel(&seen.snapshot, &undo, ctx).await?,
        Plan::StopUpload => follow::stop_upload(&seen, ctx).await?,
        Plan::Follow => follow::follow(&seen, ctx).await?,
        Plan::Abandon => end::abandon(&seen.snapshot, ctx).await?,
    };
    ctx.pace.forget(&known.uid().unwrap_or_default());
    Ok(action)
}

/// Runs the controller until `stop`.
pub async fn run(ctx: Arc<Context>, stop: tokio_util::sync::CancellationToken) {
    let (snapshots, watching) = Shown::new(Api::<Snapshot>::all(ctx.client.clone()), &ctx.metrics);
    let unheard = Arc::new(Unheard::default());
    let (telling, forgetting) = (unheard.clone(), ctx.clone());
    let asked = snapshots.changes().inspect(move |change| match change {
        Change::There(snapshot) => telling.shown(snapshot),
        Change::Gone(snapshot) => {
            telling.looked_at(snapshot);
            // it may have failed last
            let uid = snapshot.uid().unwrap_or_default();
            forgetting.pace.forget(&uid);
            forgetting.pauses.forget_all(&uid);
        }
    });
    let queue = changes(asked, ctx.uploads.changes());
    let config = Config::default().concurrency(ctx.workers);
    let after_error = |snapshot: Arc<Snapshot>, error: &Error, look: Arc<Look>| look.ctx.after_error(&*snapshot, error);
    let look = Arc::new(Look { ctx: ctx.clone(), unheard: unheard.clone() });
    let looking = look_at(snapshots.objects().clone(), queue, reconcile, after_error, look, config, stop);
    // a task of its own: the queue of a thousand Snapshots does not keep them from hearing of it
    let telling = AbortOnDropHandle::new(tokio::spawn(async move { unheard.tell(&ctx).await }));
    tokio::select! {
        () = looking => {}
        never = watching => match never {},
        told = telling => match told.map_err(JoinError::try_into_panic) {
            Ok(never) => match never {},
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => {} // the process is about to end
        }
    }
}

/// The Snapshots to look at: those that changed, and those whose Upload did.
fn changes(
    asked: impl Stream<Item = Change<Snapshot>> + Send,
    moved: impl Stream<Item = Change<Upload>> + Send,
) -> impl Stream<Item = ObjectRef<Snapshot>> + Send {
    let asked = asked.map(|change| Some(named(&change)));
    let moved = moved.map(|change| snapshot_of(change.object()));
    stream::select(asked, moved).filter_map(std::future::ready)
}

/// The Snapshot an Upload names: exactly one `/`.
fn snapshot_of(upload: &Upload) -> Option<ObjectRef<Snapshot>> {
    let (namespace, name) = upload.spec.snapshot_reference.as_deref()?.split_once('/')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    valid.then(|| ObjectRef::new(name).within(namespace))
}
