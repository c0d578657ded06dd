//! One attempt to write a restore point onto a volume.

use api::entity::{DiskEntity, EntityId};
use api::{Download, Reason};
use connections::{damaged, from_look_for_original, from_repository, from_vsphere, restore_point};
use data_path::{Progress, Source};
use disk::{DiskId, DiskSnapshot};
use kube::ResourceExt as _;
use lifecycle::Problem;
use lifecycle::clone::may_be_of_the_original;
use lifecycle::new_disk::Owner;
use lifecycle::transfer::download as says;
use repository::Repository;

use super::resume::Start;
use crate::attempt::{NotDone, in_order, is_ready, once_the_cluster_answers};
use crate::context::Context;
use crate::disks::{OpenDisk, from_vddk, with_last_words};
use crate::interrupt::Interrupt;
use crate::problems::from_copy;
use crate::report::{Report, at_the_end};
use crate::steps::Step;
use crate::uploads::{describe_repository, open_repository};

/// What a failure says was being done.
const ACT: &str = "restore the disk";

/// A volume that was written and flushed.
pub(crate) struct Written {
    /// Its disk.
    pub(crate) volume: DiskId,
    /// Progress at the end.
    pub(crate) progress: api::Progress,
}

/// Writes the restore point that the Download names onto its volume. `touched`: an earlier attempt may have written.
pub(crate) async fn run(
    ctx: &Context,
    report: &Report<Download>,
    interrupt: &Interrupt,
    touched: bool,
) -> Result<Written, NotDone> {
    let ready = || is_ready(&ctx.client);
    let attempts = in_order(interrupt, once_the_cluster_answers(ready, || write(ctx, report, interrupt, touched)));
    ctx.pacing.while_following(&ctx.vcenters, attempts).await
}

async fn write(
    ctx: &Context,
    report: &Report<Download>,
    interrupt: &Interrupt,
    touched: bool,
) -> Result<Written, NotDone> {
    let download = report.object().await;
    let (source, volume) = (source_of(&download)?, volume_of(&download)?);
    let attempt = Attempt { ctx, report, interrupt, download: &download, source: &source, volume: &volume, touched };
    let of_old = is_of_old(&download);
    let progress = match if of_old { Err(missing(&source).into()) } else { attempt.write_restore_point().await } {
        Err(NotDone::Failed(problem)) if may_be_of_the_original(&problem) => attempt.write_original(problem).await?,
        written => written?,
    };
    Ok(Written { volume, progress })
}

/// What one attempt needs.
struct Attempt<'a> {
    ctx: &'a Context,
    report: &'a Report<Download>,
    interrupt: &'a Interrupt,
    download: &'a Download,
    source: &'a DiskSnapshot,
    volume: &'a DiskId,
    touched: bool,
}

impl Attempt<'_> {
    /// Writes the restore point of the repository, under its lock.
    async fn write_restore_point(&self) -> Result<api::Progress, NotDone> {
        let name = self.download.name_any();
        let spec = &self.download.spec;
        let repository =
            open_repository(self.ctx, spec.backup_repository_name.as_deref(), spec.source_namespace.as_deref()).await?;
        let failed = |act: &str, e: repository::Error| NotDone::from(from_repository(act, &e));
        repository.remove_locks_of(&name).await.map_err(|e| failed("remove the lock of an earlier attempt", e))?;
        let lock = repository.lock_to_read(&name).await.map_err(|e| failed("lock the repository", e))?;
        Step::DownloadLocked.done();
        let written = self.write_locked(&repository).await;
        if let Err(error) = lock.release().await {
            tracing::warn!(error = %Problem::chain(&error), "the lock may be left until it is swept");
        }
        let progress = written?;
        Step::RestoreUnlocked.done();
        Ok(progress)
    }

    async fn write_locked(&self, repository: &Repository) -> Result<api::Progress, NotDone> {
        let reader = restore_point(repository, self.source).await?;
        let reader = reader.ok_or_else(|| {
            let cause =
                format!("look for the restore point of {}: there is none in {}", self.source, repository.place());
            Problem::lasting(Reason::RestorePointMissing, cause)
        })?;
        self.write(&reader).await
    }

    /// Writes the backup in the original's layout; where there is none, what was `missing` before stays the answer.
    async fn write_original(&self, missing: Problem) -> Result<api::Progress, NotDone> {
        let described = describe_repository(self.ctx, self.download.spec.backup_repository_name.as_deref()).await?;
        let original = self.ctx.repositories.original(&described).await?;
        let found = original.open(self.source).await;
        let disk = match found.map_err(|e| from_look_for_original("look for the backup in the original's layout", &e)) {
            // keys for our folder alone are enough for what is ours, and an old backup never is
            Err(denied) if denied.reason == Reason::StoreAccessDenied && !is_of_old(self.download) => {
                return Err(missing.into());
            }
            found => found?.ok_or(missing)?,
        };
        tracing::info!(bytes = disk.size(), "the backup is in the original's layout");
        self.write(&disk).await
    }

    /// Writes what `reader` has onto the volume.
    async fn write(&self, reader: &dyn Source) -> Result<api::Progress, NotDone> {
        let Self { ctx, report, interrupt, volume, touched, .. } = *self;
        let vcenter = ctx.vcenters.of_disk(volume).await?.for_operation(self.download.name_any().as_str());
        let target = vcenter.retrieve_disk(volume).await;
        let target = target.map_err(|e| from_vsphere(&format!("look at target disk {volume}"), &e))?;
        if target.attached {
            let cause = format!("write disk {volume}: a virtual machine uses it");
            return Err(Problem::passing(Reason::DiskBusy, cause).into());
        }
        if target.capacity_bytes < reader.size() {
            let (needed, there) = (reader.size(), target.capacity_bytes);
            let cause = format!(
                "write disk {volume}: the restore point has {needed} bytes, the disk only {there}; nothing was written"
            );
            return Err(Problem::lasting(Reason::TargetTooSmall, cause).into());
        }
        let open = ctx.disks.write(&vcenter, volume, interrupt).await?;
        open.told(&ctx.publisher, &report.object().await).await;
        Step::VolumeOpened.done();
        let start = Start::find(ctx, &report.object().await, reader, volume, touched).await?;
        // before the first write, so that a checkpoint always names what is being written
        let transport = &open.transport;
        report.say(|status, now| says::saved(&says::opened(status, transport, now), start.checkpoint())).await;
        Step::WritingNoted.done();
        // boxed, as with an Upload: too much for the stack of a thread in one piece
        Box::pin(write_open(ctx, report, interrupt, reader, open, &start)).await
    }
}

