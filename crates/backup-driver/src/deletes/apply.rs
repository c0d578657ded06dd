//! Writes for a DeleteSnapshot. Each step may be repeated: what is gone counts as deleted.

use std::time::Duration;

use api::parameters::RepositoryFormat;
use api::{BackupRepository, DeleteSnapshot, Reason, Upload};
use connections::{from_look_for_original, from_repository};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::delete::status::{self, Looked, Removed};
use lifecycle::delete::{self, Seen, Target, Waits, target};
use lifecycle::stored::{FailedLook, failed_look, is_outside_our_folder};
use lifecycle::{Problem, flavor, retry};
use repository::Repository;
use serde_json::json;
use vsphere::Deleted;

use crate::error::is_code;
use crate::maintenance::note_deletion;
use crate::repositories::note_namespace;
use crate::steps::Step;
use crate::{Attempts, Context, Error, To};

/// How long vCenter may refuse for passing reasons in one attempt.
const DELETING: Duration = Duration::from_secs(300);
/// How long opening the repository and deleting the restore point may take in one attempt.
const FORGETTING: Duration = Duration::from_secs(120);
/// How long the look may take whose restore point it is. A store that is away keeps no disk snapshot from going.
const NAMING: Duration = Duration::from_secs(10);
/// How soon it looks again where the Upload went meanwhile.
const GONE: Duration = Duration::from_secs(2);

/// What the attempts of a deletion are counted by.
pub(super) fn attempts_of(asked: &DeleteSnapshot) -> Attempts {
    Attempts::of(asked, To::Erase { generation: asked.metadata.generation.unwrap_or_default() })
}

/// Asks the Upload to stop. It comes back with the Upload's next change.
pub(super) async fn cancel_upload(asked: &DeleteSnapshot, seen: &Seen, ctx: &Context) -> Result<Action, Error> {
    let Some(upload) = &seen.upload else { return Ok(Action::requeue(GONE)) };
    let target = match target(asked) {
        Ok(target) => target,
        Err(problem) => return fail(asked, &problem, ctx).await,
    };
    if let (Some(namespace), Some(claim)) = (&upload.spec.source_namespace, &upload.spec.source_claim)
        && let Some(problem) = delete::of_another_claim(asked, "the Upload", &format!("/{namespace}/{claim}"))
    {
        return fail(asked, &problem, ctx).await;
    }
    let asked = &match find_first(asked, &target, Removes::WhatIsUnfinished, ctx).await {
        Ok(Some(place)) => {
            let before = asked.status.clone().unwrap_or_default();
            ctx.publish(asked, &status::found(&before, &place, asked.metadata.generation, ctx.now())).await?
        }
        Ok(None) => asked.clone(),
        Err(problem) => return not_erased(asked, &problem, ctx).await,
    };
    let name = upload.name_any();
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let patch = Patch::Merge(json!({ "spec": { "uploadCancel": true } }));
    match uploads.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => tracing::info!(upload = name, delete = asked.name_any(), "its backup is deleted; asked it to stop"),
        Err(e) if is_code(&e, 404) => return Ok(Action::requeue(GONE)), // since we looked
        Err(e) => return Err(Error::cluster("ask the Upload to stop")(e)),
    }
    Step::UploadCancelled.done();
    let asked = match delete::is_to_be_found(asked, target.namespace.as_deref()) {
        true => {
            // what it has stored goes with it, and nobody would find it later
            let (before, place) = (asked.status.clone().unwrap_or_default(), "an Upload of it was stopped");
            &ctx.publish(asked, &status::found(&before, place, asked.metadata.generation, ctx.now())).await?
        }
        false => asked,
    };
    let waits = Waits { reason: Reason::Canceling, message: format!("waiting until Upload {name} has stopped") };
    await_upload(asked, seen, &waits, ctx).await
}

/// Waits until the Upload has stopped, and says why it has not.
pub(super) async fn await_upload(
    asked: &DeleteSnapshot,
    seen: &Seen,
    waits: &Waits,
    ctx: &Context,
) -> Result<Action, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::waiting(&before, waits, ctx.now())).await?;
    Ok(Action::requeue(delete::look_again(asked, seen, ctx.now())))
}

