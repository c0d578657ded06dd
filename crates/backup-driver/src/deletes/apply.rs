//! Writes for a DeleteSnapshot. Each step may be repeated: what is gone counts as deleted.

use std::time::Duration;

use api::{DeleteSnapshot, Reason, Upload, WITHOUT_BACKUP_REPOSITORY};
use connections::{from_repository, from_vsphere};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::delete::{self, Target, target};
use lifecycle::{Problem, retry};
use serde_json::json;

use crate::steps::Step;
use crate::{Context, Error};

/// How long vCenter may refuse for passing reasons in one attempt.
const DELETING: Duration = Duration::from_secs(300);
/// How long opening the repository and deleting the restore point may take in one attempt.
const FORGETTING: Duration = Duration::from_secs(120);
/// How often a waiting deletion looks at the clock; the end of the Upload comes as an event.
const WAITING: Duration = Duration::from_secs(60);

/// Asks the Upload to stop.
pub(super) async fn cancel_upload(
    asked: &DeleteSnapshot,
    upload: Option<&Upload>,
    ctx: &Context,
) -> Result<Action, Error> {
    if let Some(upload) = upload {
        let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
        let patch = Patch::Merge(json!({ "spec": { "uploadCancel": true } }));
        let patched = uploads.patch(&upload.name_any(), &PatchParams::default(), &patch).await;
        patched.map_err(Error::cluster("ask the Upload to stop"))?;
        Step::UploadCancelled.done();
    }
    await_upload(asked, ctx).await
}

/// Waits until the Upload has stopped.
pub(super) async fn await_upload(asked: &DeleteSnapshot, ctx: &Context) -> Result<Action, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &delete::waiting(&before, ctx.now())).await?;
    Ok(Action::requeue(WAITING))
}

/// It cannot be done.
pub(super) async fn fail(asked: &DeleteSnapshot, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &delete::failed(&before, problem, ctx.now())).await?;
    Ok(Action::await_change())
}

/// Deletes the disk snapshot, then the restore point.
pub(super) async fn erase(asked: &DeleteSnapshot, ctx: &Context) -> Result<Action, Error> {
    let uid = asked.uid().unwrap_or_default();
    let erased = match target(asked) {
        Ok(target) => erase_both(asked, &target, ctx).await,
        Err(problem) => Err(problem),
    };
    let before = asked.status.clone().unwrap_or_default();
    match erased {
        Ok(()) => {
            ctx.publish(asked, &delete::completed(&before, ctx.now())).await?;
            ctx.pace.forget(&uid);
            Ok(Action::await_change())
        }
        Err(problem) => {
            ctx.publish(asked, &delete::step_failed(asked, &problem, ctx.now())).await?;
            Ok(Action::requeue(ctx.pace.after_error(&uid, retry::controller_pause)))
        }
    }
}

async fn erase_both(asked: &DeleteSnapshot, target: &Target, ctx: &Context) -> Result<(), Problem> {
    let vcenter = ctx.vcenters.get().await?;
    let deleted = vcenter.delete_snapshot(&target.disk_snapshot, DELETING).await;
    let deleted = deleted.map_err(|e| from_vsphere("delete the disk snapshot", &e))?;
    tracing::info!(disk_snapshot = %target.disk_snapshot, ?deleted, "deleted the disk snapshot");
    Step::DiskSnapshotDeleted.done();
    if asked.spec.backup_repository.is_empty() {
        return Ok(()); // local mode: there was never more
    }
    let late = |_| {
        let cause = format!("delete the restore point: not done within {} seconds", FORGETTING.as_secs());
        Problem::passing(Reason::StoreUnreachable, cause)
    };
    tokio::time::timeout(FORGETTING, forget(asked, target, ctx)).await.map_err(late)??;
    Step::PointForgotten.done();
    Ok(())
}

async fn forget(asked: &DeleteSnapshot, target: &Target, ctx: &Context) -> Result<(), Problem> {
    if asked.spec.backup_repository == WITHOUT_BACKUP_REPOSITORY {
        return Err(Problem::lasting(Reason::RepositoryUnknown, "spec.backupRepository names no repository"));
    }
    let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
    let only = |spaces: &[String]| if let [one] = spaces { Some(one.clone()) } else { None };
    let from = target.namespace.clone().or_else(|| only(&described.allowed_namespaces)).ok_or_else(|| {
        let cause = "neither the id nor the repository says from which namespace the claim was backed up";
        Problem::lasting(Reason::InvalidSpec, cause)
    })?;
    let repository = match ctx.repositories.open(&described, &from).await {
        Ok(repository) => repository,
        // nobody ever wrote there: nothing to delete
        Err(problem) if problem.reason == Reason::RepositoryMissing => return Ok(()),
        Err(problem) => return Err(problem),
    };
    let failed = |e: repository::Error| from_repository("delete the restore point", &e);
    while let Some(point) = repository.find(&target.disk_snapshot).await.map_err(failed)? {
        repository.forget(&point.id).await.map_err(failed)?;
        tracing::info!(point = %point.id, disk_snapshot = %target.disk_snapshot, "deleted the restore point");
    }
    Ok(())
}

/// Deletes a DeleteSnapshot that has been finished for a day.
pub(super) async fn remove(asked: &DeleteSnapshot, ctx: &Context) -> Result<Action, Error> {
    let deletes: Api<DeleteSnapshot> = Api::namespaced(ctx.client.clone(), &asked.namespace().unwrap_or_default());
    let this_one = Preconditions { uid: asked.uid(), resource_version: asked.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    deletes.delete(&asked.name_any(), &params).await.map_err(Error::cluster("delete a finished DeleteSnapshot"))?;
    Ok(Action::await_change())
}
