//! Writes for a Snapshot, in the order of design D5b. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use api::entity::{EntityId, PvcSnapshotId};
use api::metadata::Blob;
use api::parameters::RepositoryFormat;
use api::{BackupRepository, Reason, Snapshot, Timestamp, Upload, names};
use connections::{Centers, from_kube, from_original, from_repository, from_vsphere};
use disk::{DiskId, DiskSnapshot};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::admission::{self, Turn};
use lifecycle::snapshot::status::{self, Record};
use lifecycle::snapshot::{self, Source, Undo, WithoutUpload, is_local, source};
use lifecycle::{Problem, flavor, retry};
use operator::Note;
use serde_json::json;
use vsphere::{ReasonKind, Vcenter};

use super::observe::{self, Seen};
use crate::error::{is_code, is_refusal};
use crate::steps::Step;
use crate::{Context, Error};

/// The repository has to be open within this time (design D5b): until then nothing exists.
const OPENING: Duration = Duration::from_secs(30);
/// How long vCenter may refuse for passing reasons before the Snapshot fails.
const TAKING: Duration = Duration::from_secs(600);
/// How long a disk snapshot that nobody will use is worth trying to delete.
const UNDOING: Duration = Duration::from_secs(120);
/// How often a node is looked at whose Upload is gone: no event comes when it lets go.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How long one look may take whether a backup is in the store.
const LOOKING: Duration = Duration::from_secs(60);

/// Checks, opens the repository, takes the disk snapshot, makes the Upload and says so.
pub(super) async fn begin(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    // what an attempt says comes back as an event, and is no reason for another one
    if let Some(due) = ctx.pauses.due(&attempts_of(asked)).filter(|due| *due > ctx.now()) {
        return Ok(ctx.wake_at(due));
    }
    let begun = ctx.now(); // an attempt may take long
    let act = format!("back up claim {}", asked.spec.resource_handle.name);
    match ctx.vcenters.flavor().await {
        Ok(found) => {
            if let Some(refused) = flavor::refusal(&found, &act) {
                return fail(asked, &refused, begun, ctx).await;
            }
        }
        Err(problem) => return fail(asked, &problem, begun, ctx).await,
    }
    let (claim, volume) = match observe::claim_and_volume(asked, ctx).await {
        Ok(found) => found,
        Err(error) => match error.forbidden() {
            Some(problem) => return fail(asked, &problem, begun, ctx).await,
            None => return Err(error),
        },
    };
    let source = match source(asked, claim.as_ref(), volume.as_ref()) {
        Ok(source) => source,
        Err(problem) => return fail(asked, &problem, begun, ctx).await,
    };
    let disk = match ctx.migrations.disk(&source.backing).await {
        Ok(disk) => disk,
        Err(problem) => return fail(asked, &problem, begun, ctx).await,
    };
    let before = asked.status.clone().unwrap_or_default();
    let beginning = status::snapshotting(&before, ctx.now());
    // another attempt writes nothing that the API server would refuse if it was cancelled or deleted meanwhile
    if beginning == before && !observe::is_unchanged(asked, ctx).await? {
        return Ok(Action::await_change());
    }
    let asked = &ctx.publish(asked, &beginning).await?;
    let centers = match ready(asked, &source, ctx).await {
        Ok(centers) => centers,
        Err(problem) => return fail(asked, &problem, begun, ctx).await,
    };
    let vcenter = match centers.of_disk(&disk).await {
        Ok(vcenter) => vcenter,
        Err(problem) if centers.only().is_none() => return not_found(asked, &problem, begun, ctx).await,
        Err(problem) => return fail(asked, &problem, begun, ctx).await,
    };
    Step::RepositoryOpened.done();
    let token = ctx.installation().token(asked);
    let taken = match vcenter.create_snapshot(&disk, &token, TAKING).await {
        Ok(snapshot) => DiskSnapshot { disk: disk.clone(), snapshot },
        Err(error) => {
            let problem = from_vsphere("take the disk snapshot", &error);
            undo(&vcenter, &disk, &token).await;
            return fail(asked, &problem, begun, ctx).await;
        }
    };
    Step::SnapshotTaken.done();
    tracing::info!(disk_snapshot = %taken, snapshot = asked.name_any(), "took the disk snapshot");
    if is_local(asked) {
        let record = record(asked, &taken, ctx).await?;
        let before = asked.status.clone().unwrap_or_default();
        ctx.publish(asked, &status::kept_in_vsphere(&before, record, ctx.now())).await?;
        ctx.pauses.forget(&attempts_of(asked));
        return Ok(Action::await_change());
    }
    let turn = turn(&centers, &vcenter, &disk, ctx).await;
    let upload = match make_upload(asked, &taken, &source, turn, ctx).await? {
        Ok(upload) => upload,
        Err(problem) => {
            undo(&vcenter, &disk, &token).await;
            return fail(asked, &problem, begun, ctx).await;
        }
    };
    Step::UploadMade.done();
    let record = record(asked, &taken, ctx).await?;
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::followed(&before, &upload, Some(record), ctx.now())).await?;
    Step::SnapshotRecorded.done();
    ctx.pauses.forget(&attempts_of(asked));
    Ok(Action::await_change())
}

