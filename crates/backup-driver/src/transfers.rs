//! Uploads and Downloads that have been finished for a day are deleted here, in one place instead of on every node, and
//! not before their Snapshot or clone has ended: those say what their transfer says.

use std::fmt::Debug;
use std::sync::Arc;

use api::{CloneFromSnapshot, ClonePhase, Download, DownloadPhase, Snapshot, SnapshotPhase, Time, Upload, UploadPhase};
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::{Action, Config};
use kube::{Api, Resource, ResourceExt};
use lifecycle::age::{Finished, finished};
use lifecycle::new_disk::is_needed;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::shown::{Change, Shown, look_at, named};
use crate::{Context, Error};

/// How long to wait for a Snapshot or clone to end after its transfer.
const OWNER_CHECK: Duration = Duration::from_secs(60);

/// Runs both controllers until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    tokio::join!(each(&ctx.uploads, upload, &ctx, stop.clone()), each(&ctx.downloads, download, &ctx, stop.clone()));
}

/// Looks at each transfer of a kind that changed.
async fn each<T, F>(
    transfers: &Shown<T>,
    look: impl Fn(Arc<T>, Arc<Context>) -> F,
    ctx: &Arc<Context>,
    stop: CancellationToken,
) where
    T: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let pace = ctx.pace.clone();
    let changed = transfers.changes().map(move |change| {
        if let Change::Gone(transfer) = &change {
            pace.forget(&transfer.uid().unwrap_or_default()); // it may have failed last
        }
        named(&change)
    });
    let after_error = |transfer: Arc<T>, error: &Error, ctx: Arc<Context>| ctx.after_error(&*transfer, error);
    let all = transfers.objects().clone();
    look_at(all, changed, look, after_error, ctx.clone(), Config::default(), stop).await;
}

async fn upload(upload: Arc<Upload>, ctx: Arc<Context>) -> Result<Action, Error> {
    let ended = upload.phase().is_some_and(UploadPhase::is_terminal);
    let completed = upload.status.as_ref().and_then(|s| s.completion_timestamp.clone());
    let owner = upload.spec.snapshot_reference.clone();
    let has_ended = |s: &Snapshot| s.phase().is_some_and(SnapshotPhase::is_terminal);
    remove_when_due(&*upload, ended, completed.as_ref(), owner.as_deref(), has_ended, &ctx).await
}

async fn download(download: Arc<Download>, ctx: Arc<Context>) -> Result<Action, Error> {
    let ended = download.phase().is_some_and(DownloadPhase::is_terminal);
    if ended && is_needed(&download) {
        return Ok(Action::requeue(OWNER_CHECK)); // a disk without anybody must not be forgotten
    }
    let completed = download.status.as_ref().and_then(|s| s.completion_timestamp.clone());
    let owner = download.spec.clone_from_snapshot_reference.clone();
    let has_ended = |c: &CloneFromSnapshot| c.phase().is_some_and(ClonePhase::is_terminal);
    remove_when_due(&*download, ended, completed.as_ref(), owner.as_deref(), has_ended, &ctx).await
}

async fn remove_when_due<T, O>(
    transfer: &T,
    ended: bool,
    completed: Option<&Time>,
    owner: Option<&str>,
    has_ended: impl Fn(&O) -> bool,
    ctx: &Context,
) -> Result<Action, Error>
where
    T: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    if !ended || transfer.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    match finished(completed, ctx.now()) {
        Finished::Keep => return Ok(Action::await_change()),
        Finished::KeepUntil(at) => return Ok(ctx.wake_at(at)),
        Finished::Remove => {}
    }
    if let Some((namespace, name)) =
        owner.and_then(|o| o.split_once('/')).filter(|(ns, n)| !ns.is_empty() && !n.is_empty())
    {
        let owners: Api<O> = Api::namespaced(ctx.client.clone(), namespace);
        let read = owners.get_opt(name).await.map_err(Error::cluster("read whom a transfer was for"))?;
        if read.is_some_and(|o| !has_ended(&o)) {
            return Ok(Action::requeue(OWNER_CHECK));
        }
    }
    let api: Api<T> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let this_one = Preconditions { uid: transfer.uid(), resource_version: transfer.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    api.delete(&transfer.name_any(), &params).await.map_err(Error::cluster("delete a finished transfer"))?;
    Ok(Action::await_change())
}
