//! One attempt to copy a disk snapshot into the repository.

use std::time::Duration;

use api::entity::DiskEntity;
use api::{BackupRepository, Reason, Upload, UploadStatus, WITHOUT_BACKUP_REPOSITORY};
use connections::{from_repository, from_vsphere};
use data_path::{BackupOptions, Progress};
use disk::DiskSnapshot;
use kube::ResourceExt as _;
use lifecycle::Problem;
use lifecycle::content::Source;
use lifecycle::transfer::{Transport, upload as says};
use repository::{DiskFacts, NewRestorePoint, NoRival, Reader, Repository, RestorePoint, WriterOptions};
use vsphere::{Disk, SnapshotInfo, Vcenter};

use super::content::{self, Found};
use super::original;
use crate::attempt::{NotDone, in_order, is_ready, once_the_cluster_answers};
use crate::context::Context;
use crate::disks::{OpenDisk, from_vddk, with_last_words};
use crate::interrupt::Interrupt;
use crate::problems::from_copy;
use crate::report::{Report, at_the_end};
use crate::steps::Step;

/// How long the store may take to remove the checkpoints of a transfer that has ended.
const FORGET_WITHIN: Duration = Duration::from_secs(10);

/// What a failure says was being done.
pub(super) const ACT: &str = "back up the disk";

/// A restore point that was read back.
pub(crate) struct Copied {
    /// The disk snapshot it holds; not needed any more.
    pub(crate) snapshot: DiskSnapshot,
    /// How its content was found and how its data moved, where it was copied by this node.
    pub(crate) how: Option<(Source, Transport)>,
    /// Progress at the end.
    pub(crate) progress: api::Progress,
}

impl Copied {
    /// The status with how that was done.
    pub(crate) fn told(&self, status: &UploadStatus, now: api::Timestamp) -> UploadStatus {
        let Some((source, transport)) = &self.how else { return status.clone() };
        says::found(&says::opened(status, transport, now), source, now)
    }
}

/// Copies the disk snapshot that the Upload names, unless its restore point is there already.
pub(crate) async fn run(ctx: &Context, report: &Report<Upload>, interrupt: &Interrupt) -> Result<Copied, NotDone> {
    let attempts =
        in_order(interrupt, once_the_cluster_answers(|| is_ready(&ctx.client), || copy(ctx, report, interrupt)));
    ctx.pacing.while_following(&ctx.vcenters, attempts).await
}

/// The disk snapshot that the Upload names.
pub(crate) fn snapshot_of(upload: &Upload) -> Result<DiskSnapshot, Problem> {
    let invalid = |why: String| Problem::lasting(Reason::InvalidSpec, format!("read spec.snapshotID: {why}"));
    let id = upload.spec.snapshot_id.as_deref().ok_or_else(|| invalid("it is not set".to_owned()))?;
    let entity: DiskEntity = id.parse().map_err(|e| invalid(Problem::chain(&e)))?;
    entity.disk_snapshot().ok_or_else(|| invalid(format!("`{id}` names a disk, not a disk snapshot")))
}

/// The repository that the Upload names, open.
pub(crate) async fn repository_of(ctx: &Context, upload: &Upload) -> Result<Repository, Problem> {
    let described = describe_repository(ctx, upload.spec.backup_repository.as_deref()).await?;
    ctx.repositories.open(&described, namespace_from(&described, upload)?).await
}

/// From which namespace an Upload backs up: what it says, else that of its Snapshot, which is its claim's (the original writes no other),
/// else the only one of its repository.
fn namespace_from<'n>(described: &'n BackupRepository, upload: &'n Upload) -> Result<&'n str, Problem> {
    let asker = upload.spec.snapshot_reference.as_deref().and_then(|reference| reference.split_once('/'));
    let asker = asker.map(|(namespace, _)| namespace).filter(|namespace| !namespace.is_empty());
    namespace_of(described, upload.spec.source_namespace.as_deref().or(asker))
}

