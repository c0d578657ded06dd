//! From the traits' words to those on the wire.

use std::time::Duration;

use jiff::Timestamp;

use super::kinds::{ItemReference, Outcome, Progress, Selector};
use super::wire::generated::{OperationProgress, ResourceIdentifier, ResourceSelector};

/// What Go writes for a time that was never set: the first of January of year 1. Absent would be read as 1970, which is set.
const NEVER: prost_types::Timestamp = prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 };

impl From<Selector> for ResourceSelector {
    fn from(selector: Selector) -> Self {
        Self {
            included_namespaces: selector.included_namespaces,
            excluded_namespaces: selector.excluded_namespaces,
            included_resources: selector.included_resources,
            excluded_resources: selector.excluded_resources,
            selector: selector.labels,
        }
    }
}

impl From<ItemReference> for ResourceIdentifier {
    fn from(item: ItemReference) -> Self {
        Self { group: item.group, resource: item.resource, namespace: item.namespace, name: item.name }
    }
}

impl From<ResourceIdentifier> for ItemReference {
    fn from(item: ResourceIdentifier) -> Self {
        Self { group: item.group, resource: item.resource, namespace: item.namespace, name: item.name }
    }
}

impl From<Progress> for OperationProgress {
    fn from(progress: Progress) -> Self {
        let (completed, err) = match progress.outcome {
            Outcome::Running => (false, String::new()),
            Outcome::Completed => (true, String::new()),
            // an empty text would say that it went well
            Outcome::Failed(text) if text.is_empty() => (true, "the operation failed and gave no reason".to_owned()),
            Outcome::Failed(text) => (true, text),
        };
        Self {
            completed,
            err,
            n_completed: signed(progress.done),
            n_total: signed(progress.total),
            operation_units: progress.units.to_owned(),
            description: progress.description,
            started: Some(time(progress.started)),
            updated: Some(time(progress.updated)),
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn time(time: Option<Timestamp>) -> prost_types::Timestamp {
    let Some(time) = time else { return NEVER };
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    match nanos < 0 {
        true => prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 },
        false => prost_types::Timestamp { seconds, nanos },
    }
}

/// A length of time as the wire has it.
pub(super) fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).expect("under a thousand million"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-16 and 12.1: times are always there, and "not yet" is Go's zero time.
    #[test]
    fn p16_a_time_that_is_not_yet_is_gos_zero_time() {
        let wire = OperationProgress::from(Progress::running("Accepted"));
        assert_eq!((wire.started, wire.updated), (Some(NEVER), Some(NEVER)));
        assert_eq!((wire.completed, wire.operation_units.as_str()), (false, "Bytes"));
    }

    #[test]
    fn times_and_counts_arrive_as_they_are() {
        let started = Some("2026-11-21T08:00:00.25Z".parse().unwrap());
        let before = Some("1969-12-31T23:59:58.75Z".parse().unwrap());
        let wire = OperationProgress::from(Progress {
            done: 5,
            total: u64::MAX,
            started,
            updated: before,
            ..Progress::running("")
        });
        assert_eq!(wire.started, Some(prost_types::Timestamp { seconds: 1_795_248_000, nanos: 250_000_000 }));
        assert_eq!(wire.updated, Some(prost_types::Timestamp { seconds: -2, nanos: 750_000_000 }));
        assert_eq!((wire.n_completed, wire.n_total), (5, i64::MAX));
    }

    #[test]
    fn a_failure_without_a_text_is_still_a_failure() {
        let wire =
            OperationProgress::from(Progress { outcome: Outcome::Failed(String::new()), ..Progress::running("") });
        assert!(wire.completed && !wire.err.is_empty());
    }
}
