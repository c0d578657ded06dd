//! What of a disk snapshot is read: asks vCenter and the repository, does what [`lifecycle::content`] decides, and notes
//! where change tracking was found to be untrue. Copies nothing.

use data_path::Content;
use disk::DiskSnapshot;
use jiff::Timestamp;
use lifecycle::Problem;
use lifecycle::content::{self as decided, Ancestry, Base, Facts, Obstacle, Source, Tracked};
use repository::{CHUNK_SIZE, DiskFacts, Repository, RestorePoint};
use vsphere::{Disk, Vcenter};

/// Tag of restore points that rest on untrue tracking, and its value.
const DOUBTED: (&str, &str) = ("tracking", "doubted");

/// What was decided, and what it needs.
pub(super) struct Found {
    /// What is read, and why.
    pub(super) source: Source,
    /// The same for the copy.
    pub(super) content: Content,
    now: Tracked,
    ancestry: Ancestry,
    taken: Timestamp,
}

/// Decides how the content of a disk snapshot that was `taken` then is found. Whatever cannot be had leads to a full read,
/// never to a failure.
pub(super) async fn find(
    vcenter: &Vcenter,
    repository: &Repository,
    snapshot: &DiskSnapshot,
    disk: &Disk,
    taken: Timestamp,
) -> Found {
    let now = tracked(vcenter, snapshot, disk).await;
    match choose(vcenter, repository, snapshot, &now).await {
        Ok((source, content, base)) => {
            let ancestry = decided::ancestry(&source, Some(&base), taken);
            Found { source, content, now, ancestry, taken }
        }
        Err(why) => full(now, why, taken),
    }
}

fn full(now: Tracked, why: Obstacle, taken: Timestamp) -> Found {
    let source = Source::AllocatedAreas(why);
    let ancestry = decided::ancestry(&source, None, taken);
    Found { source, content: Content::Allocated, now, ancestry, taken }
}

impl Found {
    /// The same, once what was said to be unchanged was found changed.
    pub(super) fn untrue(self) -> Self {
        full(self.now, Obstacle::Untrue, self.taken)
    }

    /// What the restore point says of how its content was found.
    pub(super) fn noted(&self, facts: DiskFacts) -> DiskFacts {
        DiskFacts {
            change_id: self.now.change_id.clone(),
            content_found: Some(self.source.to_string()),
            full_read: self.ancestry.full_read,
            tracked_in_a_row: Some(self.ancestry.in_a_row),
            tracking_doubted: matches!(&self.source, Source::AllocatedAreas(why) if why.is_doubt()),
            ..facts
        }
    }
}

async fn choose(
    vcenter: &Vcenter,
    repository: &Repository,
    snapshot: &DiskSnapshot,
    now: &Tracked,
) -> Result<(Source, Content, Base), Obstacle> {
    if now.change_id.is_none() {
        return Err(Obstacle::NotTracked); // for which nothing has to be looked up
    }
    let unreadable = |error: repository::Error| Obstacle::BaseUnreadable(Problem::chain(&error));
    let point = repository.newest_of(&snapshot.disk).await.map_err(unreadable)?.ok_or(Obstacle::NoBase)?;
    let (facts, chunk_size) = repository.facts(&point.id).await.map_err(unreadable)?;
    let base = base(&point, &facts, chunk_size);
    let facts = Facts { now, base: Some(&base), chunk_size: CHUNK_SIZE, time: Timestamp::now() };
    let source = decided::decide(&facts);
    let since = match &source {
        Source::ChangedAreas { since } => since,
        Source::AllocatedAreas(why) => return Err(why.clone()),
    };
    let areas = vcenter.changed_areas(snapshot, since, now.size_bytes).await;
    let areas = areas.map_err(|error| Obstacle::NotAnswered(Problem::chain(&error)))?;
    let reader = repository.reader(&point.id).await.map_err(unreadable)?;
    Ok((source, Content::Changed { areas, base: reader }, base))
}

/// The disk as the snapshot holds it. A change id that cannot be had is as good as none.
async fn tracked(vcenter: &Vcenter, snapshot: &DiskSnapshot, disk: &Disk) -> Tracked {
    let change_id = match vcenter.snapshot_details(snapshot).await {
        Ok(details) => details.change_id,
        Err(error) => {
            tracing::warn!(%snapshot, error = %Problem::chain(&error), "its change id cannot be had");
            None
        }
    };
    Tracked {
        size_bytes: disk.capacity_bytes,
        create_time: Some(disk.create_time),
        datastore: Some(disk.datastore.clone()),
        file_path: Some(disk.file_path.clone()),
        backing_object_id: disk.backing_object_id.clone(),
        change_id,
    }
}

fn base(point: &RestorePoint, facts: &DiskFacts, chunk_size: u64) -> Base {
    Base {
        then: Tracked {
            size_bytes: facts.size_bytes,
            create_time: facts.create_time,
            datastore: facts.datastore.clone(),
            file_path: facts.file_path.clone(),
            backing_object_id: facts.backing_object_id.clone(),
            change_id: facts.change_id.clone(),
        },
        chunk_size,
        full_read: facts.full_read,
        in_a_row: facts.tracked_in_a_row.unwrap_or_default(),
        doubted: facts.tracking_doubted || point.tags.get(DOUBTED.0).is_some_and(|value| value == DOUBTED.1),
    }
}

/// Marks the restore points of a disk that rest on its change tracking, back to the last full read. What cannot be marked is
/// said, and hinders nothing.
pub(super) async fn doubt(repository: &Repository, snapshot: &DiskSnapshot) {
    if let Err(error) = try_to_doubt(repository, snapshot).await {
        tracing::warn!(%snapshot, error = %Problem::chain(&error), "restore points that rest on it are not marked");
    }
}

async fn try_to_doubt(repository: &Repository, snapshot: &DiskSnapshot) -> Result<(), repository::Error> {
    let points = repository.restore_points().await?;
    let of_disk = |point: &&RestorePoint| point.identity().is_some_and(|identity| identity.disk == snapshot.disk);
    for point in points.iter().rev().filter(of_disk) {
        let (facts, _) = repository.facts(&point.id).await?;
        if facts.tracked_in_a_row.unwrap_or_default() == 0 {
            break;
        }
        repository.tag(&point.id, DOUBTED.0, DOUBTED.1).await?;
    }
    Ok(())
}
