//! What the status of a Download says after each step. The caller writes it; only what differs goes over the wire.

use api::conditions::{self, DISK_REMOVED, READY, Status};
use api::{DownloadCheckpoint, DownloadPhase, DownloadStatus, Progress, Reason, Time, Timestamp, Weight};
use disk::DiskId;

use super::Transport;
use crate::limits::Limit;
use crate::retry::download_due;
use crate::{Again, Problem};

/// The status a new Download is posted with. It carries `nextRetryTimestamp`: the original's programs crash without it.
pub fn new(now: Timestamp) -> DownloadStatus {
    let mut status = DownloadStatus {
        phase: Some(DownloadPhase::New),
        next_retry_timestamp: Some(Time(now)),
        ..DownloadStatus::default()
    };
    tell(&mut status, Status::False, Reason::Queued, "waiting for a node to take it", now);
    status
}

/// The driver makes a disk for it, or cannot yet, and why. Nobody writes before that. What is wrong stays said while it is tried
/// again.
pub fn awaits_its_disk(before: &DownloadStatus, reason: Reason, message: &str, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    status.phase.get_or_insert(DownloadPhase::New);
    status.next_retry_timestamp.get_or_insert(Time(now));
    let said = conditions::get(&before.conditions, READY).and_then(|c| Reason::from_word(&c.reason));
    if reason.weight() == Weight::Trouble || said.is_none_or(|said| said.weight() != Weight::Trouble) {
        tell(&mut status, Status::False, reason, message, now);
    }
    status
}

/// It ends before any node has taken it, or whoever asked waits no longer.
pub fn ended(before: &DownloadStatus, problem: &Problem, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    status.phase = Some(DownloadPhase::Failed);
    status.message = Some(problem.message());
    status.completion_timestamp = Some(Time(now));
    status.next_retry_timestamp.get_or_insert(Time(now));
    status.checkpoint = None;
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// Its disk is not wanted and cannot be removed yet. Why it is not wanted stays said besides.
pub fn disk_stays(before: &DownloadStatus, problem: &Problem, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    conditions::set(&mut status.conditions, DISK_REMOVED, Status::False, problem.reason, &problem.message(), now);
    status
}

/// Whether this was said already of a disk that cannot be removed.
pub fn is_said_to_stay(status: &DownloadStatus, reason: Reason) -> bool {
    let said = conditions::get(&status.conditions, DISK_REMOVED);
    said.is_some_and(|said| said.status == "False" && said.reason == reason.as_str())
}

/// What kept its disk from being removed is over.
pub fn disk_stays_no_more(before: &DownloadStatus) -> DownloadStatus {
    let mut status = before.clone();
    status.conditions.retain(|condition| condition.type_ != DISK_REMOVED);
    status
}

/// A node has the lease and starts to write.
pub fn started(before: &DownloadStatus, node: &str, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    if matches!(status.phase, None | Some(DownloadPhase::New)) {
        status.start_timestamp = Some(Time(now));
        status.retry_count = 0;
        status.checkpoint = Some(DownloadCheckpoint::untouched());
    }
    status.phase = Some(DownloadPhase::InProgress);
    status.processing_node = Some(node.to_owned());
    status.next_retry_timestamp.get_or_insert(Time(now));
    let (reason, message) = match taken_over_from(before, node) {
        Some(other) => (Reason::TakenOver, format!("node {node} goes on where node {other} was writing the volume")),
        None => (Reason::Downloading, format!("node {node} is writing the volume")),
    };
    tell(&mut status, Status::False, reason, &message, now);
    status
}

/// The node that writes stops in order, as for an update: another one goes on.
pub fn given_back(before: &DownloadStatus, node: &str, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    let message = format!("node {node} stops; waiting for a node that goes on");
    tell(&mut status, Status::False, Reason::Queued, &message, now);
    status
}

/// The other node that was at work on it until now. After a failed attempt any node may make the next one: that is no
/// take-over.
fn taken_over_from<'s>(before: &'s DownloadStatus, node: &str) -> Option<&'s str> {
    let was_at_work = before.phase == Some(DownloadPhase::InProgress);
    before.processing_node.as_deref().filter(|other| was_at_work && !other.is_empty() && *other != node)
}

