//! Snapshots of first-class disks: taken once per token, deleted until they are really gone.
//!
//! `VslmCreateSnapshot_Task` asked twice makes two snapshots, and a reply may be lost after the work was done. So the
//! description carries a token, and before every try we look for it. This costs one list call and makes
//! [`Vcenter::create_snapshot`] safe to call again, also by a process that was restarted in the middle.

use std::time::Duration;

use disk::{ByteRange, ChangeId, DiskId, DiskSnapshot, DiskSnapshotId, Ranges};
use jiff::Timestamp;
use tracing::{debug, info, warn};

use crate::disks::{text, timestamp};
use crate::error::{Cause, Error};
use crate::fault::{Act, Fault, FaultKind, Recovery};
use crate::pace::Pace;
use crate::session::reference;
use crate::tasks::Runs;
use crate::transport::{Endpoint, bad_reply};
use crate::vcenter::Vcenter;
use crate::xml::{Element, Reference, Request};

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So often may the catalog deny a disk that it then must know.
const TRIES_WITHOUT_DISK: u32 = 3;

/// One entry of a disk's list of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: DiskSnapshotId,
    /// When it was taken.
    pub create_time: Timestamp,
    /// What its maker wrote: the token for ours.
    pub description: String,
}

/// What is known of one snapshot beyond the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDetails {
    /// The point in the disk's change tracking; `None` when it is not tracked.
    pub change_id: Option<ChangeId>,
}

/// How a snapshot came to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// By this call.
    Now,
    /// It was not there, or its disk was not.
    AlreadyGone,
}

impl Vcenter {
    /// The snapshots of a disk, oldest first.
    pub async fn list_snapshots(&self, disk: &DiskId) -> Result<Vec<SnapshotInfo>, Error> {
        self.snapshots_of(disk, None).await.map_err(|cause| Error::new(Act::ListSnapshots, disk, cause))
    }

    async fn snapshots_of(&self, disk: &DiskId, pace: Option<&Pace>) -> Result<Vec<SnapshotInfo>, Cause> {
        let reply = self.read_disks("VslmRetrieveSnapshotInfo", pace, |r| r.id("id", disk.as_str())).await?;
        // A disk without snapshots is answered with an empty list, or with none.
        let list = reply.element.child("returnval");
        let snapshots = list.into_iter().flat_map(|list| list.children_named("snapshots"));
        let mut found = snapshots.filter_map(SnapshotInfo::from_element).collect::<Result<Vec<_>, _>>()?;
        found.sort_by_key(|snapshot| snapshot.create_time);
        Ok(found)
    }

    /// Reads the change id of a snapshot.
    pub async fn snapshot_details(&self, snapshot: &DiskSnapshot) -> Result<SnapshotDetails, Error> {
        let fill = |r: Request| about(r, snapshot);
        let read = async { self.read_disks("VslmRetrieveSnapshotDetails", None, fill).await?.value() }.await;
        read.map(|details| SnapshotDetails { change_id: details.text_of("changedBlockTrackingId").map(ChangeId::new) })
            .map_err(|cause| Error::new(Act::ReadSnapshotDetails, snapshot, cause))
    }

    /// The areas of `snapshot` that changed since `base` (the change id `*` asks for the allocated ones), within the
    /// first `capacity_bytes` of the disk. A fault of kind [`crate::ReasonKind::ChangesUnknown`] means: read everything.
    pub async fn changed_areas(
        &self,
        snapshot: &DiskSnapshot,
        base: &ChangeId,
        capacity_bytes: u64,
    ) -> Result<Ranges, Error> {
        let mut changed = Ranges::new();
        let mut offset = 0;
        while offset < capacity_bytes {
            let page = self.changed_page(snapshot, base, offset).await;
            let (covered, areas) = page.map_err(|cause| Error::new(Act::QueryChangedAreas, snapshot, cause))?;
            let disk = ByteRange::between(0, capacity_bytes);
            areas.iter().for_each(|area| changed.insert(area.intersection(&disk)));
            offset = covered.end();
        }
        Ok(changed)
    }

    /// One page from `offset`: which bytes it speaks of, and which of them changed.
    async fn changed_page(
        &self,
        snapshot: &DiskSnapshot,
        base: &ChangeId,
        offset: u64,
    ) -> Result<(ByteRange, Vec<ByteRange>), Cause> {
        let fill =
            |r: Request| about(r, snapshot).text("startOffset", &offset.to_string()).text("changeId", base.as_str());
        let page = self.read_disks("VslmQueryChangedDiskAreas", None, fill).await?.value()?;
        let covered = range(&page, "startOffset")?;
        if covered.offset > offset || covered.end() <= offset {
            return Err(bad_reply(format!("asked from byte {offset}, it speaks of {covered:?}")));
        }
        let areas = page.children_named("changedArea").map(|area| range(area, "start")).collect::<Result<_, _>>()?;
        Ok((covered, areas))
    }

