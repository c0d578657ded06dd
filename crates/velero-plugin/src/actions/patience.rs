//! How long somebody else's answer is waited for: shorter once he has left one of us without any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::waits::Waited;

/// The patience of one process, which serves one run of Velero. Velero comes with one claim after the other, so without
/// a shorter second wait a hundred claims would wait a hundred times for a driver that does not run.
#[derive(Debug)]
pub(super) struct Patience {
    at_first: Duration,
    after_silence: Duration,
    was_silent: AtomicBool,
}

impl Patience {
    pub(super) const fn new(at_first: Duration, after_silence: Duration) -> Self {
        Self { at_first, after_silence, was_silent: AtomicBool::new(false) }
    }

    /// How long the next answer is waited for.
    pub(super) fn lasts(&self) -> Duration {
        if self.was_silent.load(Ordering::Relaxed) { self.after_silence } else { self.at_first }
    }

    /// What a wait teaches: who did not answer in time is waited for shorter, who did is there.
    pub(super) fn learns<K>(&self, from: &Waited<K>) {
        match from {
            Waited::Settled(_) => self.was_silent.store(false, Ordering::Relaxed),
            Waited::TooLate => self.ran_out(),
        }
    }

    /// Nobody answered in time.
    pub(super) fn ran_out(&self) {
        self.was_silent.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_silent_is_waited_for_shorter_until_he_answers() {
        let (long, short) = (Duration::from_secs(120), Duration::from_secs(5));
        let patience = Patience::new(long, short);
        assert_eq!(patience.lasts(), long);
        patience.learns(&Waited::<()>::TooLate);
        assert_eq!(patience.lasts(), short);
        patience.learns(&Waited::<()>::TooLate);
        assert_eq!(patience.lasts(), short, "also the time after");
        patience.learns(&Waited::Settled(Some(())));
        assert_eq!(patience.lasts(), long);
    }
}