/// What the attempts to begin are counted by.
pub(super) fn attempts_of(asked: &Snapshot) -> String {
    format!("{}/begin", asked.uid().unwrap_or_default())
}

/// Repository open and vCenter known, before anything is made.
async fn ready(asked: &Snapshot, source: &Source, ctx: &Context) -> Result<Arc<Centers>, Problem> {
    let centers = ctx.vcenters.centers().await?;
    if is_local(asked) {
        return Ok(centers);
    }
    open_repository(asked, &source.namespace, ctx).await?;
    Ok(centers)
}

/// Opens the repository of claims that are backed up from `namespace`, and makes it where there is none.
async fn open_repository(asked: &Snapshot, namespace: &str, ctx: &Context) -> Result<(), Problem> {
    let opening = async {
        let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
        if ctx.repositories.format(&described).await? == RepositoryFormat::Legacy {
            let original = ctx.repositories.original(&described).await?;
            original.reach().await.map_err(|e| from_original("reach the bucket", &e))?;
            return Ok(None); // nothing has to be made before
        }
        ctx.repositories.open_or_make(&described, namespace).await.map(Some)
    };
    let late = |_| {
        let cause = format!("open the repository: it was not open within {} seconds", OPENING.as_secs());
        Problem::passing(Reason::StoreUnreachable, cause)
    };
    let opened = tokio::time::timeout(OPENING, opening).await.map_err(late)??;
    if let Some(opened) = opened.filter(|opened| opened.well_known_key) {
        let reason = Reason::RepositoryPasswordDefault;
        let message = format!("{} {}", reason.meaning(), reason.fix());
        tracing::warn!(%reason, place = opened.repository.place(), message);
        ctx.publisher.note(asked, &Note { reason, message, warning: true }).await;
    }
    Ok(())
}

/// Whether the Upload of a disk waits for its turn. What cannot be found out holds no backup up.
async fn turn(centers: &Centers, vcenter: &Vcenter, disk: &DiskId, ctx: &Context) -> Turn {
    let Ok(budgets) = ctx.vcenters.settings().await.map(|settings| settings.budgets()) else {
        return Turn::AtOnce;
    };
    let datastore = match budgets.datastore {
        Some(_) => vcenter.retrieve_disk(disk).await.map(|disk| Some(centers.id_of(vcenter, &disk.datastore))),
        None => Ok(None),
    };
    let datastore = datastore.unwrap_or_else(|error| {
        let error = Problem::chain(&error);
        tracing::warn!(%disk, error, "its datastore is not known, so its upload waits for no other of it");
        None
    });
    admission::turn(budgets, datastore)
}

