//! Uploads in the original's layout, for who has chosen it: data, description, then what makes them a backup.

use api::parameters::RepositoryFormat;
use api::{Upload, names};
use astrolabe::{Cut, Description, Tree, Writer};
use connections::{from_original, from_vsphere};
use data_path::Progress;
use disk::DiskSnapshot;
use kube::ResourceExt as _;
use lifecycle::content::{Obstacle, Source};
use lifecycle::transfer::{Transport, upload as says};
use lifecycle::{Again, Problem};
use vsphere::CatalogEntry;

use super::copy::{ACT, Copied, describe_repository, look};
use crate::attempt::NotDone;
use crate::context::Context;
use crate::disks::{OpenDisk, from_vddk, with_last_words};
use crate::interrupt::Interrupt;
use crate::problems::from_copy;
use crate::report::{Report, at_the_end};
use crate::steps::Step;

/// The original's folders, where they are what the Upload's repository is written in.
pub(super) async fn tree_of(ctx: &Context, upload: &Upload) -> Result<Option<Tree>, Problem> {
    let described = describe_repository(ctx, upload.spec.backup_repository.as_deref()).await?;
    match ctx.repositories.format(&described).await? {
        RepositoryFormat::Legacy => ctx.repositories.original(&described).await.map(Some),
        RepositoryFormat::Restic => Ok(None),
    }
}

/// The original's folders in the bucket that an Upload goes into, whatever is written today: somebody may have chosen the other
/// format between two attempts.
pub(super) async fn any_tree_of(ctx: &Context, upload: &Upload) -> Result<Tree, Problem> {
    let described = describe_repository(ctx, upload.spec.backup_repository.as_deref()).await?;
    ctx.repositories.original(&described).await
}

/// Size of the backup of `snapshot` in bytes, if it is there and whole.
pub(super) async fn size_of(tree: &Tree, snapshot: &DiskSnapshot) -> Result<Option<u64>, Problem> {
    match tree.open(snapshot).await {
        Ok(found) => Ok(found.map(|disk| disk.size())),
        Err(astrolabe::Error::Broken { source, .. }) => {
            tracing::warn!(%source, "what is there is no whole backup");
            Ok(None)
        }
        Err(error) => Err(from_original("look for the backup", &error)),
    }
}

/// Copies the disk snapshot, unless its backup is there already.
pub(super) async fn copy(
    ctx: &Context,
    report: &Report<Upload>,
    interrupt: &Interrupt,
    snapshot: DiskSnapshot,
    tree: &Tree,
) -> Result<Copied, NotDone> {
    let upload = report.object().await;
    if let Some(size) = size_of(tree, &snapshot).await? {
        tracing::info!("the backup is there already");
        let told = upload.status.unwrap_or_default().progress;
        let progress = api::Progress { total_bytes: size, bytes_done: size, ..told };
        return Ok(Copied { snapshot, how: None, progress });
    }
    let of_no_disk = |problem| says::with_its_disk(&upload, problem);
    let vcenter = ctx.vcenters.of_disk(&snapshot.disk).await.map_err(of_no_disk)?;
    let vcenter = vcenter.for_operation(upload.name_any().as_str());
    look(&vcenter, &snapshot).await.map_err(of_no_disk)?;
    let entry = vcenter.catalog_entry(&snapshot).await;
    let entry = entry.map_err(|e| from_vsphere("describe the disk", &e))?;
    let writer = tree.writer(&snapshot, description(entry), Cut::default()).await;
    let writer = writer.map_err(|e| passing(from_original("begin the backup", &e)))?;
    let open = ctx.disks.read(&vcenter, &snapshot, interrupt).await?;
    let transport = open.transport.clone();
    // boxed: what a copy holds across its waits is too much for the stack of a thread in one piece
    let progress = Box::pin(copy_open(ctx, report, interrupt, &writer, open)).await?;
    Step::SnapshotClosed.done();
    let source = source();
    let (read, why) = source.words();
    ctx.publisher.metrics().content(read, why);
    Ok(Copied { snapshot, how: Some((source, transport)), progress })
}

fn source() -> Source {
    Source::AllocatedAreas(Obstacle::OriginalLayout)
}