/// How far the copy is.
pub fn progressed(before: &DownloadStatus, progress: Progress) -> DownloadStatus {
    DownloadStatus { progress, ..before.clone() }
}

/// Whether the setting that limits the node holds it up.
pub fn paced(before: &DownloadStatus, limit: Option<&Limit>, node: &str, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    let was_limited =
        conditions::get(&status.conditions, READY).is_some_and(|c| c.reason == Reason::RateLimited.as_str());
    match limit {
        Some(limit) => tell(&mut status, Status::False, Reason::RateLimited, &limit.to_string(), now),
        None if was_limited => {
            tell(&mut status, Status::False, Reason::Downloading, &format!("node {node} is writing the volume"), now);
        }
        None => {}
    }
    status
}

/// The disk is open.
pub fn opened(before: &DownloadStatus, transport: &Transport, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    transport.note(&mut status.conditions, now);
    status
}

/// What of it is on the volume for good.
pub fn saved(before: &DownloadStatus, checkpoint: DownloadCheckpoint) -> DownloadStatus {
    DownloadStatus { checkpoint: Some(checkpoint), ..before.clone() }
}

/// The volume is written and flushed.
pub fn completed(before: &DownloadStatus, volume: &DiskId, progress: Progress, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    status.phase = Some(DownloadPhase::Completed);
    status.completion_timestamp = Some(Time(now));
    status.next_retry_timestamp.get_or_insert(Time(now));
    status.volume_id = Some(format!("ivd:{volume}"));
    status.message = Some("Download completed".to_owned());
    status.progress = progress;
    status.checkpoint = None;
    tell(&mut status, Status::True, Reason::Completed, "the volume is written and flushed", now);
    status
}

