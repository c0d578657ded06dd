//! Does what was decided for an Upload: copies or cleans up, writes the outcome, gives the lease back.

use std::time::Duration;

use api::parameters::RepositoryFormat;
use api::{Reason, Upload, names};
use connections::{Settings, from_repository};
use disk::DiskSnapshot;
use kube::ResourceExt as _;
use lifecycle::Problem;
use lifecycle::retry::UploadRetries;
use lifecycle::transfer::upload::{self as says, AfterFailure};
use lifecycle::transfer::{Leftover, Work, leftover};
use repository::Repository;

use super::copy::{self, Copied};
use super::original;
use crate::at_work::Place;
use crate::attempt::{Claimed, NotDone, is_ready, once_the_cluster_answers};
use crate::context::Context;
use crate::interrupt::{Interrupt, Why};
use crate::report::{Report, Said};
use crate::steps::Step;

/// How long one attempt to delete a disk snapshot may take before the next one is left to the back-off.
const DELETE_WITHIN: Duration = Duration::from_secs(300);

/// How long one look may take whether a backup is in the store.
const LOOK_WITHIN: Duration = Duration::from_secs(120);

/// How long an upload that has ended waits for its repository, to remove its checkpoints.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Does the work under its lease, and gives the lease back.
pub(super) async fn perform(ctx: &Context, Claimed { object, work, lease, .. }: Claimed<Upload>, place: &Place) {
    let report = Report::new(ctx.publisher.clone(), ctx.client.clone(), object, lease.lost());
    match work {
        Work::Copy { .. } => {
            Step::UploadBegun.done();
            let interrupt = Interrupt::new(place.stop.clone(), lease.lost(), ctx.shutdown.clone());
            copy(ctx, &report, &interrupt).await;
        }
        Work::CleanUp => clean_up(ctx, &report).await,
        Work::Cancel => cancel(ctx, &report).await,
    }
    place.note(report.was_refused(), work == Work::Cancel);
    Step::UploadTold.done();
    lease.release().await;
}

async fn copy(ctx: &Context, report: &Report<Upload>, interrupt: &Interrupt) {
    match copy::run(ctx, report, interrupt).await {
        Ok(copied) => finish(ctx, report, &copied).await,
        Err(NotDone::Interrupted(Why::Asked)) => cancel(ctx, report).await,
        Err(NotDone::Interrupted(Why::Shutdown)) => {
            report.say_shortly(|status, now| says::given_back(status, &ctx.node, now)).await;
        }
        Err(NotDone::Interrupted(why)) => tracing::info!(?why, "stopped; whoever comes next goes on"),
        Err(NotDone::Failed(problem)) => failed(ctx, report, &problem).await,
    }
}

/// The restore point stands: the disk snapshot goes, then it is said.
async fn finish(ctx: &Context, report: &Report<Upload>, copied: &Copied) {
    if report.is_silenced() {
        return; // who has it now finds the restore point
    }
    match delete_snapshot(ctx, &copied.snapshot).await {
        Ok(()) => {
            Step::DiskSnapshotDeleted.done();
            report.say(|status, now| says::completed(&copied.told(status, now), copied.progress, now)).await;
        }
        Err(problem) => {
            report
                .say(|status, now| {
                    let status = says::progressed(&copied.told(status, now), copied.progress);
                    says::cleanup_failed(&says::stored(&status, now), &problem, now)
                })
                .await;
        }
    }
}