/// Makes the Upload; finds the one that is there already. After the inner error there is none.
async fn make_upload(
    asked: &Snapshot,
    taken: &DiskSnapshot,
    source: &Source,
    turn: Turn,
    ctx: &Context,
) -> Result<Result<Upload, Problem>, Error> {
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let wanted = snapshot::upload(asked, taken, source, turn, &ctx.cluster, ctx.now());
    match uploads.create(&PostParams::default(), &wanted).await {
        Ok(upload) => Ok(Ok(upload)),
        Err(e) if is_code(&e, 409) => {
            let read = uploads.get(&wanted.name_any()).await;
            read.map(Ok).map_err(Error::cluster("read the Upload that is there already"))
        }
        Err(e) if is_refusal(&e) => {
            let cause = format!("make Upload {}: {e}", wanted.name_any());
            Ok(Err(Problem::lasting(Reason::Internal, cause)))
        }
        // as long as it lasts, no disk snapshot is held
        Err(e) if is_code(&e, 403) => Ok(Err(from_kube(&format!("make Upload {}", wanted.name_any()), &e))),
        Err(e) => Err(Error::cluster("make the Upload")(e)),
    }
}

/// What the Snapshot's status keeps: the backup's name and the claim as it is now.
async fn record(asked: &Snapshot, taken: &DiskSnapshot, ctx: &Context) -> Result<Record, Error> {
    let id = PvcSnapshotId {
        namespace: asked.namespace().unwrap_or_default(),
        claim: asked.spec.resource_handle.name.clone(),
        disk_snapshot: taken.clone(),
    };
    let claim = observe::claim(asked, ctx).await?;
    Ok(Record { snapshot_id: id.to_string(), metadata: claim.as_ref().map(Blob::of) })
}

/// Deletes what may have been taken under our token: a Snapshot that failed leaves no disk snapshot. What cannot be
/// deleted now is left to the sweep of [`crate::orphans`].
async fn undo(vcenter: &Vcenter, disk: &DiskId, token: &str) {
    if let Err(problem) = delete_marked(vcenter, disk, token).await {
        tracing::warn!(%disk, %problem, "a disk snapshot that nobody needs may be there until it is swept");
    }
}

/// Deletes the disk snapshots of a disk that carry our token.
async fn delete_marked(vcenter: &Vcenter, disk: &DiskId, token: &str) -> Result<(), Problem> {
    let found = match vcenter.list_snapshots(disk).await {
        Ok(found) => found,
        // the catalog may deny a disk for a moment
        Err(error) if error.reason_kind() == ReasonKind::NotFound => return gone(vcenter, disk).await,
        Err(error) => return Err(from_vsphere("look for a disk snapshot that was taken", &error)),
    };
    for left in found.into_iter().filter(|s| s.description.trim() == token) {
        let left = DiskSnapshot { disk: disk.clone(), snapshot: left.id };
        let deleted = vcenter.delete_snapshot(&left, UNDOING).await;
        deleted.map_err(|e| from_vsphere("delete a disk snapshot that nobody needs", &e))?;
        tracing::info!(disk_snapshot = %left, "deleted a disk snapshot that nobody needs");
    }
    Ok(())
}

/// Whether a disk is gone, and its disk snapshots with it.
///
/// # Errors
/// It is not, or nobody can say.
async fn gone(vcenter: &Vcenter, disk: &DiskId) -> Result<(), Problem> {
    let act = "look whether the disk is gone";
    match vcenter.retrieve_disk(disk).await {
        Err(error) if error.reason_kind() == ReasonKind::NotFound => Ok(()),
        Err(error) => Err(from_vsphere(act, &error)),
        Ok(_) => {
            let cause = format!("{act}: disk {disk} is there, and its disk snapshots are not listed");
            Err(Problem::passing(Reason::VCenterFailed, cause))
        }
    }
}

/// It is tried again for a while after the attempt that has `begun` then, or ends.
async fn fail(asked: &Snapshot, problem: &Problem, begun: Timestamp, ctx: &Context) -> Result<Action, Error> {
    let last = snapshot::begins_until(asked, problem, ctx.pauses.due(&attempts_of(asked)), begun);
    end_or_wait(asked, problem, begun, last, ctx).await
}

