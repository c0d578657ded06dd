//! How old things may get: when an object without a phase counts as asked for, and when a finished one goes.

use api::{
    CloneFromSnapshotStatus, DeleteSnapshotStatus, DownloadStatus, SnapshotStatus, Time, Timestamp, UploadStatus,
    labels,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::SignedDuration;

/// An object without a phase counts as new after this long: `kubectl apply` cannot set a status, and a creator that
/// does set one must not meet a conflict.
pub const SETTLING: SignedDuration = SignedDuration::from_secs(5);

/// A finished object is deleted this long after its completion.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// When an object without a phase starts to count as new; `None` when it does already.
pub fn settles_at(created: Option<&Time>, now: Timestamp) -> Option<Timestamp> {
    let at = created?.0.checked_add(SETTLING).ok()?;
    (at > now).then_some(at)
}

/// As [`settles_at`], but at once for what our plugin has made for a backup of Velero: it writes no status, and Velero
/// waits for one claim after the other. The original labels nothing with a backup's uid.
pub fn begins_at(metadata: &ObjectMeta, now: Timestamp) -> Option<Timestamp> {
    let by_our_plugin = metadata.labels.as_ref().is_some_and(|l| l.contains_key(labels::BACKUP_UID));
    if by_our_plugin { None } else { settles_at(metadata.creation_timestamp.as_ref(), now) }
}

/// What becomes of a finished object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It does not say when. The original says no time of a bad end, and neither does a clone whose plugin died. The time is
    /// [written](said_when) first, and the day begins then; the original crashes where a good end has none.
    Untold,
    /// It goes at that time.
    KeepUntil(Timestamp),
    /// It goes now.
    Remove,
}

/// What becomes of an object that finished at `completed`.
pub fn finished(completed: Option<&Time>, now: Timestamp) -> Finished {
    match completed.and_then(|t| t.0.checked_add(KEPT).ok()) {
        None => Finished::Untold,
        Some(at) if at > now => Finished::KeepUntil(at),
        Some(_) => Finished::Remove,
    }
}

/// A status that says when its object ended.
pub trait SaysWhen: Clone {
    /// When that was.
    fn completed(&mut self) -> &mut Option<Time>;
}

macro_rules! says_when {
    ($($status:ident),*) => {$(
        impl SaysWhen for $status {
            fn completed(&mut self) -> &mut Option<Time> {
                &mut self.completion_timestamp
            }
        }
    )*};
}

says_when!(SnapshotStatus, CloneFromSnapshotStatus, DeleteSnapshotStatus, UploadStatus, DownloadStatus);

/// The same, ended at `now`: nobody knows better.
pub fn said_when<S: SaysWhen>(before: &S, now: Timestamp) -> S {
    let mut status = before.clone();
    *status.completed() = Some(Time(now));
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{ClonePhase, DeletePhase, DownloadPhase, SnapshotPhase, UploadPhase};

    #[test]
    fn velero_waits_five_seconds_for_no_claim_of_ours() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut made = ObjectMeta { creation_timestamp: Some(Time(now)), ..ObjectMeta::default() };
        assert_eq!(begins_at(&made, now), Some(now + SETTLING), "by hand, or by the original");
        made.labels = Some([(labels::BACKUP_UID.to_owned(), "u".to_owned())].into());
        assert_eq!(begins_at(&made, now), None, "by our plugin");
    }

    #[test]
    fn a_finished_object_is_kept_for_a_day() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let hour = SignedDuration::from_hours(1);
        let at = |hours: i32| Time(noon - hour * hours);
        let cases = [
            ("no completion time", None, Finished::Untold),
            ("a time past all counting", Some(Time(Timestamp::MAX)), Finished::Untold),
            ("just finished", Some(at(0)), Finished::KeepUntil(noon + KEPT)),
            ("23 hours ago", Some(at(23)), Finished::KeepUntil(noon + hour)),
            ("24 hours ago", Some(at(24)), Finished::Remove),
        ];
        for (situation, completed, want) in cases {
            assert_eq!(finished(completed.as_ref(), noon), want, "{situation}");
        }
    }

    /// What the status says then, and what becomes of its object when it is met, then, and a day later.
    fn told<S: SaysWhen>(mut met: S, noon: Timestamp) -> (S, [Finished; 3]) {
        let at_first = finished(met.completed().as_ref(), noon);
        let mut said = said_when(&met, noon);
        let then = finished(said.completed().as_ref(), noon);
        let a_day_later = finished(said.completed().as_ref(), noon + KEPT);
        (said, [at_first, then, a_day_later])
    }

    #[test]
    fn what_the_original_ended_without_a_time_goes_a_day_after_it_was_met_and_keeps_its_end() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let goes = [Finished::Untold, Finished::KeepUntil(noon + KEPT), Finished::Remove];
        for phase in [SnapshotPhase::SnapshotFailed, SnapshotPhase::Canceled, SnapshotPhase::UploadFailedAfterRetry] {
            let status = SnapshotStatus { phase: Some(phase.clone()), ..SnapshotStatus::default() };
            let (said, found) = told(status, noon);
            assert_eq!((said.phase, found), (Some(phase.clone()), goes), "a Snapshot that is {phase}");
        }
        for phase in [ClonePhase::Completed, ClonePhase::Failed, ClonePhase::Canceled] {
            let status = CloneFromSnapshotStatus { phase: Some(phase.clone()), ..CloneFromSnapshotStatus::default() };
            let (said, found) = told(status, noon);
            assert_eq!((said.phase, found), (Some(phase.clone()), goes), "a CloneFromSnapshot that is {phase}");
        }
        for phase in [DeletePhase::Completed, DeletePhase::Failed] {
            let status = DeleteSnapshotStatus { phase: Some(phase.clone()), ..DeleteSnapshotStatus::default() };
            let (said, found) = told(status, noon);
            assert_eq!((said.phase, found), (Some(phase.clone()), goes), "a DeleteSnapshot that is {phase}");
        }
        for phase in [UploadPhase::Completed, UploadPhase::Canceled, UploadPhase::UploadFailedAfterRetry] {
            let status = UploadStatus { phase: Some(phase.clone()), ..UploadStatus::default() };
            let (said, found) = told(status, noon);
            assert_eq!((said.phase, found), (Some(phase.clone()), goes), "an Upload that is {phase}");
        }
        for phase in [DownloadPhase::Completed, DownloadPhase::Failed] {
            let status = DownloadStatus { phase: Some(phase.clone()), ..DownloadStatus::default() };
            let (said, found) = told(status, noon);
            assert_eq!((said.phase, found), (Some(phase.clone()), goes), "a Download that is {phase}");
        }
    }

    #[test]
    fn a_young_object_without_phase_is_left_to_its_creator() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        assert_eq!(settles_at(Some(&Time(noon)), noon), Some(noon + SETTLING));
        assert_eq!(settles_at(Some(&Time(noon - SETTLING)), noon), None);
        assert_eq!(settles_at(None, noon), None);
    }
}
