//! How old things may get: when an object without a phase counts as asked for, and when a finished one goes.

use api::{Time, Timestamp};
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

/// What becomes of a finished object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It has no completion time, so nobody knows how long it has been finished: it stays.
    Keep,
    /// It goes at that time.
    KeepUntil(Timestamp),
    /// It goes now.
    Remove,
}

/// What becomes of an object that finished at `completed`.
pub fn finished(completed: Option<&Time>, now: Timestamp) -> Finished {
    match completed.and_then(|t| t.0.checked_add(KEPT).ok()) {
        None => Finished::Keep,
        Some(at) if at > now => Finished::KeepUntil(at),
        Some(_) => Finished::Remove,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_finished_object_is_kept_for_a_day() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let hour = SignedDuration::from_hours(1);
        let at = |hours: i32| Time(noon - hour * hours);
        let cases = [
            ("no completion time", None, Finished::Keep),
            ("just finished", Some(at(0)), Finished::KeepUntil(noon + KEPT)),
            ("23 hours ago", Some(at(23)), Finished::KeepUntil(noon + hour)),
            ("24 hours ago", Some(at(24)), Finished::Remove),
        ];
        for (situation, completed, want) in cases {
            assert_eq!(finished(completed.as_ref(), noon), want, "{situation}");
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