/// The BackupRepository that a transfer names; without a name, that of the storage location `default`.
pub(crate) async fn describe_repository(ctx: &Context, name: Option<&str>) -> Result<BackupRepository, Problem> {
    ctx.repositories.find(name.filter(|n| !n.is_empty()).unwrap_or(WITHOUT_BACKUP_REPOSITORY)).await
}

/// Opens it for claims of one namespace.
pub(crate) async fn open_repository(
    ctx: &Context,
    name: Option<&str>,
    source_namespace: Option<&str>,
) -> Result<Repository, Problem> {
    let described = describe_repository(ctx, name).await?;
    ctx.repositories.open(&described, namespace_of(&described, source_namespace)?).await
}

/// Whether the backup of a disk snapshot is in the store, in either format: somebody may have chosen the other one since.
pub(super) async fn is_stored(ctx: &Context, upload: &Upload, snapshot: &DiskSnapshot) -> Result<bool, Problem> {
    let spec = &upload.spec;
    let described = describe_repository(ctx, spec.backup_repository.as_deref()).await?;
    let was_stored = upload.status.as_ref().is_some_and(|status| lifecycle::stored::was_stored(&status.conditions));
    connections::is_stored(&ctx.repositories, &described, namespace_from(&described, upload), snapshot, was_stored)
        .await
}

/// For claims of which namespace it is.
fn namespace_of<'n>(described: &'n BackupRepository, source_namespace: Option<&'n str>) -> Result<&'n str, Problem> {
    match (source_namespace, &described.allowed_namespaces[..]) {
        (Some(namespace), _) => Ok(namespace),
        (None, [only]) => Ok(only),
        (None, _) => {
            let cause = format!(
                "find the repository: neither spec.sourceNamespace nor a single allowed namespace of repository {} says which namespace it is for",
                described.name_any()
            );
            Err(Problem::lasting(Reason::InvalidSpec, cause))
        }
    }
}

async fn copy(ctx: &Context, report: &Report<Upload>, interrupt: &Interrupt) -> Result<Copied, NotDone> {
    let upload = report.object().await;
    let name = upload.name_any();
    let snapshot = snapshot_of(&upload)?;
    if let Some(tree) = original::tree_of(ctx, &upload).await? {
        return original::copy(ctx, report, interrupt, snapshot, &tree).await;
    }
    let repository = repository_of(ctx, &upload).await?;
    let failed = |act: &str, e: repository::Error| NotDone::from(from_repository(act, &e));
    // a copy that was killed may have left its lock: the lease says that it is ours to remove
    repository.remove_locks_of(&name).await.map_err(|e| failed("remove the lock of an earlier attempt", e))?;
    // all restore points are listed once, both for this one and for one to count from
    let mut points =
        repository.points_of(&snapshot.disk).await.map_err(|e| failed("look for the restore points of the disk", e))?;
    let there = of_an_earlier_attempt(&repository, &snapshot, &mut points).await;
    if let Some(there) = there.map_err(|e| failed("read the restore point", e))? {
        tracing::info!(point = %there.point().id, "the restore point is there already");
        forget_checkpoints(&repository, &name).await;
        let size = there.size();
        let told = upload.status.unwrap_or_default().progress;
        let progress = api::Progress { total_bytes: size, bytes_done: size, ..told };
        return Ok(Copied { snapshot, how: None, progress });
    }
    let of_no_disk = |problem| says::with_its_disk(&upload, problem);
    let vcenter = ctx.vcenters.of_disk(&snapshot.disk).await.map_err(of_no_disk)?.for_operation(name.as_str());
    let (disk, taken) = look(&vcenter, &snapshot).await.map_err(of_no_disk)?;
    let lock = repository.begin_lock(&name).await.map_err(|e| failed("lock the repository", e))?;
    Step::UploadLocked.done();
    let found = content::find(&vcenter, &repository, &snapshot, &disk, taken.create_time, &points).await;
    let open = ctx.disks.read(&vcenter, &snapshot, interrupt).await;
    let copied = match open {
        Ok(open) => {
            let point = new_point(&upload, &vcenter, &snapshot, &disk, &taken);
            let no_rival = lock.no_rival();
            let target = Target { repository: &repository, snapshot: &snapshot, transfer: &name, no_rival, point };
            let transport = open.transport.clone();
            // boxed: what a copy holds across its waits is too much for the stack of a thread in one piece
            let copied = Box::pin(copy_open(ctx, report, interrupt, target, open, found)).await;
            copied.map(|(source, progress)| (source, transport, progress))
        }
        Err(problem) => Err(problem.into()),
    };
    if copied.is_ok() {
        Step::PointWritten.done();
        forget_checkpoints(&repository, &name).await;
        Step::CheckpointsForgotten.done();
    }
    let released = lock.release().await; // before any terminal status, so that `restic check` works when it says so
    if let Err(error) = released {
        tracing::warn!(error = %Problem::chain(&error), "the lock may be left until it is swept");
    }
    let (source, transport, progress) = copied?;
    Step::SnapshotClosed.done();
    let (read, why) = source.words();
    ctx.publisher.metrics().content(read, why);
    Ok(Copied { snapshot, how: Some((source, transport)), progress })
}

