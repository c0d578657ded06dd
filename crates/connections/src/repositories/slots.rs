//! What a process keeps open, each in a slot of its own, and for how long. Opens nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long one is kept for which nobody asks. Keys of a bucket that are renewed every hour make another place of the same repository
/// each time, with a whole index. The driver asks for all it knows every half hour; a transfer holds its own clone to its end.
const KEPT: Duration = Duration::from_secs(3600);

/// One at a time may be opened or made at one place.
type Slot<T> = Arc<Mutex<Option<T>>>;

/// The slots of all places that somebody asked for lately.
pub(super) struct Slots<K, T>(HashMap<K, Used<T>>);

struct Used<T> {
    slot: Slot<T>,
    last: Instant,
}

impl<K: Eq + Hash, T> Slots<K, T> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// The slot of that place, which may be empty; those of other places for which nobody has asked for an hour go.
    pub(super) fn of(&mut self, place: K, now: Instant) -> Slot<T> {
        let used = self.0.entry(place).or_insert_with(|| Used { slot: Arc::default(), last: now });
        used.last = now;
        let slot = used.slot.clone();
        // one in hands is being opened, or waited for: another beside it would be a second opening at one place
        self.0.retain(|_, used| now.saturating_duration_since(used.last) < KEPT || Arc::strong_count(&used.slot) > 1);
        slot
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    /// Opens what is at that place; says whether it was open.
    fn opened(slots: &mut Slots<&'static str, ()>, place: &'static str, at: Instant) -> bool {
        let slot = slots.of(place, at);
        let before = slot.try_lock().unwrap().replace(());
        before.is_some()
    }

    #[test]
    fn renewed_keys_of_a_bucket_leave_no_index_behind_and_what_is_in_use_stays_open() {
        let (mut slots, begin) = (Slots::new(), Instant::now());
        let steps = [
            (0, "steady", false, 1),
            (0, "first key", false, 2),
            (30, "steady", true, 2),
            (59, "second key", false, 3),
            (60, "steady", true, 2),         // the first key's is closed
            (61, "first key", false, 3),     // somebody brought it back
            (24 * 60, "first key", true, 1), // once a day is enough for the only one
        ];
        for (minute, place, was_open, kept) in steps {
            let at = begin + Duration::from_secs(60 * minute);
            assert_eq!(opened(&mut slots, place, at), was_open, "{place} after {minute} min");
            assert_eq!(slots.0.len(), kept, "{place} after {minute} min");
        }
    }

    #[test]
    fn a_repository_that_takes_long_to_open_is_not_opened_twice_at_once() {
        let (mut slots, begin) = (Slots::<_, ()>::new(), Instant::now());
        let opening = slots.of("slow", begin);
        let later = begin + 2 * KEPT;
        slots.of("other", later);
        assert!(Arc::ptr_eq(&opening, &slots.of("slow", later)));
    }
}
