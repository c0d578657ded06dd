//! A Snapshot whose Upload is gone while a node holds the Upload's lease still: the node may read the disk snapshot, so it is waited for,
//! however long it takes. One that does not let go is told of.

use std::time::Duration;

use api::conditions::{self, PROCEEDS};
use api::{Reason, SnapshotStatus, Timestamp};

use crate::Problem;
use crate::transfer::STOPPING;

/// How often the node is looked at until somebody is told of it, and after; it sends no event.
const LETTING_GO: Duration = Duration::from_secs(2);
const STUCK: Duration = Duration::from_secs(60);

/// What the Snapshot says meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it waits for.
    pub problem: Problem,
    /// After what time it is looked at again.
    pub look_again: Duration,
}

/// Decides by since when the Snapshot says that it waits.
pub fn held(status: &SnapshotStatus, node: &str, now: Timestamp) -> Held {
    let since = conditions::get(&status.conditions, PROCEEDS).map_or(now, |said| said.last_transition_time.0);
    let lasts = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    if lasts < STOPPING {
        let cause = format!("its Upload is gone; waiting until node {node} has let go of the disk");
        return Held { problem: Problem::passing(Reason::Canceling, cause), look_again: LETTING_GO };
    }
    let seconds = STOPPING.as_secs();
    let cause = format!("its Upload is gone; node {node} has not let go of the disk for more than {seconds} seconds");
    Held { problem: Problem::passing(Reason::NotStopping, cause), look_again: STUCK }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::snapshot::status;
    use api::conditions::READY;
    use k8s_openapi::jiff::SignedDuration;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    /// `said`: how many seconds ago the Snapshot said first that it waits.
    fn waiting(said: Option<i64>) -> SnapshotStatus {
        let before = SnapshotStatus::default();
        let Some(seconds) = said else { return before };
        let then = noon() - SignedDuration::from_secs(seconds);
        status::held(&before, &held(&before, "node-b", then).problem, then)
    }

    #[test]
    fn a_node_that_never_lets_go_of_a_backup_whose_upload_was_deleted_is_told_of() {
        let cases = [
            ("seen for the first time", None, Reason::Canceling, LETTING_GO),
            ("a node that died still has its lease", Some(60), Reason::Canceling, LETTING_GO),
            ("a second before", Some(89), Reason::Canceling, LETTING_GO),
            ("too long", Some(90), Reason::NotStopping, STUCK),
            ("a day later it is waited for still", Some(86_400), Reason::NotStopping, STUCK),
            ("a clock that was set back", Some(-3600), Reason::Canceling, LETTING_GO),
        ];
        for (situation, said, reason, look_again) in cases {
            let before = waiting(said);
            let found = held(&before, "node-b", noon());
            assert_eq!((found.problem.reason, found.look_again), (reason, look_again), "{situation}");
            assert!(found.problem.cause.contains("node-b"), "{situation}: {}", found.problem);
            let told = status::held(&before, &found.problem, noon());
            let ready = conditions::get(&told.conditions, READY).unwrap();
            assert_eq!(ready.reason, reason.as_str(), "{situation}");
            let since = |status: &SnapshotStatus| {
                conditions::get(&status.conditions, PROCEEDS).map(|said| said.last_transition_time.0)
            };
            assert_eq!(since(&told), since(&before).or(Some(noon())), "{situation}: it says since when");
        }
    }

    #[test]
    fn a_backup_that_waits_for_a_node_no_longer_does_not_say_so() {
        let waits = waiting(Some(100));
        let busy = Problem::passing(Reason::DiskBusy, "delete the disk snapshot");
        for (situation, goes_on) in [
            ("its disk snapshot cannot be deleted", status::held_up(&waits, &busy, noon())),
            ("there is no backup", status::abandoned(&waits, None, noon())),
            ("its backup is there", status::uploaded(&waits, noon())),
        ] {
            assert_eq!(conditions::get(&goes_on.conditions, PROCEEDS), None, "{situation}");
        }
    }
}
