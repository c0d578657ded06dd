//! A restore that is to end while a node writes its volume still: the volume must not go meanwhile, so the node is waited for, and one that
//! does not let go is told of.

use std::time::Duration;

use api::{CloneFromSnapshotStatus, Reason, Timestamp};

use crate::Problem;
use crate::transfer::STOPPING;

/// Whether the node has had its time, by since when the end is noted.
pub fn is_stuck(status: &CloneFromSnapshotStatus, now: Timestamp) -> bool {
    let noted = super::ending(&status.conditions).map_or(now, |noted| noted.last_transition_time.0);
    Duration::try_from(now.duration_since(noted)).is_ok_and(|lasts| lasts >= STOPPING)
}

/// What the restore says of that node.
pub fn not_stopping(node: &str) -> Problem {
    let seconds = STOPPING.as_secs();
    let cause =
        format!("the restore ends; node {node} has not let go of the disk it writes for more than {seconds} seconds");
    Problem::passing(Reason::NotStopping, cause)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::clone::status;
    use api::ClonePhase;
    use api::conditions::{self, READY};
    use k8s_openapi::jiff::SignedDuration;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_node_that_goes_on_writing_a_restore_that_ends_is_told_of() {
        let ago = |seconds| noon() - SignedDuration::from_secs(seconds);
        let nothing = CloneFromSnapshotStatus::default();
        let stopping = |seconds| status::stopping(&nothing, ago(seconds));
        let failed = Problem::lasting(Reason::RestorePointDamaged, "read a pack");
        let cases = [
            ("no end is noted", nothing.clone(), false),
            ("asked to stop just now", stopping(0), false),
            ("a node that died still has its lease", stopping(60), false),
            ("a second before", stopping(89), false),
            ("too long", stopping(90), true),
            ("too long, for one that failed", status::giving_up(&nothing, &failed, ago(90)), true),
            ("a clock that was set back", stopping(-3600), false),
        ];
        for (situation, before, want) in cases {
            assert_eq!(is_stuck(&before, noon()), want, "{situation}");
        }
    }

    #[test]
    fn a_restore_that_waited_for_a_node_ends_as_it_was_noted() {
        let nothing = CloneFromSnapshotStatus::default();
        let failed = Problem::lasting(Reason::RestorePointDamaged, "read a pack");
        let then = noon() - SignedDuration::from_secs(100);
        let cases = [
            (status::stopping(&nothing, then), ClonePhase::Canceled, Reason::Canceled),
            (status::giving_up(&nothing, &failed, then), ClonePhase::Failed, Reason::RestorePointDamaged),
        ];
        for (before, phase, reason) in cases {
            let ready = |status: &CloneFromSnapshotStatus| conditions::get(&status.conditions, READY).cloned().unwrap();
            let waits = status::held(&before, &not_stopping("node-b"), noon());
            assert_eq!((ready(&waits).reason.as_str(), &waits.phase), (Reason::NotStopping.as_str(), &before.phase));
            assert!(ready(&waits).message.contains("node-b"), "{}", ready(&waits).message);
            assert!(is_stuck(&waits, noon()), "since when stays said");
            assert_eq!(status::held(&waits, &not_stopping("node-b"), noon()), waits, "it is told once");
            let ended = status::ended(&waits, noon());
            assert_eq!((ended.phase.clone(), ready(&ended).reason.as_str()), (Some(phase), reason.as_str()));
        }
    }
}
