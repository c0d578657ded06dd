//! Begins a Snapshot, in the order of design D5b: repository, disk snapshot, Upload, then one status write. An attempt that fails leaves
//! nothing in vCenter, as far as it can; with an Upload there, it ends nothing any more.

use std::sync::Arc;
use std::time::Duration;

use api::entity::PvcSnapshotId;
use api::metadata::Blob;
use api::{Reason, Snapshot, Timestamp, Upload};
use connections::{Centers, from_kube, from_vsphere};
use disk::{DiskId, DiskSnapshot};
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::admission::{self, Turn};
use lifecycle::snapshot::status::{self, Record};
use lifecycle::snapshot::{self, Source, is_local, source};
use lifecycle::{Problem, flavor, retry};
use vsphere::Vcenter;

use super::observe;
use super::opening::open_repository;
use super::undo::undo;
use crate::error::{is_code, is_refusal};
use crate::steps::Step;
use crate::{Attempts, Context, Error, To};

/// How long vCenter may refuse for passing reasons before the Snapshot fails.
const TAKING: Duration = Duration::from_secs(600);

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
fn attempts_of(asked: &Snapshot) -> Attempts {
    Attempts::of(asked, To::Begin)
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
pub(super) async fn record(asked: &Snapshot, taken: &DiskSnapshot, ctx: &Context) -> Result<Record, Error> {
    let id = PvcSnapshotId {
        namespace: asked.namespace().unwrap_or_default(),
        claim: asked.spec.resource_handle.name.clone(),
        disk_snapshot: taken.clone(),
    };
    let claim = observe::claim(asked, ctx).await?;
    Ok(Record { snapshot_id: id.to_string(), metadata: claim.as_ref().map(Blob::of) })
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
