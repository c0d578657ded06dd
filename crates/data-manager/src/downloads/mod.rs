//! Downloads: a restore point onto a volume.

mod apply;
mod copy;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use api::{Download, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use lifecycle::transfer::{self, Plan};
use operator::Error;

use crate::context::Context;

/// A look that no event asks for, in case one was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Moves one `Download` one step towards what its spec asks for.
pub(crate) async fn reconcile(download: Arc<Download>, ctx: Arc<Context>) -> Result<Action, Error> {
    let node = observe::node(&download, &ctx).await?; // reads; never writes
    let now = Timestamp::now();
    let plan = transfer::plan(&transfer::Transfer::from(&*download), &node, now);
    ctx.pace.forget(&download.uid().unwrap_or_default());
    match plan {
        Plan::Rest | Plan::WaitForSlot => Ok(Action::requeue(LOOK_AGAIN)), // a freed slot looks at all of them
        Plan::WakeAt(at) => Ok(Action::requeue(lifecycle::retry::wake(at, now))),
        Plan::Stop => {
            ctx.at_work.stop(&download.name_any());
            Ok(Action::await_change())
        }
        Plan::Claim(work) => {
            apply::start(&ctx, &download, work);
            Ok(Action::requeue(LOOK_AGAIN))
        }
    }
}

/// How long to wait after a look that failed.
pub(crate) fn after_error(download: Arc<Download>, error: &Error, ctx: Arc<Context>) -> Action {
    let name = download.name_any();
    tracing::warn!(download = name, error = %lifecycle::Problem::chain(error), "could not look at the download");
    Action::requeue(ctx.pace.after_error(&download.uid().unwrap_or_default(), lifecycle::retry::controller_pause))
}