/// None of several vCenters says that it has the disk. It is not waited for here: the Snapshots of the others' disks have their turn
/// meanwhile.
async fn not_found(asked: &Snapshot, problem: &Problem, begun: Timestamp, ctx: &Context) -> Result<Action, Error> {
    let last = snapshot::disk_looked_for_until(asked, problem, ctx.pauses.due(&attempts_of(asked)), begun);
    end_or_wait(asked, problem, begun, last, ctx).await
}

/// Says why it does not begin, and tries again, later each time and for the last time at `last`; without one it ends.
async fn end_or_wait(
    asked: &Snapshot,
    problem: &Problem,
    begun: Timestamp,
    last: Option<Timestamp>,
    ctx: &Context,
) -> Result<Action, Error> {
    let (before, now) = (asked.status.clone().unwrap_or_default(), ctx.now());
    let Some(last) = last else {
        ctx.publish(asked, &status::failed(&before, problem, now)).await?;
        ctx.pauses.forget(&attempts_of(asked));
        return Ok(Action::await_change());
    };
    // noted before it is said: it was tried, whatever becomes of the word
    let pause = |errors| retry::controller_pause(errors).min(retry::wake(last, now));
    let due = ctx.pauses.after_failure(&attempts_of(asked), now, pause);
    ctx.publish(asked, &status::waiting(&before, problem, begun)).await?;
    let namespace = asked.namespace().unwrap_or_default();
    tracing::warn!(namespace, name = asked.name_any(), %problem, again_at = %due, "a Snapshot does not begin");
    Ok(ctx.wake_at(due))
}

/// Says what the Upload says, and fills in what a killed driver could not write.
pub(super) async fn follow(seen: &Seen, ctx: &Context) -> Result<Action, Error> {
    let Some(upload) = &seen.upload else { return Ok(Action::await_change()) };
    if snapshot::needs_repository(upload) {
        // its own attempts tell what is wrong with it, and come again
        if let Err(problem) = open_repository(&seen.snapshot, &seen.snapshot.namespace().unwrap_or_default(), ctx).await
        {
            tracing::warn!(upload = upload.name_any(), error = %problem, "an Upload of the original has no repository yet");
        }
    }
    let before = seen.snapshot.status.clone().unwrap_or_default();
    let incomplete = before.snapshot_id.is_none() || before.metadata.as_ref().is_none_or(Blob::is_empty);
    let taken = upload.spec.snapshot_id.as_deref().and_then(|id| id.parse::<EntityId>().ok()?.disk_snapshot().ok());
    let record = match taken.filter(|_| incomplete) {
        Some(taken) => Some(record(&seen.snapshot, &taken, ctx).await?),
        None => None,
    };
    ctx.publish(&seen.snapshot, &status::followed(&before, upload, record, ctx.now())).await?;
    Ok(Action::await_change())
}

/// Asks the Upload to stop; what becomes of it is followed as ever.
pub(super) async fn stop_upload(seen: &Seen, ctx: &Context) -> Result<Action, Error> {
    let name = seen.upload.as_ref().map(ResourceExt::name_any).unwrap_or_default();
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let patch = Patch::Merge(json!({ "spec": { "uploadCancel": true } }));
    match uploads.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => tracing::info!(upload = name, snapshot = seen.snapshot.name_any(), "cancelled; asked it to stop"),
        Err(e) if is_code(&e, 404) => {} // deleted since we looked, which comes as an event
        Err(e) => return Err(Error::cluster("ask the Upload to stop")(e)),
    }
    follow(seen, ctx).await
}

