//! Makes the disk of a Download that names no volume, and removes it when nobody takes it. `lifecycle::new_disk` decides.
//!
//! There is no claim and no class to make a volume by: only the disk's size is known, from the backup. So it is a volume of CNS, on a
//! datastore that the hosts of all nodes share, and the cluster's by its `cluster-id`. Its name follows from the Download's uid: a
//! repeated step finds it, and so does who looks for what a deleted Download has left (`gone`).

mod apply;
mod gone;
mod observe;

use std::sync::Arc;

use api::Download;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::runtime::controller::{Action, Config};
use lifecycle::new_disk::{self, Plan};
use tokio_util::sync::CancellationToken;

pub(crate) use apply::{condemn, end};

use crate::shown::{look_at, named};
use crate::{Context, Error};

/// Runs until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let deletions = gone::follow_deletions(ctx.clone());
    let changed = ctx.downloads.changes().map(|change| named(&change));
    let after_error = |download: Arc<Download>, error: &Error, ctx: Arc<Context>| ctx.after_error(&*download, error);
    let all = ctx.downloads.objects().clone();
    tokio::select! {
        () = look_at(all, changed, reconcile, after_error, ctx, Config::default(), stop) => {}
        () = deletions => unreachable!("changes are told as long as the context is there"),
    }
}

/// Moves one Download one step on.
async fn reconcile(known: Arc<Download>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(observe::Looked { download, seen }) = observe::observe(&known, &ctx).await? else {
        return Ok(Action::await_change());
    };
    let planned = new_disk::plan(&download, &seen, ctx.now());
    tracing::debug!(download = download.name_any(), plan = ?planned, "decided");
    let action = match planned {
        Plan::Rest => Action::await_change(),
        Plan::Wait(pause) => Action::requeue(pause),
        Plan::Make => apply::make(&download, &ctx).await?,
        Plan::End(problem) => apply::end(&download, &problem, &ctx).await?,
        Plan::NoteUse => apply::note_use(&download, &ctx).await?,
        Plan::Remove => apply::remove(&download, &ctx).await?,
        Plan::Stuck(problem, pause) => {
            apply::stays(&download, &problem, &ctx).await?;
            Action::requeue(pause)
        }
        Plan::Delete => apply::delete(&download, &ctx).await?,
    };
    ctx.pace.forget(&known.uid().unwrap_or_default());
    Ok(action)
}