    /// Takes a snapshot of `disk`, or finds the one that was taken for the same `token` before. The token becomes the
    /// snapshot's description and must be unique to the purpose (a backup of a volume). Tries again until `within` is
    /// over, where that can help.
    pub async fn create_snapshot(&self, disk: &DiskId, token: &str, within: Duration) -> Result<DiskSnapshotId, Error> {
        let pace = Pace::new(self.shared.config.deadlines.retry_pause, LONGEST_PAUSE, within);
        self.take_once(disk, token, pace).await.map_err(|cause| Error::new(Act::CreateSnapshot, disk, cause))
    }

    async fn take_once(&self, disk: &DiskId, token: &str, mut pace: Pace) -> Result<DiskSnapshotId, Cause> {
        let mut without_disk = 0;
        loop {
            let failed = match self.find_or_take(disk, token, &pace).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(cause) => cause,
            };
            match failed.recovery(Act::CreateSnapshot) {
                Recovery::GiveUp | Recovery::AlreadyDone => return Err(failed),
                Recovery::Retry | Recovery::Reconcile => {}
            }
            if failed.is_not_found() {
                without_disk += 1;
                if without_disk >= TRIES_WITHOUT_DISK {
                    self.check_that_disk_exists(disk).await?;
                }
            }
            warn!(%disk, cause = failed.chain(), "could not take the snapshot yet");
            pace.pause_after(failed).await?;
        }
    }

    /// The snapshot service may deny a disk that exists; what else the catalog says of it decides.
    async fn check_that_disk_exists(&self, disk: &DiskId) -> Result<(), Cause> {
        match self.read_disk(disk).await {
            Err(cause) if cause.is_not_found() => Err(Cause::DiskGone { source: Box::new(cause) }),
            _ => Ok(()),
        }
    }

    async fn find_or_take(&self, disk: &DiskId, token: &str, pace: &Pace) -> Result<DiskSnapshotId, Cause> {
        if let Some(snapshot) = self.adopt(disk, token, pace).await? {
            info!(%disk, %snapshot, "found the snapshot that was taken before");
            return Ok(snapshot);
        }
        let taken = self.take(disk, token, pace).await?;
        info!(%disk, snapshot = %taken, "took a snapshot");
        // An earlier try whose reply was lost may have ended only now: then there are two.
        match self.adopt(disk, token, pace).await {
            Ok(oldest) => Ok(oldest.unwrap_or(taken)),
            Err(cause) => {
                debug!(%disk, cause = cause.chain(), "could not look for a second snapshot");
                Ok(taken)
            }
        }
    }

    /// The oldest snapshot with this token; younger ones are deleted.
    async fn adopt(&self, disk: &DiskId, token: &str, pace: &Pace) -> Result<Option<DiskSnapshotId>, Cause> {
        let snapshots = self.snapshots_of(disk, Some(pace)).await?;
        let mut ours = snapshots.into_iter().filter(|s| s.description.trim() == token.trim()).map(|s| s.id);
        let oldest = ours.next();
        for snapshot in ours {
            warn!(%disk, %snapshot, "deleting a second snapshot of the same token");
            let surplus = DiskSnapshot { disk: disk.clone(), snapshot };
            self.delete_until_gone(&surplus, pace.nested(self.shared.config.deadlines.retry_pause, LONGEST_PAUSE))
                .await?;
        }
        Ok(oldest)
    }

    async fn take(&self, disk: &DiskId, token: &str, pace: &Pace) -> Result<DiskSnapshotId, Cause> {
        let _permit = self.snapshot_permit(pace).await?;
        let begin = |session: &crate::session::Session| {
            Request::new("VslmCreateSnapshot_Task", session.disks()).id("id", disk.as_str()).text("description", token)
        };
        let reply = self.call(Endpoint::Vslm, false, Some(pace), begin).await?;
        let task = task_of(&reply.element)?;
        let result = self.finish_task(&task, Runs::Vslm, pace).await?;
        let id = result.as_ref().and_then(|result| result.text_of("id"));
        let id = id.ok_or_else(|| bad_reply("the task does not name its snapshot"))?;
        id.parse().map_err(|e| bad_reply(format!("a snapshot's id: {e}")))
    }

    /// Deletes a snapshot and makes sure that it is gone: faults that sound like *gone* are verified against the disk's
    /// list. Tries again until `within` is over, where that can help. Safe to call again.
    pub async fn delete_snapshot(&self, snapshot: &DiskSnapshot, within: Duration) -> Result<Deleted, Error> {
        let pace = Pace::new(self.shared.config.deadlines.retry_pause, LONGEST_PAUSE, within);
        let deleted = self.delete_until_gone(snapshot, pace).await;
        deleted.map_err(|cause| Error::new(Act::DeleteSnapshot, snapshot, cause))
    }

    async fn delete_until_gone(&self, snapshot: &DiskSnapshot, mut pace: Pace) -> Result<Deleted, Cause> {
        loop {
            let mut failed = match self.delete_once(snapshot, &pace).await {
                Ok(()) => return Ok(Deleted::Now),
                Err(cause) => cause,
            };
            let recovery = failed.recovery(Act::DeleteSnapshot);
            match recovery {
                Recovery::GiveUp => return Err(failed),
                Recovery::Retry => {}
                // The fault alone is no proof: the original took it for one and left snapshots behind.
                Recovery::AlreadyDone | Recovery::Reconcile => match self.is_there(snapshot, &pace).await {
                    Ok(true) if recovery == Recovery::AlreadyDone => {
                        failed = Cause::StillThere { source: Box::new(failed) };
                    }
                    Ok(true) => {}
                    Ok(false) if recovery == Recovery::Reconcile => return Ok(Deleted::Now),
                    Ok(false) => return Ok(Deleted::AlreadyGone),
                    Err(cause) if cause.recovery(Act::ListSnapshots) == Recovery::Retry => failed = cause,
                    Err(cause) => return Err(cause),
                },
            }
            warn!(%snapshot, cause = failed.chain(), "could not delete the snapshot yet");
            pace.pause_after(failed).await?;
        }
    }

    async fn delete_once(&self, snapshot: &DiskSnapshot, pace: &Pace) -> Result<(), Cause> {
        let _permit = self.snapshot_permit(pace).await?;
        let fill = |r: Request| about(r, snapshot);
        let reply = self.read_disks("VslmDeleteSnapshot_Task", Some(pace), fill).await?;
        self.finish_task(&task_of(&reply.element)?, Runs::Vslm, pace).await?;
        info!(%snapshot, "deleted a snapshot");
        Ok(())
    }

    async fn is_there(&self, snapshot: &DiskSnapshot, pace: &Pace) -> Result<bool, Cause> {
        match self.snapshots_of(&snapshot.disk, Some(pace)).await {
            Ok(snapshots) => Ok(snapshots.iter().any(|s| s.id == snapshot.snapshot)),
            Err(cause) if cause.is_not_found() => Ok(false), // the disk is gone, its snapshots with it
            Err(cause) => Err(cause),
        }
    }

    async fn snapshot_permit(&self, pace: &Pace) -> Result<tokio::sync::SemaphorePermit<'_>, Cause> {
        let waiting_for = "a free slot among our snapshot tasks";
        match tokio::time::timeout_at(pace.ends(), self.shared.snapshot_tasks.acquire()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Cause::DeadlinePassed { after: pace.within(), waiting_for }),
        }
    }
}