/// It cannot be done.
pub(super) async fn fail(asked: &DeleteSnapshot, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::failed(&before, problem, ctx.now())).await?;
    Ok(Action::await_change())
}

/// Deletes disk snapshot and restore point; says why not, where one of them stays.
pub(super) async fn erase(asked: &DeleteSnapshot, ctx: &Context) -> Result<Action, Error> {
    let target = match target(asked) {
        Ok(target) => target,
        Err(problem) => return fail(asked, &problem, ctx).await,
    };
    let act = format!("delete disk snapshot {}", target.disk_snapshot);
    if let Some(refused) = flavor::refusal(&ctx.vcenters.flavor().await?, &act) {
        return fail(asked, &refused, ctx).await;
    }
    let before = asked.status.clone().unwrap_or_default();
    let before = match find_first(asked, &target, Removes::All, ctx).await {
        Ok(Some(place)) => status::found(&before, &place, asked.metadata.generation, ctx.now()),
        Ok(None) => before,
        Err(problem) => return not_erased(asked, &problem, ctx).await,
    };
    // the restore point's removal asks again: this look is for the disk snapshot, which goes first
    if let Ok(Some(problem)) = tokio::time::timeout(NAMING, of_another_claim(asked, &target, ctx)).await {
        return fail(asked, &problem, ctx).await;
    }
    let asked = &ctx.publish(asked, &status::erasing(&before, ctx.now())).await?;
    match erase_both(asked, &target, ctx).await {
        Ok(removed) => {
            let before = asked.status.clone().unwrap_or_default();
            ctx.publish(asked, &status::completed(&before, &removed, ctx.now())).await?;
            ctx.pauses.forget(&attempts_of(asked));
            Ok(Action::await_change())
        }
        Err(problem) => not_erased(asked, &problem, ctx).await,
    }
}

/// It ends, or is tried again.
async fn not_erased(asked: &DeleteSnapshot, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    if problem.reason == Reason::InvalidSpec {
        return fail(asked, problem, ctx).await;
    }
    // noted before it is said: what we say comes back as an event, and is no reason to try at once
    let due = ctx.pauses.after_failure(&attempts_of(asked), ctx.now(), retry::controller_pause);
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::not_yet(&before, problem, ctx.now())).await?;
    Ok(ctx.wake_at(due))
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removes {
    /// An Upload is stopped.
    WhatIsUnfinished,
    /// Nothing of the backup stays.
    All,
}

/// Looks for the backup where it must be found before anything of it is removed: where it was found now. An attempt that could not look
/// removes nothing; only an Upload is stopped all the same, whose backup is not there yet.
async fn find_first(
    asked: &DeleteSnapshot,
    target: &Target,
    removes: Removes,
    ctx: &Context,
) -> Result<Option<String>, Problem> {
    let named = target.namespace.as_deref();
    if delete::is_local(asked) || !delete::is_to_be_found(asked, named) {
        return Ok(None);
    }
    let looking = async {
        let described = described(asked, ctx).await?;
        let from = delete::namespace(asked, target, &described)?;
        if from.is_some() && removes == Removes::WhatIsUnfinished {
            return Ok(None);
        }
        let holds = ctx.repositories.original(&described).await?.holds(&target.disk_snapshot).await;
        let theirs = holds.map_err(|e| from_look_for_original("look for the backup", &e));
        let ours = match (&from, &theirs) {
            (Some(from), Err(_)) => Some((from.as_str(), has_point(&described, from, target, ctx).await)),
            (Some(from), Ok(_)) => Some((from.as_str(), Ok(false))), // nothing depends on it
            (None, _) => None,
        };
        delete::found_first(target, theirs, ours)
    };
    tokio::time::timeout(FORGETTING, looking).await.map_err(|_| late("look for the backup"))?
}

