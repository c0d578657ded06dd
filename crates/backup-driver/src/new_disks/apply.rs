//! Writes for a Download that named no volume, and makes and deletes its disk. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use api::{Download, Reason, labels};
use connections::{Center, from_vsphere, leftovers};
use disk::DiskId;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};
use lifecycle::new_disk::{self, MAKING, Owner};
use lifecycle::transfer::download as says;
use lifecycle::{Again, Problem, retry};
use operator::Note;
use serde_json::json;
use vsphere::Vcenter;

use super::{gone, observe};
use crate::steps::Step;
use crate::{Attempts, Context, Error, To};

/// Looking for disks by their name takes no longer than this in one attempt.
const LOOKING: Duration = Duration::from_secs(60);

/// What the attempts for a Download are counted by.
fn attempts_of(download: &Download) -> Attempts {
    Attempts::of(download, To::MakeDisk)
}

/// Looks at the backup, makes the disk, and writes its id down.
pub(super) async fn make(download: &Download, ctx: &Context) -> Result<Action, Error> {
    let before = download.status.clone().unwrap_or_default();
    // what an attempt writes comes back as an event, and is no reason for another one
    if let Some(due) = ctx.pauses.due(&attempts_of(download)).filter(|due| *due > ctx.now()) {
        return Ok(ctx.wake_at(due));
    }
    let message = "looking at the backup and making a disk for it";
    let download =
        &ctx.publish(download, &says::awaits_its_disk(&before, Reason::Provisioning, message, ctx.now())).await?;
    let noted = match make_disk(download, ctx).await {
        Ok(disk) => is_made(download, &disk, ctx).await,
        Err(problem) => not_made(download, &problem, ctx).await,
    };
    if noted.is_err() {
        // when it was deleted meanwhile, the disk was not there yet for who looked for it then
        tokio::spawn(gone::after_deletion(Arc::new(download.clone()), Arc::new(ctx.clone())));
    }
    noted
}

async fn make_disk(download: &Download, ctx: &Context) -> Result<DiskId, Problem> {
    let observe::Wanted { vcenter, volume, left_out } = observe::wanted(download, ctx).await?;
    let made = vcenter.create_volume(&volume, MAKING).await.map_err(|e| from_vsphere("make a disk", &e))?;
    if let Some(message) = left_out {
        tracing::warn!(download = download.name_any(), message, "not every node counts");
        ctx.publisher.note(download, &Note { reason: Reason::NodesLeftOut, message, warning: true }).await;
    }
    Ok(made.id)
}

async fn is_made(download: &Download, disk: &DiskId, ctx: &Context) -> Result<Action, Error> {
    Step::DiskMade.done();
    ctx.pauses.forget(&attempts_of(download));
    let owner = Owner::of(download).unwrap_or(Owner::Unsaid);
    note(download, owner, Some(disk), ctx).await?;
    tracing::info!(download = download.name_any(), %disk, "made a disk for a backup of an old version");
    Ok(Action::await_change())
}

/// What does not answer may come back; everything else needs somebody.
async fn not_made(download: &Download, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let now = ctx.now();
    let due_after = |pause| new_disk::next_attempt(download, pause, now);
    if problem.again == Again::Never || due_after(Duration::ZERO).is_none() {
        ctx.pauses.forget(&attempts_of(download));
        return end(download, problem, ctx).await;
    }
    let pause =
        |failures| due_after(retry::controller_pause(failures)).map_or(Duration::ZERO, |at| retry::wake(at, now));
    let due = ctx.pauses.after_failure(&attempts_of(download), now, pause);
    let before = download.status.clone().unwrap_or_default();
    let waiting = says::awaits_its_disk(&before, problem.reason, &problem.message(), ctx.now());
    ctx.publish(download, &waiting).await?;
    Ok(ctx.wake_at(due))
}

/// Says that it failed.
pub(crate) async fn end(download: &Download, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let before = download.status.clone().unwrap_or_default();
    ctx.publish(download, &says::ended(&before, problem, ctx.now())).await?;
    Ok(Action::await_change())
}

/// A volume has the disk. Where vCenter made a second one of that name, when the answer to the first request was lost, it goes now: it is
/// tried once, and told of if it stays.
pub(super) async fn note_use(download: &Download, ctx: &Context) -> Result<Action, Error> {
    let (name, disk) = (new_disk::name(download), new_disk::disk_of(download));
    if let Some(disk) = &disk
        && let Err(problem) = delete_named(&name, Some(disk), ctx).await
    {
        tracing::warn!(name, %disk, %problem, "vCenter may have another disk of that name, which is of no use");
    }
    let before = download.status.clone().unwrap_or_default();
    let download = &ctx.publish(download, &says::disk_stays_no_more(&before)).await?;
    note(download, Owner::Used, None, ctx).await?; // last: a driver that ends before looks again
    tracing::info!(download = download.name_any(), name, ?disk, "a volume of the cluster has the disk");
    Ok(Action::await_change())
}