impl Cause {
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Fault(Fault { kind: FaultKind::NotFound, .. }))
    }
}

impl SnapshotInfo {
    /// `None` for an entry without an id: a chain's parts that are no snapshots of their own.
    pub(crate) fn from_element(element: &Element) -> Option<Result<Self, Cause>> {
        let id = element.child("id")?.text_of("id")?;
        Some(Self::with_id(&id, element))
    }

    fn with_id(id: &str, element: &Element) -> Result<Self, Cause> {
        Ok(Self {
            id: id.parse().map_err(|e| bad_reply(format!("a snapshot's id: {e}")))?,
            create_time: timestamp(element, "createTime")?,
            description: element.text_of("description").unwrap_or_default(),
        })
    }
}

/// The two ids that most calls about a snapshot begin with.
pub(crate) fn about(request: Request, snapshot: &DiskSnapshot) -> Request {
    request.id("id", snapshot.disk.as_str()).id("snapshotId", snapshot.snapshot.as_str())
}

/// The task that a `…_Task` call began.
pub(crate) fn task_of(response: &Element) -> Result<Reference, Cause> {
    reference(response, "returnval")
}

pub(crate) fn range(element: &Element, start: &str) -> Result<ByteRange, Cause> {
    let number = |name| -> Result<u64, Cause> {
        let text = text(element, name)?;
        text.trim().parse().map_err(|_| bad_reply(format!("`{name}` is not a number of bytes: {text}")))
    };
    let (offset, length) = (number(start)?, number("length")?);
    match offset.checked_add(length) {
        Some(_) => Ok(ByteRange::new(offset, length)),
        None => Err(bad_reply(format!("{length} bytes from {offset} end beyond any disk"))),
    }
}