/// An attempt failed: another in five minutes, or the end after the seventh failure or when no retry can help. The next one
/// goes on where the checkpoint says; after a flush that failed the disk is not believed any more.
pub fn attempt_failed(before: &DownloadStatus, problem: &Problem, now: Timestamp) -> DownloadStatus {
    let mut status = before.clone();
    status.retry_count = before.retry_count.saturating_add(1);
    status.message = Some(problem.message());
    status.next_retry_timestamp.get_or_insert(Time(now));
    match download_due(status.retry_count, now).filter(|_| problem.again == Again::Later) {
        Some(due) => {
            status.phase = Some(DownloadPhase::Retry);
            status.next_retry_timestamp = Some(Time(due));
            if problem.reason == Reason::DiskFlushFailed {
                status.checkpoint = before.checkpoint.clone().map(nothing_written);
            }
        }
        None => {
            status.phase = Some(DownloadPhase::Failed);
            status.completion_timestamp = Some(Time(now));
            status.checkpoint = None;
        }
    }
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// The same, of a restore that begins at its start.
fn nothing_written(checkpoint: DownloadCheckpoint) -> DownloadCheckpoint {
    DownloadCheckpoint { up_to: 0, beyond: String::new(), ..checkpoint }
}

fn tell(status: &mut DownloadStatus, ready: Status, reason: Reason, message: &str, now: Timestamp) {
    conditions::set(&mut status.conditions, READY, ready, reason, message, now);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_download_is_tried_seven_times() {
        let problem = Problem::passing(Reason::StoreUnreachable, "read a pack: timed out");
        let mut status = new(noon());
        let mut attempts = 0;
        while status.phase != Some(DownloadPhase::Failed) {
            status = attempt_failed(&started(&status, "node-a", noon()), &problem, noon());
            attempts += 1;
        }
        assert_eq!((attempts, status.retry_count), (7, 7));
        assert!(status.completion_timestamp.is_some() && status.next_retry_timestamp.is_some());
    }

    #[test]
    fn a_damaged_restore_point_is_not_read_seven_times() {
        let problem = Problem::lasting(Reason::RestorePointDamaged, "read pack 12ab: wrong length");
        assert_eq!(attempt_failed(&new(noon()), &problem, noon()).phase, Some(DownloadPhase::Failed));
    }

    #[test]
    fn every_end_of_a_download_carries_its_time() {
        let (volume, gone) = ("disk-1".parse().unwrap(), Problem::lasting(Reason::RestorePointMissing, "none"));
        let begun = started(&new(noon()), "node-a", noon());
        let ends = [
            completed(&begun, &volume, Progress::default(), noon()),
            completed(&DownloadStatus::default(), &volume, Progress::default(), noon()),
            ended(&DownloadStatus::default(), &gone, noon()),
            attempt_failed(&begun, &gone, noon()),
        ];
        for status in ends {
            assert!(status.phase.as_ref().is_some_and(DownloadPhase::is_terminal), "{:?}", status.phase);
            assert_eq!(status.completion_timestamp, Some(Time(noon())), "{:?}", status.phase);
            assert!(status.next_retry_timestamp.is_some(), "{:?}", status.phase);
        }
    }

    /// Each word becomes an event, and what is written comes back as one: a disk that stays for hours would fill the list.
    #[test]
    fn a_disk_that_stays_is_told_of_once_for_each_reason_and_again_after_it_was_gone() {
        let away = Problem::passing(Reason::VCenterUnreachable, "remove the disk: away");
        let fresh = new(noon());
        let stays = disk_stays(&fresh, &away, noon());
        let held = disk_stays(&stays, &Problem::passing(Reason::NotStopping, "remove the disk: held"), noon());
        let cases = [
            ("nothing was said of it", &fresh, Reason::Queued, false),
            ("said a moment ago", &stays, Reason::VCenterUnreachable, true),
            ("for another reason", &stays, Reason::NotStopping, false),
            ("the last reason counts", &held, Reason::NotStopping, true),
            ("the first one again", &held, Reason::VCenterUnreachable, false),
            ("what kept it is over", &disk_stays_no_more(&held), Reason::NotStopping, false),
        ];
        for (situation, status, reason, want) in cases {
            assert_eq!(is_said_to_stay(status, reason), want, "{situation}");
        }
        let ready = |status: &DownloadStatus| conditions::get(&status.conditions, READY).cloned();
        assert_eq!(ready(&held), ready(&fresh), "why the disk is not wanted stays said");
    }

    #[test]
    fn what_is_on_the_volume_for_good_is_known_to_the_next_attempt_and_gone_with_the_last() {
        let checkpoint = DownloadCheckpoint {
            digest: "ab".to_owned(),
            disk: "disk-1".to_owned(),
            was_blank: true,
            chunk_size: 512 << 10,
            up_to: 64 << 20,
            beyond: "06".to_owned(),
        };
        let untouched = DownloadCheckpoint::untouched();
        let again = DownloadCheckpoint { up_to: 0, beyond: String::new(), ..checkpoint.clone() };
        let before = saved(&started(&new(noon()), "node-a", noon()), checkpoint.clone());
        let failed = |problem: Problem| attempt_failed(&before, &problem, noon());
        let volume = "disk-1".parse().unwrap();
        let cases = [
            ("it goes on", progressed(&before, Progress::default()), Some(&checkpoint)),
            ("its node stops", given_back(&before, "node-a", noon()), Some(&checkpoint)),
            ("its node died", started(&before, "node-b", noon()), Some(&checkpoint)),
            ("S3 is away", failed(Problem::passing(Reason::StoreUnreachable, "")), Some(&checkpoint)),
            ("a flush failed", failed(Problem::passing(Reason::DiskFlushFailed, "")), Some(&again)),
            ("it is damaged", failed(Problem::lasting(Reason::RestorePointDamaged, "")), None),
            ("it is complete", completed(&before, &volume, Progress::default(), noon()), None),
            (
                "it is new, with an old one",
                started(&saved(&new(noon()), checkpoint.clone()), "n", noon()),
                Some(&untouched),
            ),
        ];
        for (situation, status, want) in cases {
            assert_eq!(status.checkpoint.as_ref(), want, "{situation}");
        }
    }
}