/// The disk goes, unless a volume of the cluster has it by now.
pub(super) async fn remove(download: &Download, ctx: &Context) -> Result<Action, Error> {
    match observe::is_used(download, ctx).await {
        Ok(true) => return note_use(download, ctx).await,
        Ok(false) => note(download, Owner::Removing, None, ctx).await?,
        Err(problem) => return stays_for_now(download, problem, ctx).await,
    }
    Ok(Action::await_change())
}

/// Has the disk that Velero took, and that no volume has, removed. Refused when the Download changed meanwhile.
pub(crate) async fn condemn(download: &Download, ctx: &Context) -> Result<(), Error> {
    note(download, Owner::Removing, None, ctx).await
}

/// Says why the disk is there still: in a condition of its own, since the others keep why it is not wanted, and in an event.
pub(super) async fn stays(download: &Download, problem: &Problem, ctx: &Context) -> Result<(), Error> {
    let before = download.status.clone().unwrap_or_default();
    if says::is_said_to_stay(&before, problem.reason) {
        return Ok(()); // what is written comes back as an event, and is no reason to try again at once
    }
    ctx.publish(download, &says::disk_stays(&before, problem, ctx.now())).await?;
    tracing::warn!(download = download.name_any(), %problem, "a disk that nobody takes is there still");
    ctx.publisher.note(download, &Note { reason: problem.reason, message: problem.message(), warning: true }).await;
    Ok(())
}

/// Says so, and fails this look: it is tried again, later each time.
async fn stays_for_now(download: &Download, problem: Problem, ctx: &Context) -> Result<Action, Error> {
    let cause = format!("remove disk {}, which stays for now: {}", new_disk::name(download), problem.cause);
    let problem = Problem { cause, ..problem };
    stays(download, &problem, ctx).await?;
    Err(problem.into())
}

/// Deletes the disk, and notes that it is gone.
pub(super) async fn delete(download: &Download, ctx: &Context) -> Result<Action, Error> {
    let name = new_disk::name(download);
    let kept = match delete_named(&name, None, ctx).await {
        Ok(kept) => kept,
        Err(problem) => return stays_for_now(download, problem, ctx).await,
    };
    let before = download.status.clone().unwrap_or_default();
    let download = ctx.publish(download, &says::disk_stays_no_more(&before)).await?;
    note(&download, if kept.is_empty() { Owner::Removed } else { Owner::Used }, None, ctx).await?;
    Ok(Action::await_change())
}

/// Writes down who answers for the disk, and which it is. Refused when the Download changed meanwhile.
async fn note(download: &Download, owner: Owner, disk: Option<&DiskId>, ctx: &Context) -> Result<(), Error> {
    let mut patch = json!({"metadata": {
        "resourceVersion": download.resource_version(), "annotations": {labels::NEW_DISK: owner.as_str()},
    }});
    if let Some(disk) = disk {
        patch["spec"] = json!({"protectedEntityID": format!("ivd:{disk}")});
    }
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let patched = downloads.patch(&download.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(Error::cluster("note the disk of a Download"))
}

/// Deletes the disks of that name but `keep`, whichever vCenter has them, and gives those that a volume of the cluster has by now: they
/// stay. A vCenter that cannot be asked may have one, and keeps no other from being asked.
pub(super) async fn delete_named(name: &str, keep: Option<&DiskId>, ctx: &Context) -> Result<Vec<DiskId>, Problem> {
    let centers = match ctx.vcenters.centers().await {
        // there is no vCenter: no disk was made
        Err(problem) if problem.reason == Reason::GuestCluster => return Ok(Vec::new()),
        centers => centers?,
    };
    let (mut kept, mut failed) = (Vec::new(), None);
    for center in centers.all() {
        match delete_at(center, name, keep, ctx).await {
            Ok(used) => kept.extend(used),
            Err(problem) => {
                tracing::info!(server = center.server(), name, %problem, "a disk of that name may be there still");
                failed = failed.or(Some(problem));
            }
        }
    }
    failed.map_or(Ok(kept), Err)
}

async fn delete_at(center: &Center, name: &str, keep: Option<&DiskId>, ctx: &Context) -> Result<Vec<DiskId>, Problem> {
    let look = |vcenter: Vcenter| async move { vcenter.volumes_named(name).await };
    let mut named = center.ask("look for a disk that nobody takes", LOOKING, look).await?;
    named.retain(|disk| Some(disk) != keep);
    if named.is_empty() {
        return Ok(Vec::new());
    }
    // asked for after the disks: a volume that was made meanwhile is listed
    let used = leftovers::disks_in_use(&ctx.client).await?;
    let (kept, goes): (Vec<_>, Vec<_>) = named.into_iter().partition(|disk| used.contains_key(disk));
    for disk in &kept {
        tracing::info!(%disk, name, "a volume of the cluster has the disk by now; it stays");
    }
    for disk in &goes {
        let deleting = |vcenter: Vcenter| async move { vcenter.delete_volume(disk, MAKING).await };
        center.ask("delete a disk that nobody takes", MAKING + LOOKING, deleting).await?;
        tracing::info!(%disk, name, "deleted a disk that nobody takes");
    }
    Ok(kept)
}