/// It was cancelled, and no Upload runs: what it has left in vSphere goes first.
pub(super) async fn cancel(asked: &Snapshot, undo: &Undo, ctx: &Context) -> Result<Action, Error> {
    if let Some(due) = ctx.pauses.due(&attempts_to_end(asked)).filter(|due| *due > ctx.now()) {
        return Ok(ctx.wake_at(due));
    }
    let undoing = async {
        match undo {
            Undo::Nothing => Ok(()),
            Undo::Marked => delete_taken(asked, ctx).await,
            Undo::Recorded(taken) => {
                ctx.vcenters.delete_snapshot("delete the disk snapshot", taken, UNDOING).await?;
                tracing::info!(disk_snapshot = %taken, snapshot = asked.name_any(), "cancelled; deleted the disk snapshot");
                Ok(())
            }
        }
    };
    let undone = tokio::time::timeout(UNDOING, undoing).await.unwrap_or_else(|_| {
        let cause = format!("delete the disk snapshot: it was not gone within {} seconds", UNDOING.as_secs());
        Err(Error::Problem(Problem::passing(Reason::VCenterFailed, cause)))
    });
    let left = match undone {
        Ok(()) => None,
        Err(error) => {
            let problem = match error {
                Error::Problem(problem) => problem,
                error => match error.forbidden() {
                    Some(problem) => problem,
                    None => return Err(error),
                },
            };
            if snapshot::is_undone_later(asked, &problem) {
                return end_later(asked, &problem, ctx).await;
            }
            tracing::warn!(snapshot = asked.name_any(), %problem, "cancelled; its disk snapshot may be left");
            Some(problem)
        }
    };
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::canceled(&before, undo, left.as_ref(), is_local(asked), ctx.now())).await?;
    ctx.pauses.forget(&attempts_to_end(asked));
    Ok(Action::await_change())
}

/// Deletes what was taken for a Snapshot and not recorded.
async fn delete_taken(asked: &Snapshot, ctx: &Context) -> Result<(), Error> {
    let (claim, volume) = observe::claim_and_volume(asked, ctx).await?;
    let source = source(asked, claim.as_ref(), volume.as_ref())?;
    let disk = ctx.migrations.disk(&source.backing).await?;
    let vcenter = match ctx.vcenters.of_disk(&disk).await {
        Ok(vcenter) => vcenter,
        Err(problem) if problem.reason == Reason::DiskMissing => return Ok(()), // gone, and its snapshots with it
        Err(problem) => return Err(problem.into()),
    };
    Ok(delete_marked(&vcenter, &disk, &ctx.installation().token(asked)).await?)
}

/// What the attempts to end are counted by.
pub(super) fn attempts_to_end(asked: &Snapshot) -> String {
    format!("{}/end", asked.uid().unwrap_or_default())
}

/// Says why it does not end yet, and tries again, later each time.
async fn end_later(asked: &Snapshot, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let (before, now) = (asked.status.clone().unwrap_or_default(), ctx.now());
    // noted before it is said: what we say comes back as an event, and is no reason to try at once
    let due = ctx.pauses.after_failure(&attempts_to_end(asked), now, retry::controller_pause);
    ctx.publish(asked, &status::held_up(&before, problem, now)).await?;
    let namespace = asked.namespace().unwrap_or_default();
    tracing::warn!(namespace, name = asked.name_any(), %problem, again_at = %due, "a Snapshot does not end");
    Ok(ctx.wake_at(due))
}