/// Whether the repository of that namespace shows the restore point.
async fn has_point(described: &BackupRepository, from: &str, target: &Target, ctx: &Context) -> Result<bool, Problem> {
    let Some(repository) = opened(described, from, ctx).await? else { return Ok(false) };
    let found = repository.find(&target.disk_snapshot).await;
    found.map(|point| point.is_some()).map_err(|e| from_repository("look for the restore point", &e))
}

/// Why the restore point of the disk snapshot is not what the id names; `None` also where nobody can look now.
async fn of_another_claim(asked: &DeleteSnapshot, target: &Target, ctx: &Context) -> Option<Problem> {
    let from = target.namespace.as_deref().filter(|_| !delete::is_local(asked))?;
    let described = described(asked, ctx).await.ok()?;
    let repository = ctx.repositories.open(&described, from).await.ok()?;
    let point = repository.find_readable(&target.disk_snapshot).await.ok()??;
    delete::of_another_claim(asked, THE_POINT, &point.path)
}

/// What is found in a repository, in words.
const THE_POINT: &str = "the restore point";

fn late(act: &str) -> Problem {
    let cause = format!("{act}: not done within {} seconds", FORGETTING.as_secs());
    Problem::passing(Reason::StoreUnreachable, cause)
}

/// Both, whatever the other says: a vCenter that is away keeps no data in the bucket.
async fn erase_both(asked: &DeleteSnapshot, target: &Target, ctx: &Context) -> Result<Removed, Problem> {
    let disk_snapshot = erase_disk_snapshot(target, ctx).await;
    if delete::is_local(asked) {
        return Ok(Removed { disk_snapshot: disk_snapshot?, ..Removed::default() }); // there was never more
    }
    let forgotten = tokio::time::timeout(FORGETTING, forget(asked, target, ctx)).await;
    let forgotten = forgotten.map_err(|_| late("delete the restore point"));
    let point = forgotten.and_then(std::convert::identity);
    if point.is_ok() {
        Step::PointForgotten.done();
    }
    if let (Err(_), Err(problem)) = (&disk_snapshot, &point) {
        tracing::info!(delete = asked.name_any(), %problem, "the restore point stays as well");
    }
    Ok(Removed { disk_snapshot: disk_snapshot?, ..point? })
}

async fn erase_disk_snapshot(target: &Target, ctx: &Context) -> Result<bool, Problem> {
    let deleted = ctx.vcenters.delete_snapshot("delete the disk snapshot", &target.disk_snapshot, DELETING).await?;
    tracing::info!(disk_snapshot = %target.disk_snapshot, ?deleted, "deleted the disk snapshot");
    Step::DiskSnapshotDeleted.done();
    Ok(deleted == Deleted::Now)
}

/// The BackupRepository that it names.
async fn described(asked: &DeleteSnapshot, ctx: &Context) -> Result<BackupRepository, Problem> {
    let found = ctx.repositories.find(&asked.spec.backup_repository).await;
    found.map_err(|problem| match problem.reason {
        Reason::RepositoryUnknown => problem.with_fix(Some(
            "Make a BackupRepositoryClaim for the same storage location and write the name of its BackupRepository \
             into spec.backupRepository."
                .to_owned(),
        )),
        _ => problem,
    })
}

async fn forget(asked: &DeleteSnapshot, target: &Target, ctx: &Context) -> Result<Removed, Problem> {
    let described = described(asked, ctx).await?;
    let from = delete::namespace(asked, target, &described)?;
    let ours = match &from {
        Some(from) => match forget_point(asked, &described, from, target, ctx).await {
            Err(refused) if refused.reason == Reason::InvalidSpec => return Err(refused), // it is another one's
            removed => removed,
        },
        None => Ok(None),
    };
    // in both formats: somebody may have chosen the other one between two attempts of an Upload
    let theirs = match forget_original(&described, target, ctx).await {
        // not where it is the only place that is looked in
        Err(problem) if from.is_some() && is_outside_our_folder(&problem, in_use(&described, ctx).await) => {
            tracing::warn!(%problem, "our keys do not reach the original's folder: a backup of the original would stay there");
            None
        }
        removed => Some(removed),
    };
    let originals_refused = theirs.is_none();
    let ours = ours?;
    let point = ours.unwrap_or(false) | theirs.unwrap_or(Ok(false))?;
    let repository = asked.spec.backup_repository.clone();
    let looked = Looked::InBucket { repository, namespace: from.map(|from| (from, ours.is_some())) };
    Ok(Removed { point, originals_refused, looked, ..Removed::default() })
}

