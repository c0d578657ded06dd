//! What a process keeps open, each in a slot of its own, and for how long. How something is opened it is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::Instrument as _;

/// How long one is kept for which nobody asks. Keys of a bucket that are renewed every hour make another place of the same repository
/// each time, with a whole index. The driver asks for all it knows every half hour; a transfer holds its own clone to its end.
const KEPT: Duration = Duration::from_secs(3600);

/// One at a time may be opened or made at one place.
pub(super) type Slot<T, E> = Arc<Mutex<Held<T, E>>>;

/// What a slot holds.
#[derive(Debug)]
pub(super) struct Held<T, E> {
    /// What is open.
    pub(super) open: Option<T>,
    /// What the last opening failed by, and when.
    failed: Option<(Instant, E)>,
}

impl<T, E> Held<T, E> {
    /// What the last opening failed by, where that was since then: whoever has waited for it has their answer. Not who makes what is not
    /// there: a look that found nothing says nothing of that, and a backup that begins has one try.
    pub(super) fn failed_since(&self, asked: Instant, make: bool) -> Option<&E> {
        self.failed.as_ref().filter(|(at, _)| *at > asked && !make).map(|(_, error)| error)
    }
}

/// The slots of all places that somebody asked for lately.
pub(super) struct Slots<K, T, E>(HashMap<K, Used<T, E>>);

struct Used<T, E> {
    slot: Slot<T, E>,
    last: Instant,
}

impl<K: Eq + Hash, T, E> Slots<K, T, E> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// The slot of that place, which may be empty; those of other places for which nobody has asked for an hour go.
    pub(super) fn of(&mut self, place: K, now: Instant) -> Slot<T, E> {
        let used = self.0.entry(place).or_insert_with(|| Used { slot: empty(), last: now });
        used.last = now;
        let slot = used.slot.clone();
        // one in hands is being opened, or waited for: another beside it would be a second opening at one place
        self.0.retain(|_, used| now.saturating_duration_since(used.last) < KEPT || Arc::strong_count(&used.slot) > 1);
        slot
    }
}

fn empty<T, E>() -> Slot<T, E> {
    Arc::new(Mutex::new(Held { open: None, failed: None }))
}

/// Fills a slot with what `opening` gives. That goes on where nobody waits for it any more: who gives up before it is done finds it done
/// at a later try, or is told why not, instead of beginning it anew each time. What is open before it begins goes.
///
/// # Errors
/// The outer one where it panicked.
pub(super) async fn fill<T, E>(
    mut slot: OwnedMutexGuard<Held<T, E>>,
    opening: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<Result<T, E>, JoinError>
where
    T: Clone + Send + 'static,
    E: Clone + Send + 'static,
{
    let filling = async move {
        *slot = Held { open: None, failed: None };
        let opened = opening.await;
        match &opened {
            Ok(open) => slot.open = Some(open.clone()),
            Err(error) => slot.failed = Some((Instant::now(), error.clone())),
        }
        opened
    };
    tokio::spawn(filling.in_current_span()).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time;

    use super::*;

    /// Opens what is at that place; says whether it was open.
    fn opened(slots: &mut Slots<&'static str, (), ()>, place: &'static str, at: Instant) -> bool {
        let slot = slots.of(place, at);
        let before = slot.try_lock().unwrap().open.replace(());
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
        let (mut slots, begin) = (Slots::<_, (), ()>::new(), Instant::now());
        let opening = slots.of("slow", begin);
        let later = begin + 2 * KEPT;
        slots.of("other", later);
        assert!(Arc::ptr_eq(&opening, &slots.of("slow", later)));
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Asks as `Repositories` does for what takes half as long again as somebody waits, and ends so; `begun` counts the openings.
    async fn look(
        slot: &Slot<&'static str, &'static str>,
        ends: Result<&'static str, &'static str>,
        begun: &Arc<AtomicU32>,
    ) -> Result<Result<&'static str, &'static str>, time::error::Elapsed> {
        let asked = Instant::now();
        time::timeout(PATIENCE, async {
            let held = slot.clone().lock_owned().await;
            if let Some(why) = held.failed_since(asked, false) {
                return Err(*why);
            }
            if let Some(open) = held.open {
                return Ok(open);
            }
            let begun = begun.clone();
            let opening = async move {
                begun.fetch_add(1, Ordering::Relaxed);
                time::sleep(PATIENCE * 3 / 2).await;
                ends
            };
            fill(held, opening).await.unwrap()
        })
        .await
    }

    /// A driver that waits a minute for a bucket so slow that it never opens would keep what it ends for ever.
    #[tokio::test(start_paused = true)]
    async fn an_opening_that_takes_longer_than_anybody_waits_is_done_at_the_next_try() {
        let (slot, begun) = (Slots::new().of("slow", Instant::now()), Arc::default());
        assert!(look(&slot, Ok("open"), &begun).await.is_err(), "nobody waits so long");
        assert_eq!(look(&slot, Ok("open"), &begun).await, Ok(Ok("open")), "half a minute was left of it");
        assert_eq!(begun.load(Ordering::Relaxed), 1, "it was opened once");
    }

    /// Who is told each time that it took too long never hears that the key is wrong.
    #[tokio::test(start_paused = true)]
    async fn an_opening_that_fails_after_anybody_has_waited_tells_the_next_one_why() {
        let (slot, begun) = (Slots::new().of("slow", Instant::now()), Arc::default());
        assert!(look(&slot, Err("wrong key"), &begun).await.is_err(), "nobody waits so long");
        assert_eq!(look(&slot, Ok("open"), &begun).await, Ok(Err("wrong key")));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(look(&slot, Ok("open"), &begun).await.is_err(), "what failed before they asked is tried anew");
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }

    /// Its repository is made by whoever backs up first; a look that came a moment before finds none.
    #[tokio::test(start_paused = true)]
    async fn a_backup_is_not_told_that_a_look_before_it_found_no_repository() {
        let slot = Slots::new().of("new", Instant::now());
        let looking = fill(slot.clone().lock_owned().await, async {
            time::sleep(PATIENCE).await;
            Err::<&str, _>("there is none")
        });
        let making = async {
            let asked = Instant::now();
            let held = slot.clone().lock_owned().await;
            (held.failed_since(asked, true).copied(), held.failed_since(asked, false).copied())
        };
        let (looked, told) = tokio::join!(looking, making);
        assert_eq!((looked.unwrap(), told), (Err("there is none"), (None, Some("there is none"))));
    }

    async fn breaks() -> Result<&'static str, &'static str> {
        panic!("of the test");
    }

    #[tokio::test]
    async fn an_opening_that_failed_leaves_a_slot_that_the_next_may_fill() {
        let slot = Slots::new().of("bucket", Instant::now());
        slot.lock().await.open = Some("the one that was wiped");
        let failed = fill(slot.clone().lock_owned().await, async { Err("no answer") }).await;
        assert_eq!(failed.unwrap(), Err("no answer"));
        assert_eq!(slot.lock().await.open, None);
        let panicked = fill(slot.clone().lock_owned().await, breaks()).await;
        assert!(panicked.unwrap_err().is_panic());
        let filled = fill(slot.clone().lock_owned().await, async { Ok("whole") }).await;
        assert_eq!((filled.unwrap(), slot.lock().await.open), (Ok("whole"), Some("whole")));
    }
}
