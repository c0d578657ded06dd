//! Conditions on our objects. One type carries the reason of the moment; `kubectl wait --for=condition=Ready` works.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::Reason;

/// Condition of an Upload and its Snapshot: True when only what changed was read. Its message says why not.
pub const INCREMENTAL: &str = "Incremental";

/// Condition of an Upload and a Download: True once a node had the disk open. Its message says by which transport the disk
/// library moves the data. Unknown where the library does not say, and where an Upload was cancelled before its node had said it.
pub const TRANSPORT: &str = "Transport";

/// Condition of a Download whose disk nobody takes: False while the disk cannot be removed, with why. Not there once it is removed.
pub const DISK_REMOVED: &str = "DiskRemoved";

/// Condition of a CloneFromSnapshot whose volume is there: False while nobody can tell which disk that is, with why, and since when. Not
/// there once it is known.
pub const DISK_KNOWN: &str = "DiskKnown";

/// Condition of a Snapshot that has not begun, or whose Upload is gone, and of a CloneFromSnapshot: False while it cannot go on for something
/// that may pass, with why, and since when. Not there once it goes on.
pub const PROCEEDS: &str = "Proceeds";

/// Condition of a DeleteSnapshot that somebody made by hand without a namespace: True once its backup was found in the original's layout,
/// which is looked at before anything of it is removed.
pub const BACKUP_FOUND: &str = "BackupFound";

/// Condition of an Upload whose copy has ended and whose disk snapshot could not be deleted yet, and of its Snapshot: True where the restore
/// point was written and read back, False where the copy was given up, with why. Not there otherwise.
pub const STORED: &str = "Stored";

/// The one condition type all our kinds carry: True once the object has reached what it is for.
/// Its reason answers *why is it waiting, or why did it end*.
pub const READY: &str = "Ready";

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold, yet or for good.
    False,
    /// Nobody can say.
    Unknown,
}

impl Status {
    /// The word as it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Longest message the API server accepts, in characters.
const LONGEST_MESSAGE: usize = 32_768;

/// Sets a condition and says whether anything changed. The transition time moves only when the status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: Status,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> bool {
    let mut wanted = Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.chars().take(LONGEST_MESSAGE).collect(),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    let Some(present) = conditions.iter_mut().find(|c| c.type_ == type_) else {
        conditions.push(wanted);
        return true;
    };
    if present.status == wanted.status {
        wanted.last_transition_time = present.last_transition_time.clone();
    }
    let changed = *present != wanted;
    *present = wanted;
    changed
}

/// The condition of that type, if there is one.
pub fn get<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail where it stands

    use super::*;

    #[test]
    fn a_new_reason_keeps_the_time_of_the_last_change_of_status() {
        let (nine, ten) = (Timestamp::from_second(32_400).unwrap(), Timestamp::from_second(36_000).unwrap());
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, READY, Status::False, Reason::Queued, "", nine));
        assert!(!set(&mut conditions, READY, Status::False, Reason::Queued, "", ten), "nothing to write");
        assert!(set(&mut conditions, READY, Status::False, Reason::Uploading, "", ten));
        assert_eq!(get(&conditions, READY).unwrap().last_transition_time, Time(nine));
        assert!(set(&mut conditions, READY, Status::True, Reason::Completed, "", ten));
        assert_eq!(get(&conditions, READY).unwrap().last_transition_time, Time(ten));
        assert_eq!(conditions.len(), 1);
    }
}
