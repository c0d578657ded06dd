//! How long something has been as it is, by our own clock: times in objects are told by the clocks of those who wrote them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What things were last seen as, and since when, by their uids. A restart forgets them: then all of it begins anew.
#[derive(Debug)]
pub struct Lasting<S>(Mutex<HashMap<String, (S, Instant)>>);

impl<S> Default for Lasting<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: PartialEq> Lasting<S> {
    /// For how long it has been seen as `state`, without another state in between.
    pub fn of(&self, uid: &str, state: S) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match all.get(uid) {
            Some((before, since)) if *before == state => *since,
            _ => Instant::now(),
        };
        all.insert(uid.to_owned(), (state, since));
        since.elapsed()
    }

    /// It is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_changes_and_changes_back_begins_anew() {
        let lasting = Lasting::default();
        let since = |uid: &str| lasting.0.lock().unwrap().get(uid).map(|(_, since)| *since);
        lasting.of("a", "awaited");
        let first = since("a");
        lasting.of("b", "awaited");
        lasting.of("a", "awaited");
        assert_eq!(since("a"), first, "it lasts");
        lasting.of("a", "taken");
        lasting.of("a", "awaited");
        assert!(since("a") > first, "it did not last");
        lasting.forget("a");
        assert_eq!(since("a"), None);
    }
}
