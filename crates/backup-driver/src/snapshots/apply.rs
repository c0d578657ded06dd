//! Writes for a Snapshot, in the order of design D5b. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use api::entity::{EntityId, PvcSnapshotId};
use api::metadata::Blob;
use api::parameters::RepositoryFormat;
use api::{Reason, Snapshot, Upload};
use connections::{Centers, from_original, from_vsphere};
use disk::{DiskId, DiskSnapshot};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::admission::{self, Turn};
use lifecycle::snapshot::status::{self, Record};
use lifecycle::snapshot::{self, Source, is_local, source};
use lifecycle::{Again, Problem, flavor};
use operator::Note;
use serde_json::json;
use vsphere::{ReasonKind, Vcenter};

use super::observe::{self, Seen};
use crate::error::{is_code, is_refusal};
use crate::steps::Step;
use crate::{Context, Error};

/// The repository has to be open within this time (design D5b): until then nothing exists.
const OPENING: Duration = Duration::from_secs(30);
/// How long vCenter and the API server may refuse for passing reasons before the Snapshot fails.
const TAKING: Duration = Duration::from_secs(600);
/// How long a disk snapshot that nobody will use is worth trying to delete.
const UNDOING: Duration = Duration::from_secs(120);

/// Checks, opens the repository, takes the disk snapshot, makes the Upload and says so.
pub(super) async fn begin(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    let act = format!("back up claim {}", asked.spec.resource_handle.name);
    match ctx.vcenters.flavor().await {
        Ok(found) => {
            if let Some(refused) = flavor::refusal(&found, &act) {
                return fail(asked, &refused, ctx).await;
            }
        }
        Err(problem) => return fail(asked, &problem, ctx).await,
    }
    let (claim, volume) = match observe::claim_and_volume(asked, ctx).await {
        Ok(found) => found,
        Err(error) => match error.forbidden() {
            Some(problem) => return fail(asked, &problem, ctx).await,
            None => return Err(error),
        },
    };
    let source = match source(asked, claim.as_ref(), volume.as_ref()) {
        Ok(source) => source,
        Err(problem) => return fail(asked, &problem, ctx).await,
    };
    let disk = match ctx.migrations.disk(&source.backing).await {
        Ok(disk) => disk,
        Err(problem) => return fail(asked, &problem, ctx).await,
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
        Err(problem) => return fail(asked, &problem, ctx).await,
    };
    let vcenter = match centers.of_disk(&disk).await {
        Ok(vcenter) => vcenter,
        Err(problem) if centers.only().is_none() => return not_found(asked, &problem, ctx).await,
        Err(problem) => return fail(asked, &problem, ctx).await,
    };
    Step::RepositoryOpened.done();
    let token = ctx.installation().token(asked);
    let taken = match vcenter.create_snapshot(&disk, &token, TAKING).await {
        Ok(snapshot) => DiskSnapshot { disk: disk.clone(), snapshot },
        Err(error) => {
            let problem = from_vsphere("take the disk snapshot", &error);
            undo(&vcenter, &disk, &token).await;
            return fail(asked, &problem, ctx).await;
        }
    };
    Step::SnapshotTaken.done();
    tracing::info!(disk_snapshot = %taken, snapshot = asked.name_any(), "took the disk snapshot");
    if is_local(asked) {
        let record = record(asked, &taken, ctx).await?;
        let before = asked.status.clone().unwrap_or_default();
        ctx.publish(asked, &status::kept_in_vsphere(&before, record, ctx.now())).await?;
        return Ok(Action::await_change());
    }
    let turn = turn(&centers, &vcenter, &disk, ctx).await;
    let upload = match make_upload(asked, &taken, &source, turn, ctx).await? {
        Ok(upload) => upload,
        Err(problem) => {
            undo(&vcenter, &disk, &token).await;
            return fail(asked, &problem, ctx).await;
        }
    };
    Step::UploadMade.done();
    let record = record(asked, &taken, ctx).await?;
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::followed(&before, &upload, Some(record), ctx.now())).await?;
    Step::SnapshotRecorded.done();
    Ok(Action::await_change())
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
    // the log of `admissions` tells what is wrong with the settings
    let Ok((budgets, _)) = ctx.vcenters.settings().await.map(|settings| settings.budgets()) else {
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

/// Makes the Upload; finds the one that is there already. The inner error is final.
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
    let found = match vcenter.list_snapshots(disk).await {
        Ok(found) => found,
        Err(error) if error.reason_kind() == ReasonKind::NotFound => return, // gone, and its snapshots with it
        Err(error) => {
            let error = Problem::chain(&error);
            tracing::warn!(%disk, error, "whether a disk snapshot was taken is not known; the sweep will look for it");
            return;
        }
    };
    for left in found.into_iter().filter(|s| s.description.trim() == token) {
        let left = DiskSnapshot { disk: disk.clone(), snapshot: left.id };
        if let Err(error) = vcenter.delete_snapshot(&left, UNDOING).await {
            let error = Problem::chain(&error);
            tracing::warn!(disk_snapshot = %left, error, "a disk snapshot that nobody needs stays until it is swept");
        }
    }
}

/// Nothing is there yet, so every problem is the end, but for those of the API server: they are said, and a while is waited.
async fn fail(asked: &Snapshot, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let of_the_cluster =
        matches!(problem.reason, Reason::Internal | Reason::ClusterForbidden | Reason::ClusterUnreachable);
    end_or_wait(asked, problem, of_the_cluster, ctx).await
}

/// None of several vCenters says that it has the disk. One that is silent is waited for as a single one is, but not here: the
/// Snapshots of the others' disks have their turn meanwhile.
async fn not_found(asked: &Snapshot, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let is_silent = matches!(problem.reason, Reason::VCenterUnreachable | Reason::VCenterFailed);
    end_or_wait(asked, problem, is_silent, ctx).await
}

async fn end_or_wait(asked: &Snapshot, problem: &Problem, passes: bool, ctx: &Context) -> Result<Action, Error> {
    let before = asked.status.clone().unwrap_or_default();
    if passes && problem.again == Again::Later && ctx.is_younger_than(asked, TAKING) {
        ctx.publish(asked, &status::waiting(&before, problem, ctx.now())).await?;
        return Err(problem.clone().into());
    }
    ctx.publish(asked, &status::failed(&before, problem, ctx.now())).await?;
    Ok(Action::await_change())
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

/// It was cancelled before anything existed.
pub(super) async fn cancel(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::canceled(&before, ctx.now())).await?;
    Ok(Action::await_change())
}

/// Its Upload was deleted before it ended: nobody will delete the disk snapshot but us.
pub(super) async fn abandon(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    let id = asked.status.as_ref().and_then(|s| s.snapshot_id.clone()).unwrap_or_default();
    if let Ok(taken) = id.parse::<EntityId>().and_then(|id| id.disk_snapshot()) {
        ctx.vcenters.delete_snapshot("delete the disk snapshot of a deleted Upload", &taken, UNDOING).await?;
    }
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::abandoned(&before, ctx.now())).await?;
    Ok(Action::await_change())
}

/// Deletes a Snapshot that has been finished for a day.
pub(super) async fn remove(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    let snapshots: Api<Snapshot> = Api::namespaced(ctx.client.clone(), &asked.namespace().unwrap_or_default());
    let this_one = Preconditions { uid: asked.uid(), resource_version: asked.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    snapshots.delete(&asked.name_any(), &params).await.map_err(Error::cluster("delete a finished Snapshot"))?;
    Ok(Action::await_change())
}
