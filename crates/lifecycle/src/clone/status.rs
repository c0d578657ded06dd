//! What the status of a CloneFromSnapshot says.

use api::conditions::{self, PROCEEDS, READY, Status};
use api::{CloneFromSnapshotStatus, ClonePhase, Download, Reason, ResourceHandle, Time, Timestamp};
use disk::DiskId;

use super::BEGINNING;
use super::volumes::ANSWERED;
use crate::patience::Patience;
use crate::{Again, Problem};

/// Condition that is there while an end is decided and things are still being removed; its reason is the end's.
pub const ENDING: &str = "Ending";

/// Whether an end is decided and only the removal is missing.
pub fn is_ending(status: &CloneFromSnapshotStatus) -> bool {
    super::ending(&status.conditions).is_some()
}

/// It is at work on something.
pub fn working(
    before: &CloneFromSnapshotStatus,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> CloneFromSnapshotStatus {
    let mut status = before.clone();
    status.phase = Some(ClonePhase::InProgress);
    tell(&mut status, Status::False, reason, message, now);
    status
}

/// It looks for the restore point and makes a volume. What kept an earlier attempt from it stays said meanwhile: the next one may end the
/// same.
pub fn provisioning(before: &CloneFromSnapshotStatus, now: Timestamp) -> CloneFromSnapshotStatus {
    if conditions::get(&before.conditions, PROCEEDS).is_some() {
        return before.clone();
    }
    working(before, Reason::Provisioning, "looking for the restore point and making an empty volume", now)
}

/// Its scratch claim is there: the CSI driver makes the volume.
pub fn provisioned(before: &CloneFromSnapshotStatus, now: Timestamp) -> CloneFromSnapshotStatus {
    provisioning(&goes_on(before), now)
}

/// It cannot go on, for something that may pass: says why, and since when in a condition of its own. `begun` is when this was tried.
pub fn hindered(
    before: &CloneFromSnapshotStatus,
    patience: Patience,
    problem: &Problem,
    begun: Timestamp,
) -> CloneFromSnapshotStatus {
    let mut status = working(before, problem.reason, &problem.message(), begun);
    patience.note(&mut status.conditions, problem, begun);
    status
}

/// The volume is there, and nobody can tell which disk it is.
pub fn disk_unknown(before: &CloneFromSnapshotStatus, problem: &Problem, now: Timestamp) -> CloneFromSnapshotStatus {
    hindered(before, ANSWERED, problem, now)
}

/// What kept it from going on is over.
pub fn goes_on(before: &CloneFromSnapshotStatus) -> CloneFromSnapshotStatus {
    let mut status = before.clone();
    for kept in [BEGINNING, ANSWERED] {
        kept.over(&mut status.conditions);
    }
    status
}

/// A node writes: how far it is, and why it waits if it does.
pub fn followed(before: &CloneFromSnapshotStatus, download: &Download, now: Timestamp) -> CloneFromSnapshotStatus {
    let theirs = download.status.clone().unwrap_or_default();
    let ready = conditions::get(&theirs.conditions, READY);
    let reason = ready.and_then(|c| Reason::ALL.iter().find(|r| r.as_str() == c.reason)).copied();
    let message = ready.map(|c| c.message.clone()).unwrap_or_default();
    let mut status = goes_on(&working(before, reason.unwrap_or(Reason::Downloading), &message, now));
    status.progress = Some(theirs.progress);
    status
}

/// Why a Download failed.
pub(crate) fn problem_of(download: &Download) -> Problem {
    let theirs = download.status.clone().unwrap_or_default();
    let ready = conditions::get(&theirs.conditions, READY);
    let reason = ready.and_then(|c| Reason::ALL.iter().find(|r| r.as_str() == c.reason)).copied();
    let cause = theirs.message.unwrap_or_else(|| "the download failed and did not say why".to_owned());
    let reason = reason.unwrap_or(Reason::Internal);
    // the message already ends with what helps
    let cause = cause.trim_end_matches(reason.fix()).trim_end().to_owned();
    Problem { reason, cause, fix: None, again: Again::Never }
}

/// It cannot be done: noted, before anything is removed.
pub fn giving_up(before: &CloneFromSnapshotStatus, problem: &Problem, now: Timestamp) -> CloneFromSnapshotStatus {
    let mut status = before.clone();
    status.phase = Some(ClonePhase::InProgress);
    status.message = Some(problem.message());
    conditions::set(&mut status.conditions, ENDING, Status::True, problem.reason, &problem.message(), now);
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// It was asked to stop: noted, before anything is removed.
pub fn stopping(before: &CloneFromSnapshotStatus, now: Timestamp) -> CloneFromSnapshotStatus {
    let mut status = before.clone();
    status.phase = Some(ClonePhase::Canceling);
    conditions::set(&mut status.conditions, ENDING, Status::True, Reason::Canceled, "asked to stop", now);
    tell(&mut status, Status::False, Reason::Canceling, "asked to stop", now);
    status
}

/// Everything is removed: the end that was noted.
pub fn ended(before: &CloneFromSnapshotStatus, now: Timestamp) -> CloneFromSnapshotStatus {
    let mut status = goes_on(before);
    let noted = super::ending(&before.conditions).cloned();
    status.conditions.retain(|c| c.type_ != ENDING);
    let reason = noted.as_ref().and_then(|c| Reason::ALL.iter().find(|r| r.as_str() == c.reason)).copied();
    let (reason, message) = (reason.unwrap_or(Reason::Internal), noted.map(|c| c.message).unwrap_or_default());
    status.phase = Some(if reason == Reason::Canceled { ClonePhase::Canceled } else { ClonePhase::Failed });
    status.completion_timestamp = Some(Time(now));
    status.message = Some(message.clone());
    tell(&mut status, Status::False, reason, &message, now);
    status
}

/// The claim is bound and holds the data, on that disk where it can be told.
pub fn completed(before: &CloneFromSnapshotStatus, disk: Option<&DiskId>, now: Timestamp) -> CloneFromSnapshotStatus {
    let mut status = goes_on(before);
    status.phase = Some(ClonePhase::Completed);
    status.message = Some("Download completed".to_owned());
    status.resource_handle = disk.map(|disk| ResourceHandle::claim(&format!("ivd:{disk}")));
    status.completion_timestamp = Some(Time(now));
    status.conditions.retain(|c| c.type_ != ENDING);
    tell(&mut status, Status::True, Reason::Completed, "the claim is bound and holds the data", now);
    status
}

fn tell(status: &mut CloneFromSnapshotStatus, ready: Status, reason: Reason, message: &str, now: Timestamp) {
    conditions::set(&mut status.conditions, READY, ready, reason, message, now);
}