/// An attempt failed: another follows, or the disk snapshot goes and the upload is given up.
async fn failed(ctx: &Context, report: &Report<Upload>, problem: &Problem) {
    tracing::warn!(reason = %problem.reason, problem = problem.message(), "the upload failed");
    let retries = match Settings::read(&ctx.client, &ctx.namespace).await {
        Ok(settings) => UploadRetries::from_setting(settings.upload_retry_max()),
        Err(_) => UploadRetries::default(), // the API server is away; the status will wait for it too
    };
    let status = report.object().await.status.unwrap_or_default();
    let now = api::Timestamp::now();
    if let AfterFailure::TryAgain(next) = says::attempt_failed(&status, problem, retries, now) {
        report.say(|_, _| next.clone()).await;
        return;
    }
    if report.is_silenced() {
        return; // who has it now may be reading the disk snapshot
    }
    let upload = report.object().await;
    let stays = match copy::snapshot_of(&upload) {
        Ok(snapshot) => delete_snapshot(ctx, &snapshot).await.err(),
        Err(_) => None, // it names none
    };
    if report.is_silenced() {
        return; // who has it now copies what would be removed here
    }
    // nobody goes on with it; what cannot be removed now goes with the backup's deletion
    if tokio::time::timeout(OPEN_WITHIN, forget_unfinished(ctx, &upload)).await.is_err() {
        tracing::warn!(seconds = OPEN_WITHIN.as_secs(), "what was stored was not removed in time and stays until then");
    }
    report.say(|status, now| says::given_up(status, problem, stays.as_ref().map_or(Ok(()), Err), now)).await;
}

/// Removes what would help another attempt.
async fn forget_unfinished(ctx: &Context, upload: &Upload) {
    if let (Ok(tree), Ok(snapshot)) = (original::any_tree_of(ctx, upload).await, copy::snapshot_of(upload))
        && let Err(problem) = original::forget_unfinished(&tree, &upload.name_any(), &snapshot).await
        && problem.reason != Reason::StoreAccessDenied
    // keys for our folder alone have never written there
    {
        tracing::warn!(%problem, "what was stored in the original's layout stays");
    }
    if let Ok(repository) = copy::repository_of(ctx, upload).await {
        copy::forget_checkpoints(&repository, &upload.name_any()).await;
    }
}

/// Deletes the disk snapshot of a copy that has ended; whether the upload is done is what the repository says.
async fn clean_up(ctx: &Context, report: &Report<Upload>) {
    let upload = report.object().await;
    let found = match copy::snapshot_of(&upload) {
        Err(problem) => Err(problem), // it names none
        Ok(snapshot) => {
            if let Err(problem) = delete_snapshot(ctx, &snapshot).await {
                report.say(|status, now| says::cleanup_failed(status, &problem, now)).await;
                return;
            }
            let found = tokio::time::timeout(LOOK_WITHIN, copy::is_stored(ctx, &upload, &snapshot)).await;
            let found = found.unwrap_or_else(|_| {
                let cause = format!("look for the restore point: no answer within {} s", LOOK_WITHIN.as_secs());
                Err(Problem::passing(Reason::StoreUnreachable, cause))
            });
            if found.is_ok() {
                forget_checkpoints(ctx, &upload).await;
            }
            found
        }
    };
    let is_cancelled = upload.spec.upload_cancel;
    report.say(|status, now| says::cleaned(status, found.as_ref().copied(), is_cancelled, now)).await;
}

/// Removes the checkpoints of an upload of which the store has said whether it has the backup: nobody needs them any more, and what it said
/// does not hang on whether they go.
async fn forget_checkpoints(ctx: &Context, upload: &Upload) {
    match tokio::time::timeout(OPEN_WITHIN, copy::repository_of(ctx, upload)).await {
        Ok(Ok(repository)) => copy::forget_checkpoints(&repository, &upload.name_any()).await, // has a bound of its own
        Ok(Err(problem)) => tracing::debug!(%problem, "no repository to remove checkpoints from"),
        Err(_) => tracing::warn!(
            seconds = OPEN_WITHIN.as_secs(),
            "the repository was not opened in time; checkpoints are left until a maintenance run"
        ),
    }
}

