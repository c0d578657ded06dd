//! When an attempt that failed is due again. A requeue alone does not do: whatever the attempt wrote into its object comes
//! back as an event, and the next attempt would follow at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::Timestamp;
use k8s_openapi::jiff::SignedDuration;

/// What was due so long ago is not attempted any more: nobody was told that it is gone.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(24);

/// Failures in a row and the time of the next attempt, by the name of what is attempted. A restart forgets them: then all
/// of it is tried once more at once.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<HashMap<String, (u32, Timestamp)>>);

impl Pauses {
    /// When the next attempt is due; `None` when none has failed.
    pub fn due(&self, name: &str) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(|(_, due)| *due)
    }

    /// One more failure: the next attempt is due after the pause that `pause_of` gives for that many in a row.
    pub fn after_failure(&self, name: &str, now: Timestamp, pause_of: impl FnOnce(u32) -> Duration) -> Timestamp {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, due)| now.duration_since(*due) < FORGOTTEN);
        let (failures, due) = all.entry(name.to_owned()).or_insert((0, now));
        *failures = failures.saturating_add(1);
        *due = now.checked_add(pause_of(*failures)).unwrap_or(now);
        *due
    }

    /// It worked, or is not wanted any more.
    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_store_that_stays_away_is_asked_less_and_less_often() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let pauses = Pauses::default();
        assert_eq!(pauses.due("a"), None);
        let seconds = |name| {
            let due = pauses.after_failure(name, noon, lifecycle::retry::controller_pause);
            due.duration_since(noon).as_secs()
        };
        assert_eq!([seconds("a"), seconds("a"), seconds("a"), seconds("b")], [1, 2, 4, 1]);
        assert_eq!(pauses.due("a").map(|due| due.duration_since(noon).as_secs()), Some(4));
        pauses.forget("a");
        assert_eq!((pauses.due("a"), seconds("a")), (None, 1));
    }
}