/// Its Upload is gone and had not ended, as far as we know: nobody will delete the disk snapshot but us. Whether the backup is there the
/// store says.
pub(super) async fn abandon(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    if let Some(due) = ctx.pauses.due(&attempts_to_end(asked)).filter(|due| *due > ctx.now()) {
        return Ok(ctx.wake_at(due));
    }
    let id = asked.status.as_ref().and_then(|s| s.snapshot_id.clone()).unwrap_or_default();
    let found = match id.parse::<EntityId>().and_then(|id| id.disk_snapshot()) {
        Ok(taken) => {
            // its node may still read the disk snapshot, and removes what it stored; one that died loses the lease within a minute
            let lease = names::upload_lease(&names::upload(&taken.snapshot));
            if let Some((node, _)) = ctx.transfers.held_by_another(&lease).await? {
                let cause = format!("its Upload is gone; waiting until node {node} has let go of the disk");
                let before = asked.status.clone().unwrap_or_default();
                let waits = status::held_up(&before, &Problem::passing(Reason::Canceling, cause), ctx.now());
                ctx.publish(asked, &waits).await?;
                return Ok(Action::requeue(LETTING_GO));
            }
            let act = "delete the disk snapshot of a deleted Upload";
            if let Err(problem) = ctx.vcenters.delete_snapshot(act, &taken, UNDOING).await {
                return end_later(asked, &problem, ctx).await;
            }
            let found = tokio::time::timeout(LOOKING, is_stored(asked, &taken, ctx)).await;
            found.unwrap_or_else(|_| {
                let cause = format!("look for the backup: no answer within {} seconds", LOOKING.as_secs());
                Err(Problem::passing(Reason::StoreUnreachable, cause))
            })
        }
        Err(_) => Ok(false), // it names none
    };
    let (before, now) = (asked.status.clone().unwrap_or_default(), ctx.now());
    let ended = match snapshot::without_upload(asked, found) {
        WithoutUpload::LookAgain(problem) => return end_later(asked, &problem, ctx).await,
        WithoutUpload::Uploaded => status::uploaded(&before, now),
        WithoutUpload::Abandoned(unknown) => status::abandoned(&before, unknown.as_ref(), now),
    };
    ctx.publish(asked, &ended).await?;
    ctx.pauses.forget(&attempts_to_end(asked));
    Ok(Action::await_change())
}

/// Whether the backup of a disk snapshot is in the store, in either format. Reads only.
async fn is_stored(asked: &Snapshot, taken: &DiskSnapshot, ctx: &Context) -> Result<bool, Problem> {
    let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
    let theirs = is_in_originals_layout(&described, taken, ctx).await;
    if let Ok(true) = theirs {
        return Ok(true);
    }
    let ours = is_in_repository(&described, &asked.namespace().unwrap_or_default(), taken, ctx).await?;
    Ok(ours || theirs?)
}

async fn is_in_originals_layout(
    described: &BackupRepository,
    taken: &DiskSnapshot,
    ctx: &Context,
) -> Result<bool, Problem> {
    let error = match ctx.repositories.original(described).await?.open(taken).await {
        Ok(found) => return Ok(found.is_some()),
        Err(error) => error,
    };
    let problem = from_original("look for the backup", &error);
    match problem.reason {
        Reason::BucketMissing => Ok(false),
        Reason::OldBackupIncomplete => {
            tracing::warn!(%problem, "what is there is no whole backup");
            Ok(false)
        }
        // keys for our folder alone have never written there
        Reason::StoreAccessDenied
            if matches!(ctx.repositories.format(described).await, Ok(RepositoryFormat::Restic)) =>
        {
            Ok(false)
        }
        _ => Err(problem),
    }
}

async fn is_in_repository(
    described: &BackupRepository,
    from: &str,
    taken: &DiskSnapshot,
    ctx: &Context,
) -> Result<bool, Problem> {
    let repository = match ctx.repositories.open(described, from).await {
        Ok(repository) => repository,
        Err(problem) if matches!(problem.reason, Reason::RepositoryMissing | Reason::BucketMissing) => {
            return Ok(false);
        }
        // who has only backups of the original may never have had a key
        Err(problem) if problem.reason == Reason::RepositoryPasswordMissing => {
            return if ctx.repositories.is_made(described, from).await? { Err(problem) } else { Ok(false) };
        }
        Err(problem) => return Err(problem),
    };
    let found = repository.find(taken).await.map_err(|e| from_repository("look for the backup", &e))?;
    Ok(found.is_some())
}

/// Deletes a Snapshot that has been finished for a day.
pub(super) async fn remove(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    let snapshots: Api<Snapshot> = Api::namespaced(ctx.client.clone(), &asked.namespace().unwrap_or_default());
    let this_one = Preconditions { uid: asked.uid(), resource_version: asked.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    snapshots.delete(&asked.name_any(), &params).await.map_err(Error::cluster("delete a finished Snapshot"))?;
    Ok(Action::await_change())
}
