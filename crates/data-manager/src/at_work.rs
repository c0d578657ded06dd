//! Which transfers this process is at work on, and how many more it may copy. Nothing else remembers anything: after a
//! restart the objects say where things stand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::stream::Stream;
use tokio_util::sync::CancellationToken;

/// A refusal whose pause was over so long ago does not count any more.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The transfers of one kind in this process.
#[derive(Clone)]
pub(crate) struct AtWork(Arc<Inner>);

struct Inner {
    slots: usize,
    running: Mutex<HashMap<String, Running>>,
    /// By name, and whether it was being cancelled.
    refused: Mutex<HashMap<(String, bool), Refused>>,
    ended: mpsc::UnboundedSender<()>,
}

/// A transfer whose outcome the API server refused for good: work that is done once more would end the same.
struct Refused {
    times: u32,
    until: Instant,
}

struct Running {
    copies: bool,
    stop: CancellationToken,
}

/// One transfer that this process is at work on, until dropped.
pub(crate) struct Place {
    at_work: AtWork,
    name: String,
    /// Cancelled when the object asks to stop.
    pub(crate) stop: CancellationToken,
}

impl AtWork {
    /// Room for `slots` copies, and a stream with an item for each transfer that ends.
    pub(crate) fn new(slots: usize) -> (Self, impl Stream<Item = ()>) {
        let (ended, news) = mpsc::unbounded();
        (Self(Arc::new(Inner { slots, running: Mutex::default(), refused: Mutex::default(), ended })), news)
    }

    /// Copies that may still start.
    pub(crate) fn free_slots(&self) -> usize {
        let running = self.0.running.lock().expect("no panic while it is held");
        self.0.slots.saturating_sub(running.values().filter(|r| r.copies).count())
    }

    /// Whether this process is at work on it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.running.lock().expect("no panic while it is held").contains_key(name)
    }

    /// Whether this process is at work on anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.running.lock().expect("no panic while it is held").is_empty()
    }

    /// The transfers this process is at work on.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.running.lock().expect("no panic while it is held").keys().cloned().collect()
    }

    /// How long it is to be left alone, since the API server refused its outcome.
    pub(crate) fn refused_for(&self, name: &str, is_cancelled: bool) -> Option<Duration> {
        let refused = self.0.refused.lock().expect("no panic while it is held");
        let left = refused.get(&(name.to_owned(), is_cancelled))?.until.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }

    /// Its object is gone: it stops, and another one of that name waits for nothing.
    pub(crate) fn is_gone(&self, name: &str) {
        self.0.refused.lock().expect("no panic while it is held").retain(|(refused, _), _| refused != name);
        self.stop(name);
    }

    /// Asks a transfer to stop.
    pub(crate) fn stop(&self, name: &str) {
        if let Some(running) = self.0.running.lock().expect("no panic while it is held").get(name) {
            running.stop.cancel();
        }
    }

    /// Somebody gave a transfer back: all of them are looked at once more.
    pub(crate) fn look_again(&self) {
        // nobody listens any more when the process is about to end
        let _ = self.0.ended.unbounded_send(());
    }

    /// Starts to be at work on it; `None` when that is so already, or no slot is free for a copy.
    pub(crate) fn begin(&self, name: &str, copies: bool) -> Option<Place> {
        let mut running = self.0.running.lock().expect("no panic while it is held");
        let full = copies && running.values().filter(|r| r.copies).count() >= self.0.slots;
        if full || running.contains_key(name) {
            return None;
        }
        let stop = CancellationToken::new();
        running.insert(name.to_owned(), Running { copies, stop: stop.clone() });
        Some(Place { at_work: self.clone(), name: name.to_owned(), stop })
    }
}

impl Place {
    /// Notes whether the API server took the outcome: where it refused it for good, nobody here works on it for a while.
    pub(crate) fn note(&self, was_refused: bool, is_cancelled: bool) {
        let mut refused = self.at_work.0.refused.lock().expect("no panic while it is held");
        let key = (self.name.clone(), is_cancelled);
        if !was_refused {
            refused.remove(&key);
            return;
        }
        refused.retain(|_, refused| refused.until.elapsed() < FORGOTTEN);
        let times = refused.get(&key).map_or(1, |before| before.times.saturating_add(1));
        let pause = lifecycle::retry::refused_pause(times);
        tracing::warn!(name = self.name, minutes = pause.as_secs() / 60, "looked at again after a pause");
        refused.insert(key, Refused { times, until: Instant::now() + pause });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.at_work.0.running.lock().expect("no panic while it is held").remove(&self.name);
        self.at_work.look_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    #[test]
    fn a_slot_is_free_again_when_its_transfer_ends() {
        let (at_work, mut ended) = AtWork::new(1);
        let place = at_work.begin("upload-a", true).expect("a slot is free");
        assert!(at_work.begin("upload-a", true).is_none(), "nobody works twice on one transfer");
        assert!(at_work.begin("upload-b", true).is_none(), "no slot is free");
        let cancelling = at_work.begin("upload-c", false).expect("cancelling needs no slot");
        assert_eq!(at_work.free_slots(), 0);
        drop(place);
        assert!(at_work.begin("upload-b", true).is_some());
        assert!(futures::executor::block_on(ended.next()).is_some(), "those that wait are told");
        assert!(!at_work.is_idle());
        drop(cancelling);
        assert!(at_work.is_idle());
    }

    #[test]
    fn w30_a_transfer_whose_outcome_is_refused_gives_its_slot_to_others_and_waits() {
        let (at_work, _ended) = AtWork::new(1);
        let place = at_work.begin("refused", true).expect("a slot is free");
        place.note(true, false);
        drop(place);
        assert!(at_work.begin("another", true).is_some(), "the slot is free for others");
        let minute = Duration::from_secs(60);
        assert!(at_work.refused_for("refused", false).is_some_and(|left| left <= minute));
        assert_eq!(at_work.refused_for("refused", true), None, "who cancels it does not wait");
        assert_eq!(at_work.refused_for("another", false), None);
        let place = at_work.begin("refused", true).expect("a slot is free");
        place.note(true, false);
        assert!(at_work.refused_for("refused", false).is_some_and(|left| left > minute), "longer each time");
        place.note(false, false);
        assert_eq!(at_work.refused_for("refused", false), None, "the definitions were applied");
        place.note(true, false);
        at_work.is_gone("refused");
        assert_eq!(at_work.refused_for("refused", false), None, "another one of that name is not to blame");
    }

    #[test]
    fn only_the_transfer_that_is_asked_to_stop_does() {
        let (at_work, _ended) = AtWork::new(2);
        let (one, two) = (at_work.begin("one", true).expect("free"), at_work.begin("two", true).expect("free"));
        at_work.stop("one");
        at_work.stop("nobody");
        assert!(one.stop.is_cancelled() && !two.stop.is_cancelled());
    }
}
