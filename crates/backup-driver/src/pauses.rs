//! When an attempt that failed is due again. A requeue alone does not do: whatever the attempt wrote into its object comes
//! back as an event, and the next attempt would follow at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::Timestamp;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

/// What was due so long ago is not attempted any more: nobody was told that it is gone.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(24);

/// What is attempted with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum To {
    /// To begin a Snapshot.
    Begin,
    /// To end a Snapshot that no Upload will end.
    End,
    /// To make the scratch claim of a restore.
    Provision,
    /// To find out which disk the volume of a restore has.
    FindDisk,
    /// To make the claim of a written volume.
    Hand,
    /// To make the disk of a Download that names none.
    MakeDisk,
    /// To delete the disk snapshot of an Upload that the original has cancelled.
    FinishCancel,
    /// To delete a backup as a DeleteSnapshot says.
    Erase {
        /// Of the request: one that somebody corrected is tried at once.
        generation: i64,
    },
    /// To free the space of deleted backups in a repository.
    Maintain,
}

/// What failures are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempts {
    uid: String,
    to: To,
}

impl Attempts {
    /// The attempts with an object, to do that.
    pub fn of(object: &impl ResourceExt, to: To) -> Self {
        Self { uid: object.uid().unwrap_or_default(), to }
    }
}

/// Failures in a row and the time of the next attempt, by what is attempted. A restart forgets them: then all of it is
/// tried once more at once.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<HashMap<Attempts, (u32, Timestamp)>>);

impl Pauses {
    /// When the next attempt is due; `None` when none has failed.
    pub fn due(&self, attempts: &Attempts) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(attempts).map(|(_, due)| *due)
    }

    /// One more failure: the next attempt is due after the pause that `pause_of` gives for that many in a row.
    pub fn after_failure(
        &self,
        attempts: &Attempts,
        now: Timestamp,
        pause_of: impl FnOnce(u32) -> Duration,
    ) -> Timestamp {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, due)| now.duration_since(*due) < FORGOTTEN);
        let (failures, due) = all.entry(attempts.clone()).or_insert((0, now));
        *failures = failures.saturating_add(1);
        *due = now.checked_add(pause_of(*failures)).unwrap_or(now);
        *due
    }

    /// It worked, or is not wanted any more.
    pub fn forget(&self, attempts: &Attempts) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(attempts);
    }

    /// Nothing is attempted any more with the object of that uid.
    pub fn forget_all(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|attempts, _| attempts.uid != uid);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(uid: &str, to: To) -> Attempts {
        Attempts { uid: uid.to_owned(), to }
    }

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_store_that_stays_away_is_asked_less_and_less_often() {
        let pauses = Pauses::default();
        let (a, b) = (of("a", To::Begin), of("b", To::Begin));
        assert_eq!(pauses.due(&a), None);
        let seconds = |attempts| {
            let due = pauses.after_failure(attempts, noon(), lifecycle::retry::controller_pause);
            due.duration_since(noon()).as_secs()
        };
        assert_eq!([seconds(&a), seconds(&a), seconds(&a), seconds(&b)], [1, 2, 4, 1]);
        assert_eq!(pauses.due(&a).map(|due| due.duration_since(noon()).as_secs()), Some(4));
        pauses.forget(&a);
        assert_eq!((pauses.due(&a), seconds(&a)), (None, 1));
    }

    #[test]
    fn a_backup_that_could_not_begin_is_ended_at_once_and_a_corrected_request_is_tried_at_once() {
        let pauses = Pauses::default();
        let failed = |attempts: &Attempts| pauses.after_failure(attempts, noon(), lifecycle::retry::controller_pause);
        let (begin, first) = (of("a", To::Begin), of("b", To::Erase { generation: 1 }));
        failed(&begin);
        failed(&first);
        assert_eq!(pauses.due(&of("a", To::End)), None);
        assert_eq!(pauses.due(&of("b", To::Erase { generation: 2 })), None);
        pauses.forget_all("a");
        assert_eq!(pauses.due(&begin), None, "the object is gone");
        assert!(pauses.due(&first).is_some(), "another one's");
    }
}
