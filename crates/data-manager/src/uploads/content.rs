//! What of a disk snapshot is read: asks vCenter and the repository, does what [`lifecycle::content`] decides, and notes
//! where change tracking was found to be untrue. Copies nothing.
//!
//! A doubt stands in the snapshot files of the disk's restore points, so it lasts as long as one of them, whatever becomes of
//! the attempt that found it.

use std::collections::BTreeSet;
use std::time::Duration;

use data_path::Content;
use disk::{ChangeId, DiskSnapshot};
use jiff::Timestamp;
use lifecycle::Problem;
use lifecycle::content::{self as decided, Ancestry, Base, Facts, Obstacle, Source, Tracked};
use repository::{CHUNK_SIZE, DiskFacts, NewRestorePoint, Repository, RestorePoint};
use vsphere::{Disk, Vcenter};

/// Tag of restore points that may miss changes, and its value: for people.
const DOUBTED: (&str, &str) = ("tracking", "doubted");
/// Tag of restore points of a disk whose tracking was found to miss changes; its value says which tracking.
const UNTRUE: &str = "untrue-tracking";

/// How long vCenter may take to say what changed, all its answers together. Fragmented disks need many; a full read costs more
/// than this only on disks of terabytes.
const CHANGES_WITHIN: Duration = Duration::from_secs(600);

/// What was decided, and what it needs.
pub(super) struct Found {
    /// What is read, and why.
    pub(super) source: Source,
    /// The same for the copy.
    pub(super) content: Content,
    /// The disk; without a change id where a later backup must not count from here.
    now: Tracked,
    ancestry: Ancestry,
    taken: Timestamp,
    /// Whether its tracking is known to miss changes.
    doubted: bool,
}

/// Decides how the content of a disk snapshot that was `taken` then is found, given the restore points of the disk, oldest first.
/// Whatever cannot be had leads to a full read, never to a failure.
pub(super) async fn find(
    vcenter: &Vcenter,
    repository: &Repository,
    snapshot: &DiskSnapshot,
    disk: &Disk,
    taken: Timestamp,
    points: &[RestorePoint],
) -> Found {
    let now = tracked(vcenter, snapshot, disk).await;
    let doubts = doubts(points);
    let doubted = now.change_id.as_ref().and_then(decided::tracking).is_some_and(|t| doubts.contains(&t));
    match choose(vcenter, repository, snapshot, &now, points.last(), &doubts).await {
        Ok((source, content, base)) => {
            let ancestry = decided::ancestry(&source, Some(&base), taken);
            Found { source, content, now, ancestry, taken, doubted }
        }
        Err(why) => full(now, why, taken, doubted),
    }
}

fn full(now: Tracked, why: Obstacle, taken: Timestamp, doubted: bool) -> Found {
    let source = Source::AllocatedAreas(why);
    let ancestry = decided::ancestry(&source, None, taken);
    Found { source, content: Content::Allocated, now, ancestry, taken, doubted }
}

impl Found {
    /// The same, once what was said to be unchanged was found changed.
    pub(super) fn untrue(self) -> Self {
        full(self.now, Obstacle::Untrue, self.taken, true)
    }

    /// The same for a disk that turns out to have so many bytes.
    pub(super) fn of_size(mut self, bytes: u64) -> Self {
        let then = std::mem::replace(&mut self.now.size_bytes, bytes);
        match self.source {
            Source::ChangedAreas { .. } if then != bytes => {
                full(self.now, Obstacle::Resized { then, now: bytes }, self.taken, self.doubted)
            }
            _ => self,
        }
    }

    /// The restore point with what it says of how its content was found.
    pub(super) fn noted(&self, point: &NewRestorePoint) -> NewRestorePoint {
        let mut point = point.clone();
        point.disk = DiskFacts {
            size_bytes: self.now.size_bytes,
            change_id: self.now.change_id.clone(),
            content_found: Some(self.source.to_string()),
            full_read: self.ancestry.full_read,
            tracked_in_a_row: Some(self.ancestry.in_a_row),
            ..point.disk
        };
        if let Some(tracking) = self.now.change_id.as_ref().filter(|_| self.doubted).and_then(decided::tracking) {
            point.tags.push((UNTRUE.to_owned(), tracking));
        }
        point
    }

