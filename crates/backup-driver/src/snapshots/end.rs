//! Ends a Snapshot that no Upload will end, and removes one that has ended. Makes nothing; deletes no disk snapshot that a node may read,
//! and nothing from the store.

use std::time::Duration;

use api::entity::EntityId;
use api::{Reason, Snapshot, names};
use disk::DiskSnapshot;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::snapshot::status;
use lifecycle::snapshot::{self, Undo, WithoutUpload, is_local, source};
use lifecycle::{Problem, retry};

use super::observe;
use super::undo::{UNDOING, delete_marked};
use crate::{Attempts, Context, Error, To};

/// How long one look may take whether a backup is in the store.
const LOOKING: Duration = Duration::from_secs(60);

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
fn attempts_to_end(asked: &Snapshot) -> Attempts {
    Attempts::of(asked, To::End)
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
                let (before, now) = (asked.status.clone().unwrap_or_default(), ctx.now());
                let snapshot::Held { problem, look_again } = snapshot::held(&before, &node, now);
                ctx.publish(asked, &status::held(&before, &problem, now)).await?;
                return Ok(Action::requeue(look_again));
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

/// Whether the backup is in the store, in either format.
async fn is_stored(asked: &Snapshot, taken: &DiskSnapshot, ctx: &Context) -> Result<bool, Problem> {
    let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
    let from = asked.namespace().unwrap_or_default();
    let was_stored = asked.status.as_ref().is_some_and(|status| lifecycle::stored::was_stored(&status.conditions));
    connections::is_stored(&ctx.repositories, &described, Ok(from.as_str()), taken, was_stored).await
}

/// Deletes a Snapshot that has been finished for a day.
pub(super) async fn remove(asked: &Snapshot, ctx: &Context) -> Result<Action, Error> {
    let snapshots: Api<Snapshot> = Api::namespaced(ctx.client.clone(), &asked.namespace().unwrap_or_default());
    let this_one = Preconditions { uid: asked.uid(), resource_version: asked.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    snapshots.delete(&asked.name_any(), &params).await.map_err(Error::cluster("delete a finished Snapshot"))?;
    Ok(Action::await_change())
}
