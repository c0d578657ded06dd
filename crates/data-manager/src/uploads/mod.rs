//! Uploads: a disk snapshot into the repository.

mod apply;
mod copy;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use api::{Timestamp, Upload};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use lifecycle::transfer::{self, Plan};
use operator::Error;

use crate::context::Context;

pub(crate) use copy::open_repository;
pub(crate) use observe::holder;

/// A look that no event asks for, in case one was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Moves one `Upload` one step towards what its spec asks for.
pub(crate) async fn reconcile(upload: Arc<Upload>, ctx: Arc<Context>) -> Result<Action, Error> {
    let node = observe::node(&upload, &ctx).await?; // reads; never writes
    let now = Timestamp::now();
    let plan = transfer::plan(&transfer::Transfer::from(&*upload), &node, now);
    ctx.pace.forget(&upload.uid().unwrap_or_default());
    match plan {
        Plan::Rest | Plan::WaitForSlot => Ok(Action::requeue(LOOK_AGAIN)), // a freed slot looks at all of them
        Plan::WakeAt(at) => Ok(Action::requeue(lifecycle::retry::wake(at, now))),
        Plan::Stop => {
            ctx.at_work.stop(&upload.name_any());
            Ok(Action::await_change())
        }
        Plan::Claim(work) => {
            apply::start(&ctx, &upload, work);
            Ok(Action::requeue(LOOK_AGAIN))
        }
    }
}

/// How long to wait after a look that failed.
pub(crate) fn after_error(upload: Arc<Upload>, error: &Error, ctx: Arc<Context>) -> Action {
    let name = upload.name_any();
    tracing::warn!(upload = name, error = %lifecycle::Problem::chain(error), "could not look at the upload");
    Action::requeue(ctx.pace.after_error(&upload.uid().unwrap_or_default(), lifecycle::retry::controller_pause))
}