/// The restore point of this disk snapshot, where one is listed. Another node may write its snapshot file anew at this moment, under
/// another name, to tag it; so it is found once more. One that was removed since it was listed is taken from the list.
async fn of_an_earlier_attempt(
    repository: &Repository,
    snapshot: &DiskSnapshot,
    points: &mut Vec<RestorePoint>,
) -> Result<Option<Reader>, repository::Error> {
    let is_of_it = |point: &RestorePoint| point.identity().as_ref() == Some(snapshot);
    if !points.iter().any(is_of_it) {
        return Ok(None);
    }
    let found = repository.reader_of(snapshot).await?;
    if found.is_none() {
        points.retain(|point| !is_of_it(point));
    }
    Ok(found)
}

/// Removes the checkpoints of a transfer to which nobody will come back. What is left goes in a maintenance run, so it holds
/// up nothing.
pub(crate) async fn forget_checkpoints(repository: &Repository, transfer: &str) {
    let left = match tokio::time::timeout(FORGET_WITHIN, repository.forget_transfer(transfer)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Problem::chain(&error),
        Err(_) => format!("the store did not do it within {} s", FORGET_WITHIN.as_secs()),
    };
    tracing::warn!(transfer, left, "checkpoints are left until a maintenance run");
}

/// The disk and its snapshot, as vCenter describes them now.
pub(super) async fn look(vcenter: &Vcenter, snapshot: &DiskSnapshot) -> Result<(Disk, SnapshotInfo), Problem> {
    let act = format!("look for disk snapshot {snapshot}");
    let disk = vcenter.retrieve_disk(&snapshot.disk).await.map_err(|e| from_vsphere(&act, &e))?;
    let all = vcenter.list_snapshots(&snapshot.disk).await.map_err(|e| from_vsphere(&act, &e))?;
    match all.into_iter().find(|s| s.id == snapshot.snapshot) {
        Some(taken) => Ok((disk, taken)),
        None => {
            Err(Problem::lasting(Reason::SnapshotMissing, format!("{act}: the disk is there, the snapshot is not")))
        }
    }
}

/// What a copy makes.
struct Target<'t> {
    repository: &'t Repository,
    snapshot: &'t DiskSnapshot,
    /// In whose name it is checkpointed.
    transfer: &'t str,
    /// Of the lock that it is made under.
    no_rival: NoRival,
    point: NewRestorePoint,
}

