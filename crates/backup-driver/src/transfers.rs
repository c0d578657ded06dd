//! Uploads and Downloads that have been finished for a day are deleted here, in one place instead of on every node, and
//! not before their Snapshot or clone has ended: those say what their transfer says. Before an Upload goes that the original
//! cancelled, so does the disk snapshot that it left. A Download that it left to be written is ended.

use std::fmt::Debug;
use std::sync::Arc;

use api::{CloneFromSnapshot, ClonePhase, Download, DownloadPhase, Snapshot, SnapshotPhase, Time, Upload, UploadPhase};
use disk::DiskSnapshot;
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::{Action, Config};
use kube::{Api, Resource, ResourceExt};
use lifecycle::age::{Finished, SaysWhen, finished};
use lifecycle::new_disk::is_needed;
use lifecycle::transfer::{cancelled, of_the_original};
use lifecycle::{Problem, flavor, retry};
use operator::Reported;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::shown::{Change, Shown, look_at, named};
use crate::{Attempts, Context, Error, To, new_disks};

/// How long to wait for a Snapshot or clone to end after its transfer.
const OWNER_CHECK: Duration = Duration::from_secs(60);
/// How long vCenter may refuse for passing reasons in one attempt to delete a disk snapshot.
const DELETING: Duration = Duration::from_secs(120);

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
    let forgetting = ctx.clone();
    let changed = transfers.changes().map(move |change| {
        if let Change::Gone(transfer) = &change {
            // it may have failed last
            forgetting.pace.forget(&transfer.uid().unwrap_or_default());
            forgetting.pauses.forget_all(&transfer.uid().unwrap_or_default());
        }
        named(&change)
    });
    let after_error = |transfer: Arc<T>, error: &Error, ctx: Arc<Context>| ctx.after_error(&*transfer, error);
    let all = transfers.objects().clone();
    look_at(all, changed, look, after_error, ctx.clone(), Config::default(), stop).await;
}

async fn upload(upload: Arc<Upload>, ctx: Arc<Context>) -> Result<Action, Error> {
    if cancelled::is_half(&upload) && upload.metadata.deletion_timestamp.is_none() {
        let of: Option<Snapshot> = owner(upload.spec.snapshot_reference.as_deref(), &ctx).await?;
        if let Some(left) = cancelled::left(&upload, of.as_ref()) {
            return finish_cancel(&upload, &left, &ctx).await;
        }
    }
    remove_upload(&upload, &ctx).await
}

/// Deletes what the original has left of an Upload that it cancelled. Until it is gone the Upload stays: nothing else names it.
async fn finish_cancel(upload: &Upload, left: &DiskSnapshot, ctx: &Context) -> Result<Action, Error> {
    let (attempts, name) = (Attempts::of(upload, To::FinishCancel), upload.name_any());
    // what an attempt says comes back as an event, and is no reason for another one
    if let Some(due) = ctx.pauses.due(&attempts).filter(|due| *due > ctx.now()) {
        return Ok(ctx.wake_at(due));
    }
    let before = upload.status.clone().unwrap_or_default();
    match delete_left(left, ctx).await {
        Ok(()) => {
            tracing::info!(upload = name, disk_snapshot = %left, "deleted what the original left of a cancelled Upload");
            ctx.pauses.forget(&attempts);
            let finished = ctx.publish(upload, &cancelled::finished(&before, ctx.now())).await?;
            remove_upload(&finished, ctx).await
        }
        Err(problem) => {
            // noted before it is said: it was tried, whatever becomes of the word
            let due = ctx.pauses.after_failure(&attempts, ctx.now(), retry::controller_pause);
            ctx.publish(upload, &cancelled::stays(&before, &problem, ctx.now())).await?;
            tracing::warn!(upload = name, %problem, again_at = %due, "the disk snapshot of a cancelled Upload stays");
            Ok(ctx.wake_at(due))
        }
    }
}

async fn delete_left(left: &DiskSnapshot, ctx: &Context) -> Result<(), Problem> {
    let act = format!("delete disk snapshot {left}, which the original left when it cancelled its Upload");
    if let Some(refused) = flavor::refusal(&ctx.vcenters.flavor().await?, &act) {
        return Err(refused);
    }
    ctx.vcenters.delete_snapshot(&act, left, DELETING).await.map(drop)
}

async fn remove_upload(upload: &Upload, ctx: &Context) -> Result<Action, Error> {
    let ended = upload.phase().is_some_and(UploadPhase::is_terminal);
    let completed = upload.status.as_ref().and_then(|s| s.completion_timestamp.clone());
    let owner = upload.spec.snapshot_reference.clone();
    let has_ended = |s: &Snapshot| s.phase().is_some_and(SnapshotPhase::is_terminal);
    remove_when_due(upload, ended, completed.as_ref(), owner.as_deref(), has_ended, ctx).await
}

async fn download(download: Arc<Download>, ctx: Arc<Context>) -> Result<Action, Error> {
    if let Some(problem) = of_the_original::end(&download) {
        return new_disks::end(&download, &problem, &ctx).await; // it comes back with that change
    }
    let ended = download.phase().is_some_and(DownloadPhase::is_terminal);
    let completed = download.status.as_ref().and_then(|s| s.completion_timestamp.clone());
    if ended && completed.is_some() && is_needed(&download) {
        return Ok(Action::requeue(OWNER_CHECK)); // a disk without anybody must not be forgotten
    }
    let owner = download.spec.clone_from_snapshot_reference.clone();
    let has_ended = |c: &CloneFromSnapshot| c.phase().is_some_and(ClonePhase::is_terminal);
    remove_when_due(&*download, ended, completed.as_ref(), owner.as_deref(), has_ended, &ctx).await
}

async fn remove_when_due<T, O>(
    transfer: &T,
    ended: bool,
    completed: Option<&Time>,
    of: Option<&str>,
    has_ended: impl Fn(&O) -> bool,
    ctx: &Context,
) -> Result<Action, Error>
where
    T: Reported,
    T::Status: SaysWhen,
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    if !ended || transfer.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    match finished(completed, ctx.now()) {
        Finished::Untold => return ctx.say_when(transfer).await,
        Finished::KeepUntil(at) => return Ok(ctx.wake_at(at)),
        Finished::Remove => {}
    }
    if owner::<O>(of, ctx).await?.is_some_and(|owner| !has_ended(&owner)) {
        return Ok(Action::requeue(OWNER_CHECK));
    }
    let api: Api<T> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let this_one = Preconditions { uid: transfer.uid(), resource_version: transfer.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    api.delete(&transfer.name_any(), &params).await.map_err(Error::cluster("delete a finished transfer"))?;
    Ok(Action::await_change())
}

/// The Snapshot or clone that a transfer names as `<namespace>/<name>`, if it is there.
async fn owner<O>(named: Option<&str>, ctx: &Context) -> Result<Option<O>, Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let named = named.and_then(|named| named.split_once('/')).filter(|(ns, n)| !ns.is_empty() && !n.is_empty());
    let Some((namespace, name)) = named else { return Ok(None) };
    let owners: Api<O> = Api::namespaced(ctx.client.clone(), namespace);
    owners.get_opt(name).await.map_err(Error::cluster("read whom a transfer was for"))
}