async fn copy_open(
    ctx: &Context,
    report: &Report<Upload>,
    interrupt: &Interrupt,
    writer: &Writer,
    open: OpenDisk,
) -> Result<api::Progress, NotDone> {
    open.told(&ctx.publisher, &report.object().await).await;
    Step::SnapshotOpened.done();
    let transport = open.transport.clone();
    let (disk, helper) = open.split();
    let outcome = tokio::select! {
        biased;
        done = write(ctx, report, interrupt, writer, &disk, &transport) => done,
        // the child's own words say more than the broken connection
        error = helper.exited() => Err(NotDone::from(from_vddk(ACT, &error))),
    };
    let outcome = with_last_words(ACT, outcome, &helper).await;
    if matches!(outcome, Err(NotDone::Failed(_))) {
        report.say(|status, now| says::opened(status, &transport, now)).await; // what it failed by is worth knowing
    }
    drop(disk);
    if let Err(error) = helper.stop().await {
        tracing::warn!(error = %Problem::chain(&error), "the disk's helper did not end in order");
    }
    outcome
}

async fn write(
    ctx: &Context,
    report: &Report<Upload>,
    interrupt: &Interrupt,
    writer: &Writer,
    disk: &data_path::Disk,
    transport: &Transport,
) -> Result<api::Progress, NotDone> {
    let (progress, source) = (Progress::new(), source());
    let copy = data_path::back_up_as_original(disk, writer, &progress, &interrupt.any);
    let done = report
        .progress_while(copy, &progress, |status, so_far| {
            let now = api::Timestamp::now();
            let status = says::found(&says::opened(status, transport, now), &source, now);
            let status = says::paced(&status, ctx.pacing.slowing().as_ref(), &ctx.node, now);
            says::progressed(&status, so_far)
        })
        .await;
    let done = done.map_err(|error| match error {
        data_path::Error::Cancelled => NotDone::interrupted(interrupt),
        other => NotDone::from(from_copy(ACT, &other)),
    })?;
    let written = writer.commit().await;
    written.map_err(|e| passing(from_original("complete the backup", &e)))?;
    Step::PointWritten.done();
    tracing::info!(
        bytes_read = done.counts.read,
        seconds = done.elapsed.as_secs_f32(),
        "the disk is copied in the original's layout: {}",
        done.waits
    );
    ctx.publisher.metrics().waited("Upload", done.elapsed, &done.waits.shares());
    Ok(at_the_end(&done.counts, done.elapsed))
}

/// What is wrong with what lies there may pass while it is written: a store may list late, another node may just have completed
/// it. The next attempt looks anew.
fn passing(problem: Problem) -> Problem {
    Problem { again: Again::Later, ..problem }
}

/// Removes what there is of an Upload that nobody wants any more. What lies there belongs to the Upload that has the name of
/// its disk snapshot.
pub(super) async fn forget(tree: &Tree, upload: &str, snapshot: Option<&DiskSnapshot>) -> Result<(), Problem> {
    let Some(snapshot) = snapshot.filter(|s| upload == names::upload(&s.snapshot)) else { return Ok(()) };
    let removed = tree.delete(snapshot).await.map_err(|e| from_original("remove what was stored", &e))?;
    tracing::info!(objects = removed.objects, uploads = removed.uploads, "removed what was stored");
    Ok(())
}

/// The same for an Upload that is given up. What was a backup once stays, even if it is not whole: nobody asked to delete it.
pub(super) async fn forget_unfinished(tree: &Tree, upload: &str, snapshot: &DiskSnapshot) -> Result<(), Problem> {
    match tree.open(snapshot).await {
        Ok(None) => forget(tree, upload, Some(snapshot)).await,
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

fn description(entry: CatalogEntry) -> Description {
    Description {
        id: entry.id,
        name: entry.name,
        create_time: entry.create_time,
        keep_after_delete_vm: entry.keep_after_delete_vm,
        relocation_disabled: entry.relocation_disabled,
        native_snapshot_supported: entry.native_snapshot_supported,
        changed_block_tracking_enabled: entry.changed_block_tracking_enabled,
        backing_type: entry.backing_type,
        datastore: entry.datastore,
        file_path: entry.file_path,
        backing_object_id: entry.backing_object_id,
        provisioning_type: entry.provisioning_type,
        capacity_mib: entry.capacity_mib,
        consumption_types: entry.consumption_types,
        consumers: entry.consumers,
        extended_metadata: entry.metadata,
    }
}