/// Copies an open disk, a second time in whole where its tracking turns out to be untrue, and closes it.
async fn copy_open(
    ctx: &Context,
    report: &Report<Upload>,
    interrupt: &Interrupt,
    target: Target<'_>,
    open: OpenDisk,
    mut found: Found,
) -> Result<(Source, api::Progress), NotDone> {
    open.told(&ctx.publisher, &report.object().await).await;
    Step::SnapshotOpened.done();
    let transport = open.transport.clone();
    let (disk, helper) = open.split();
    found = found.of_size(disk.size());
    let copying = async {
        let copied = Box::pin(copy_found(ctx, report, interrupt, &target, &disk, &transport, &found)).await;
        let Err(NotDone::Failed(problem)) = &copied else { return copied };
        if problem.reason != Reason::TrackingUntrue {
            return copied;
        }
        let doubt = problem.message();
        target.no_rival.wait().await.map_err(|e| from_repository("lock the repository", &e))?;
        found.doubt(target.repository, target.snapshot).await; // before anything that may fail
        report.say(|status, now| says::waits(status, Reason::TrackingUntrue, &doubt, now)).await;
        found = found.untrue();
        Box::pin(copy_found(ctx, report, interrupt, &target, &disk, &transport, &found)).await
    };
    let died = helper.exited();
    let outcome = tokio::select! {
        biased;
        done = copying => done,
        // the child's own words say more than the broken connection
        error = died => Err(NotDone::from(from_vddk(ACT, &error))),
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

async fn copy_found(
    ctx: &Context,
    report: &Report<Upload>,
    interrupt: &Interrupt,
    target: &Target<'_>,
    disk: &data_path::Disk,
    transport: &Transport,
    found: &Found,
) -> Result<(Source, api::Progress), NotDone> {
    let (transfer, lock) = (Some(target.transfer.to_owned()), Some(target.no_rival.clone()));
    let options = WriterOptions { transfer, lock, ..WriterOptions::default() };
    let writer = target.repository.writer(found.noted(&target.point), options).await;
    let writer = writer.map_err(|e| from_repository("begin the restore point", &e))?;
    let progress = Progress::new();
    let options = BackupOptions { content: found.content.clone(), ..BackupOptions::default() };
    let backup = data_path::backup(disk, writer, &options, &progress, &interrupt.any);
    let source = &found.source;
    let done = report
        .progress_while(backup, &progress, |status, so_far| {
            let now = api::Timestamp::now();
            let status = says::found(&says::opened(status, transport, now), source, now);
            let status = says::paced(&status, ctx.pacing.slowing().as_ref(), &ctx.node, now);
            says::progressed(&status, so_far)
        })
        .await;
    let done = done.map_err(|error| match error {
        data_path::Error::Cancelled => NotDone::interrupted(interrupt),
        other => NotDone::from(from_copy(ACT, &other)),
    })?;
    tracing::info!(
        bytes_read = done.counts.read,
        seconds = done.elapsed.as_secs_f32(),
        "the disk is copied: {}",
        done.waits
    );
    ctx.publisher.metrics().waited("Upload", done.elapsed, &done.waits.shares());
    Ok((source.clone(), at_the_end(&done.counts, done.elapsed)))
}

/// What the restore point will say about itself.
fn new_point(
    upload: &Upload,
    vcenter: &Vcenter,
    snapshot: &DiskSnapshot,
    disk: &Disk,
    taken: &SnapshotInfo,
) -> NewRestorePoint {
    let spec = &upload.spec;
    let namespace = spec.source_namespace.clone().unwrap_or_default();
    let claim = spec.source_claim.clone().unwrap_or_else(|| snapshot.disk.to_string());
    let cluster = spec.cluster_id.clone().unwrap_or_default();
    let facts = DiskFacts {
        snapshot: Some(snapshot.clone()),
        create_time: Some(disk.create_time),
        datastore: Some(disk.datastore.clone()),
        file_path: Some(disk.file_path.clone()),
        backing_object_id: disk.backing_object_id.clone(),
        vcenter: Some(vcenter.config().server()),
        namespace: spec.source_namespace.clone(),
        claim: spec.source_claim.clone(),
        snapshot_object: spec.snapshot_reference.clone(),
        ..DiskFacts::of_size(disk.capacity_bytes)
    };
    let tags = [
        ("claim", Some(format!("{namespace}/{claim}"))),
        ("cluster", spec.cluster_id.clone()),
        ("backup", spec.backup_name.clone()),
        ("backup-uid", spec.backup_uid.clone()),
    ];
    let tags = tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    NewRestorePoint { tags, ..NewRestorePoint::new(cluster, format!("/{namespace}/{claim}"), taken.create_time, facts) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use std::sync::Arc;

    use repository::store::FolderStore;

    use super::*;

    #[test]
    fn a_backup_goes_into_no_other_namespaces_repository() {
        type Case<'c> = (&'c str, &'c [&'c str], Option<&'c str>, Option<&'c str>, Result<&'c str, Reason>);
        let snapshot = Some("shop/snap-1");
        let cases: [Case<'_>; 7] = [
            ("the only one that is allowed", &["shop"], None, None, Ok("shop")),
            ("an Upload of the original's", &["shop"], None, snapshot, Ok("shop")),
            ("the same, through the repository of another namespace", &["bar"], None, snapshot, Ok("shop")),
            ("it says another one", &["shop"], Some("bar"), snapshot, Ok("bar")),
            ("of the location `default`", &[], None, snapshot, Ok("shop")),
            ("of nobody's Snapshot", &[], None, Some("/snap-1"), Err(Reason::InvalidSpec)),
            ("the same, for two", &["bar", "shop"], None, None, Err(Reason::InvalidSpec)),
        ];
        for (situation, allowed, said, reference, want) in cases {
            let mut described = BackupRepository::new("br-1");
            described.allowed_namespaces = allowed.iter().map(|&name| name.to_owned()).collect();
            let spec = api::UploadSpec {
                source_namespace: said.map(str::to_owned),
                snapshot_reference: reference.map(str::to_owned),
                ..api::UploadSpec::default()
            };
            let upload = Upload::new("upload-snap", spec);
            let found = namespace_from(&described, &upload).map_err(|problem| problem.reason);
            assert_eq!(found, want, "{situation}");
        }
    }

    #[tokio::test]
    async fn a_backup_that_was_made_does_not_fail_since_another_node_tags_its_restore_point() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FolderStore::new(folder.path()));
        let repository = repository::initialise(store, &"a key for tests".into()).await.unwrap();
        let snapshot: DiskSnapshot = "disk:snap".parse().unwrap();
        let mut points = Vec::new();
        assert!(of_an_earlier_attempt(&repository, &snapshot, &mut points).await.unwrap().is_none());

        let facts = DiskFacts { snapshot: Some(snapshot.clone()), ..DiskFacts::of_size(1 << 20) };
        let point = NewRestorePoint::new("a-cluster", "/shop/claim", api::Timestamp::now(), facts);
        let writer = repository.writer(point, WriterOptions::default()).await.unwrap();
        writer.put_zero(0..writer.chunk_count()).await.unwrap();
        writer.commit().await.unwrap();
        let mut points = repository.points_of(&snapshot.disk).await.unwrap();
        repository.tag(&points[0].id, &[("tracking", "doubted")]).await.unwrap();
        let there = of_an_earlier_attempt(&repository, &snapshot, &mut points).await.unwrap().unwrap();
        assert_eq!((there.size(), points.len()), (1 << 20, 1));

        repository.forget(&there.point().id).await.unwrap();
        assert!(of_an_earlier_attempt(&repository, &snapshot, &mut points).await.unwrap().is_none());
        assert!(points.is_empty(), "nothing can be counted from one that is gone");
    }
}