    /// Writes down, on every restore point of the disk that counts by the same tracking, that it misses changes; those that
    /// rest on it may miss some themselves, and say so. What cannot be written is said, and hinders nothing.
    pub(super) async fn doubt(&self, repository: &Repository, snapshot: &DiskSnapshot) {
        let Some(id) = &self.now.change_id else { return };
        if let Err(error) = doubt(repository, snapshot, id).await {
            tracing::warn!(%snapshot, error = %Problem::chain(&error), "restore points that rest on it are not marked");
        }
    }
}

async fn choose(
    vcenter: &Vcenter,
    repository: &Repository,
    snapshot: &DiskSnapshot,
    now: &Tracked,
    newest: Option<&RestorePoint>,
    doubted: &[String],
) -> Result<(Source, Content, Base), Obstacle> {
    if now.change_id.is_none() {
        return Err(Obstacle::NotTracked); // for which nothing has to be looked up
    }
    let unreadable = |error: repository::Error| Obstacle::BaseUnreadable(Problem::chain(&error));
    let point = newest.ok_or(Obstacle::NoBase)?;
    let (facts, chunk_size) = repository.facts(&point.id).await.map_err(unreadable)?;
    let base = base(&facts, chunk_size);
    let facts = Facts { now, base: Some(&base), chunk_size: CHUNK_SIZE, doubted, time: Timestamp::now() };
    let source = decided::decide(&facts);
    let since = match &source {
        Source::ChangedAreas { since } => since,
        Source::AllocatedAreas(why) => return Err(why.clone()),
    };
    let asking = vcenter.changed_areas(snapshot, since, now.size_bytes);
    let areas = match tokio::time::timeout(CHANGES_WITHIN, asking).await {
        Ok(areas) => areas.map_err(|error| Obstacle::NotAnswered(Problem::chain(&error)))?,
        Err(_) => {
            let why = format!("not all of its answers came within {} min", CHANGES_WITHIN.as_secs() / 60);
            return Err(Obstacle::NotAnswered(why));
        }
    };
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
        vcenter: Some(vcenter.config().server()),
        change_id,
    }
}

fn base(facts: &DiskFacts, chunk_size: u64) -> Base {
    Base {
        then: Tracked {
            size_bytes: facts.size_bytes,
            create_time: facts.create_time,
            datastore: facts.datastore.clone(),
            file_path: facts.file_path.clone(),
            backing_object_id: facts.backing_object_id.clone(),
            vcenter: facts.vcenter.clone(),
            change_id: facts.change_id.clone(),
        },
        chunk_size,
        full_read: facts.full_read,
        in_a_row: facts.tracked_in_a_row.unwrap_or_default(),
    }
}

/// The trackings that restore points of a disk call untrue.
fn doubts(points: &[RestorePoint]) -> Vec<String> {
    let all: BTreeSet<&String> = points.iter().filter_map(|point| point.tags.get(UNTRUE)).collect();
    all.into_iter().cloned().collect()
}

async fn doubt(repository: &Repository, snapshot: &DiskSnapshot, id: &ChangeId) -> Result<(), repository::Error> {
    let Some(tracking) = decided::tracking(id) else { return Ok(()) };
    for point in repository.points_of(&snapshot.disk).await?.iter().rev() {
        let (facts, _) = repository.facts(&point.id).await?;
        if facts.change_id.as_ref().and_then(decided::tracking).as_ref() != Some(&tracking) {
            break;
        }
        let rests = facts.tracked_in_a_row.unwrap_or_default() > 0;
        let tags = [(UNTRUE, tracking.as_str()), DOUBTED];
        repository.tag(&point.id, if rests { &tags } else { &tags[..1] }).await?;
    }
    Ok(())
}