/// Whether its backup is of a version that knew no repositories: it lies in the original's layout or nowhere.
fn is_of_old(download: &Download) -> bool {
    Owner::of(download).is_some()
}

fn missing(source: &DiskSnapshot) -> Problem {
    let cause = format!("look for the backup {source}: there is none in the original's layout");
    Problem::lasting(Reason::RestorePointMissing, cause)
}

async fn write_open(
    ctx: &Context,
    report: &Report<Download>,
    interrupt: &Interrupt,
    reader: &dyn Source,
    open: OpenDisk,
    start: &Start,
) -> Result<api::Progress, NotDone> {
    let (disk, helper) = open.split();
    let progress = Progress::new();
    let options = start.options();
    let restore = data_path::restore(reader, disk, &options, &progress, &interrupt.any);
    let restore = report.progress_while(restore, &progress, |status, so_far| {
        let paced = says::paced(status, ctx.pacing.slowing().as_ref(), &ctx.node, api::Timestamp::now());
        says::saved(&says::progressed(&paced, so_far), start.checkpoint())
    });
    let outcome = tokio::select! {
        biased;
        done = restore => done.map_err(|error| match &error {
            data_path::Error::Cancelled => NotDone::interrupted(interrupt),
            data_path::Error::Repository { source, act } => NotDone::from(damaged(act, source)),
            data_path::Error::Unread { source, .. } => NotDone::from(damaged(&error.to_string(), source)),
            other => NotDone::from(from_copy(ACT, other)),
        }),
        error = helper.exited() => Err(NotDone::from(from_vddk(ACT, &error))),
    };
    let outcome = with_last_words(ACT, outcome, &helper).await;
    if outcome.is_ok() {
        Step::VolumeWritten.done();
    }
    let last_word = async {
        if outcome.is_err() {
            report.say_shortly(|status, _| says::saved(status, start.checkpoint())).await;
        }
    };
    // an error while the library closes the disk is a failed restore: it may still have held data
    let (stopped, ()) = tokio::join!(helper.stop(), last_word);
    let done = outcome?;
    stopped.map_err(|e| {
        let told = from_vddk("close the restored disk", &e);
        Problem { reason: Reason::DiskFlushFailed, ..told }
    })?;
    Step::VolumeClosed.done();
    tracing::info!(
        bytes = done.counts.stored,
        seconds = done.elapsed.as_secs_f32(),
        "the disk is restored: {}",
        done.waits
    );
    ctx.publisher.metrics().waited("Download", done.elapsed, &done.waits.shares());
    Ok(at_the_end(&done.counts, done.elapsed))
}

/// The restore point that the Download names.
fn source_of(download: &Download) -> Result<DiskSnapshot, Problem> {
    let invalid = |why: String| Problem::lasting(Reason::InvalidSpec, format!("read spec.snapshotID: {why}"));
    let id = download.spec.snapshot_id.as_deref().ok_or_else(|| invalid("it is not set".to_owned()))?;
    let entity: DiskEntity = id.parse().map_err(|e| invalid(Problem::chain(&e)).with_fix(as_a_disk_snapshot(id)))?;
    entity.disk_snapshot().ok_or_else(|| invalid(format!("`{id}` names a disk, not a disk snapshot")))
}

/// What helps who wrote the id of a claim's backup there, as other kinds take it.
fn as_a_disk_snapshot(id: &str) -> Option<String> {
    let disk_snapshot = id.parse::<EntityId>().ok()?.disk_snapshot().ok()?;
    Some(format!("A Download takes `ivd:` ids only: for this backup make a new one with `ivd:{disk_snapshot}`."))
}

/// The disk that the Download is to write.
fn volume_of(download: &Download) -> Result<DiskId, Problem> {
    let invalid = |why: String| Problem::lasting(Reason::InvalidSpec, format!("read spec.protectedEntityID: {why}"));
    let id = download.spec.protected_entity_id.as_deref().ok_or_else(|| invalid("it is not set".to_owned()))?;
    let entity: DiskEntity = id.parse().map_err(|e| invalid(Problem::chain(&e)))?;
    Ok(entity.disk)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use api::DownloadSpec;

    use super::*;

    #[test]
    fn the_id_of_a_claims_backup_is_answered_with_the_one_that_a_download_takes() {
        let cases = [
            ("pvc:shop/data-0:aXZkOmRpc2s6c25hcA", "with `ivd:disk:snap`"),
            ("pvc:shop/data-0", "only `ivd:<disk>`"),
            ("ivd:disk", "names a disk, not a disk snapshot"),
            ("nonsense", "is not an id"),
        ];
        for (id, want) in cases {
            let spec = DownloadSpec { snapshot_id: Some(id.to_owned()), ..DownloadSpec::default() };
            let refused = source_of(&Download::new("download-1", spec)).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidSpec, "{id}");
            assert!(refused.message().contains(want), "{id}: {}", refused.message());
        }
    }
}
