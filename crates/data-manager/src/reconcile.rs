//! Moves a transfer, of whichever kind, one step on: looks what this node can do for it, and starts what was decided.

use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use lifecycle::Problem;
use lifecycle::transfer::{self, Holder, Node, Plan, Work};
use operator::Error;
use tracing::Instrument as _;

use crate::attempt;
use crate::context::Context;
use crate::kind::Kind;

/// A look that no event asks for, in case one was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Pause after a claim that failed, mostly because the API server is away.
const AFTER_FAILED_CLAIM: Duration = Duration::from_secs(2);

/// Moves one transfer one step towards what its spec asks for.
pub(crate) async fn reconcile<K: Kind>(object: Arc<K>, ctx: Arc<Context>) -> Result<Action, Error> {
    let node = node(&*object, &ctx).await?; // reads; never writes
    let now = Timestamp::now();
    let plan = transfer::plan(&object.transfer(), &node, now);
    ctx.pace.forget(&object.uid().unwrap_or_default());
    match plan {
        Plan::Rest | Plan::WaitForSlot => Ok(Action::requeue(LOOK_AGAIN)), // a freed slot looks at all of them
        Plan::WakeAt(at) => Ok(Action::requeue(lifecycle::retry::wake(at, now))),
        Plan::Stop => {
            ctx.at_work.stop(&object.name_any());
            Ok(Action::await_change())
        }
        Plan::Claim(work) => {
            if let Some(pause) = ctx.at_work.refused_for(&object.name_any(), work == Work::Cancel) {
                return Ok(Action::requeue(pause));
            }
            start(&ctx, object, work);
            Ok(Action::requeue(LOOK_AGAIN))
        }
    }
}

/// How long to wait after a look that failed.
pub(crate) fn after_error<K: Kind>(object: Arc<K>, error: &Error, ctx: Arc<Context>) -> Action {
    let (kind, name) = (K::kind(&()), object.name_any());
    tracing::warn!(%kind, name, error = %Problem::chain(error), "could not look at the transfer");
    Action::requeue(ctx.pace.after_error(&object.uid().unwrap_or_default(), lifecycle::retry::controller_pause))
}

/// This node, as the decision needs it. Any node reaches any disk over the network, so none is nearer than another; the
/// lease spreads the work.
async fn node<K: Kind>(object: &K, ctx: &Context) -> Result<Node, Error> {
    let name = object.name_any();
    let at_work = ctx.at_work.has(&name);
    let holder = if at_work || object.has_ended() {
        Holder::Us // nothing to ask the API server for
    } else {
        holder(ctx, &K::lease(&name)).await?
    };
    Ok(Node { free_slots: ctx.at_work.free_slots(), at_work, holder })
}

/// Who holds a lease, as this node sees it.
async fn holder(ctx: &Context, lease: &str) -> Result<Holder, Error> {
    Ok(match ctx.leases.held_by_another(lease).await? {
        None => Holder::Nobody,
        Some((_, free_in)) => {
            let seconds = i64::try_from(free_in.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
            let free_in = jiff::SignedDuration::from_secs(seconds);
            Holder::Other { until: Timestamp::now().saturating_add(free_in).unwrap_or(Timestamp::MAX) }
        }
    })
}

/// Starts the work in the background; it ends by itself.
fn start<K: Kind>(ctx: &Arc<Context>, object: Arc<K>, work: Work) {
    if !K::knows(work) {
        return;
    }
    let name = object.name_any();
    let Some(place) = ctx.at_work.begin(&name, matches!(work, Work::Copy { .. })) else { return };
    let (ctx, span) = (ctx.clone(), object.span());
    let claiming = async move {
        match attempt::claim::<K>(&ctx, &K::lease(&name), &object, work).await {
            Ok(Some(claimed)) => K::perform(&ctx, claimed, &place).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %Problem::chain(&error), "could not claim the transfer");
                if error.answer().is_some_and(|(code, _)| lifecycle::retry::is_final(code)) {
                    place.note(true, work == Work::Cancel);
                }
                // the place is kept so long: giving it up makes us look at all transfers again
                tokio::select! {
                    () = ctx.shutdown.cancelled() => {}
                    () = tokio::time::sleep(AFTER_FAILED_CLAIM) => {}
                }
            }
        }
    };
    tokio::spawn(claiming.instrument(span));
}