/// Removes what there is of an upload that nobody wants any more.
async fn cancel(ctx: &Context, report: &Report<Upload>) {
    if report.say(says::cancelling).await == Said::NotOurs {
        return;
    }
    let outcome = async {
        let upload = report.object().await;
        // the disk snapshot first: it costs the datastore, and nothing below may keep it from going
        let snapshot = copy::snapshot_of(&upload).ok(); // `None`: it names none, so there is none to delete
        if let Some(snapshot) = &snapshot {
            delete_snapshot(ctx, snapshot).await?;
        }
        let name = upload.name_any();
        // in both formats: somebody may have chosen the other one between two attempts
        let in_use = format_in_use(ctx, &upload).await;
        let removed = async {
            let tree = original::any_tree_of(ctx, &upload).await?;
            original::forget(&tree, &name, snapshot.as_ref()).await
        };
        let theirs = what_stays(&upload, RepositoryFormat::Legacy, in_use, removed.await);
        let ours = match copy::repository_of(ctx, &upload).await {
            Ok(repository) => forget(&repository, &name, snapshot.as_ref()).await.map(|()| None),
            Err(problem) => what_stays(&upload, RepositoryFormat::Restic, in_use, Err(problem)),
        };
        Ok::<Option<Problem>, Problem>(ours?.or(theirs?))
    };
    match outcome.await {
        Ok(left) => report.say(|status, now| says::canceled(status, left.as_ref(), now)).await,
        Err(problem) => report.say(|status, now| says::cancel_waits(status, &problem, now)).await,
    };
}

/// How backups are written now where an Upload goes; `None` where nobody can tell.
async fn format_in_use(ctx: &Context, upload: &Upload) -> Option<RepositoryFormat> {
    let described = copy::describe_repository(ctx, upload.spec.backup_repository.as_deref()).await.ok()?;
    ctx.repositories.format(&described).await.ok()
}

/// What is left in the store after a removal: nothing, or what nobody can see to any more.
///
/// # Errors
/// The problem, where something may be left that can be removed later.
fn what_stays(
    upload: &Upload,
    format: RepositoryFormat,
    in_use: Option<RepositoryFormat>,
    removed: Result<(), Problem>,
) -> Result<Option<Problem>, Problem> {
    let Err(problem) = removed else { return Ok(None) };
    match leftover(upload, &problem, format, in_use) {
        Leftover::Stays => Err(problem),
        Leftover::OutOfReach => Ok(Some(problem)),
        Leftover::Nothing => {
            tracing::info!(%problem, "nothing to remove from the store");
            Ok(None)
        }
    }
}

/// Removes the lock and the checkpoints of a copy that was killed, and the restore point of one that was cancelled as it finished. A restore
/// point belongs to the Upload that has the name of its disk snapshot; another one of that disk snapshot leaves it alone.
async fn forget(repository: &Repository, name: &str, snapshot: Option<&DiskSnapshot>) -> Result<(), Problem> {
    let failed = |act: &str, e: repository::Error| from_repository(act, &e);
    repository.remove_locks_of(name).await.map_err(|e| failed("remove the lock of the copy", e))?;
    copy::forget_checkpoints(repository, name).await;
    let Some(snapshot) = snapshot.filter(|s| name == names::upload(&s.snapshot)) else { return Ok(()) };
    // a tag that was being written may have left two files of it
    while let Some(point) =
        repository.find_readable(snapshot).await.map_err(|e| failed("look for the restore point", e))?
    {
        tracing::info!(point = %point.id, "the copy had finished; removing its restore point");
        repository.forget(&point.id).await.map_err(|e| failed("remove the restore point", e))?;
    }
    Ok(())
}

/// Deletes the one disk snapshot that the Upload names; one that is gone already is fine.
async fn delete_snapshot(ctx: &Context, snapshot: &DiskSnapshot) -> Result<(), Problem> {
    // a copy may end while the API server is away, and that is no failure to clean up
    let delete = || ctx.vcenters.delete_snapshot("delete the disk snapshot", snapshot, DELETE_WITHIN);
    let how = once_the_cluster_answers(|| is_ready(&ctx.client), delete).await?;
    tracing::info!(%snapshot, ?how, "the disk snapshot is gone");
    Ok(())
}