/// The format that backups are written in; `None` where nobody can tell.
async fn in_use(described: &BackupRepository, ctx: &Context) -> Option<RepositoryFormat> {
    ctx.repositories.format(described).await.ok()
}

/// Opens the repository of that namespace; `None` where there is none.
async fn opened(described: &BackupRepository, from: &str, ctx: &Context) -> Result<Option<Repository>, Problem> {
    let problem = match ctx.repositories.open(described, from).await {
        Ok(repository) => return Ok(Some(repository)),
        Err(problem) => problem,
    };
    // a backup was stored, as far as we know: a bucket that is not there now keeps the deletion from its end
    match failed_look(&problem, RepositoryFormat::Restic, in_use(described, ctx).await, true) {
        FailedLook::Absent => Ok(None),
        FailedLook::AbsentUnlessMade if !ctx.repositories.is_made(described, from).await? => Ok(None),
        FailedLook::AbsentUnlessMade | FailedLook::Unknown => Err(problem),
    }
}

/// Removes the restore point from the repository; `false`: it has none; `None`: there is no repository.
///
/// # Errors
/// `InvalidSpec` where it is [another claim's](delete::of_another_claim).
async fn forget_point(
    asked: &DeleteSnapshot,
    described: &BackupRepository,
    from: &str,
    target: &Target,
    ctx: &Context,
) -> Result<Option<bool>, Problem> {
    let Some(repository) = opened(described, from, ctx).await? else { return Ok(None) };
    // an older driver noted nothing when it backed this namespace up. First: what is noted only after the removal would be called missing
    // by the attempt that comes after one that could not note it
    note_namespace(described, from, ctx).await?;
    let failed = |e: repository::Error| from_repository("delete the restore point", &e);
    let mut was_there = false;
    while let Some(point) = repository.find_readable(&target.disk_snapshot).await.map_err(failed)? {
        if let Some(problem) = delete::of_another_claim(asked, THE_POINT, &point.path) {
            return Err(problem);
        }
        repository.forget(&point.id).await.map_err(failed)?;
        tracing::info!(point = %point.id, disk_snapshot = %target.disk_snapshot, "deleted the restore point");
        was_there = true;
    }
    // also where there was no restore point: what a cancelled upload had sent lies there
    note_deletion(described, ctx).await;
    Ok(Some(was_there))
}

/// Removes what lies in the original's layout of it: a whole backup, or what was never finished; `false`: nothing.
async fn forget_original(described: &BackupRepository, target: &Target, ctx: &Context) -> Result<bool, Problem> {
    let original = ctx.repositories.original(described).await?;
    let removed = original.delete(&target.disk_snapshot).await;
    let removed = removed.map_err(|e| from_look_for_original("delete the backup", &e))?;
    let was_there = removed != astrolabe::Removed::default();
    if was_there {
        let (objects, uploads) = (removed.objects, removed.uploads);
        tracing::info!(disk_snapshot = %target.disk_snapshot, objects, uploads, "deleted in the original's layout");
    }
    Ok(was_there)
}

/// Deletes a DeleteSnapshot that has been finished for a day.
pub(super) async fn remove(asked: &DeleteSnapshot, ctx: &Context) -> Result<Action, Error> {
    let deletes: Api<DeleteSnapshot> = Api::namespaced(ctx.client.clone(), &asked.namespace().unwrap_or_default());
    let this_one = Preconditions { uid: asked.uid(), resource_version: asked.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    deletes.delete(&asked.name_any(), &params).await.map_err(Error::cluster("delete a finished DeleteSnapshot"))?;
    Ok(Action::await_change())
}
