//! Pauses that grow, with jitter, and the caller's time that ends them.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use crate::error::Cause;

/// Growing pauses under a deadline.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Duration,
    longest: Duration,
    ends: Instant,
    within: Duration,
    /// Why the try before failed.
    last: Option<Cause>,
}

impl Pace {
    /// Pauses of `first`, doubling up to `longest`, until `within` from now is over.
    pub(crate) fn new(first: Duration, longest: Duration, within: Duration) -> Self {
        Self { next: first, longest, ends: deadline_after(within), within, last: None }
    }

    /// A pace of its own that ends when this one does.
    pub(crate) fn nested(&self, first: Duration, longest: Duration) -> Self {
        Self { next: first, longest, ends: self.ends, within: self.within, last: None }
    }

    /// The moment at which the time is over.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    /// All the time there was.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// Waits a little, three quarters to five quarters of the present pause; `false` when the time would be over.
    pub(crate) async fn pause(&mut self) -> bool {
        let pause = self.next.mul_f64(rand::rng().random_range(0.75..1.25));
        self.next = (self.next * 2).min(self.longest);
        if Instant::now() + pause >= self.ends {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// Waits a little before the next try.
    ///
    /// # Errors
    /// [`Cause::TimeIsOver`] when there is no time for one. It holds why this try failed, or, where the end of the time
    /// cut this one short, why the one before did: what vCenter answered says more than that it was not waited for.
    pub(crate) async fn pause_after(&mut self, failed: Cause) -> Result<(), Cause> {
        let cut_short = matches!(&failed, Cause::DeadlinePassed { after, .. } if *after < self.within)
            && Instant::now() >= self.ends;
        let told = match self.last.take() {
            Some(last) if cut_short => last,
            _ => failed,
        };
        if self.pause().await {
            self.last = Some(told);
            return Ok(());
        }
        Err(Cause::TimeIsOver { within: self.within, source: Box::new(told) })
    }
}

/// Now plus `within`, also where that would overflow the clock.
pub(crate) fn deadline_after(within: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + within.min(A_YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_their_limit_and_stop_before_the_deadline() {
        let began = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(60));
        let mut pauses = Vec::new();
        loop {
            let before = Instant::now();
            if !pace.pause().await {
                break;
            }
            pauses.push(before.elapsed().as_secs_f64());
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no pause outlives the deadline");
        let near = |pause: f64, nominal: f64| (nominal * 0.74..nominal * 1.26).contains(&pause);
        assert!(near(pauses[0], 1.0) && near(pauses[1], 2.0), "{pauses:?}");
        assert!(pauses[2..].iter().all(|p| near(*p, 4.0)) && pauses.len() > 12, "{pauses:?}");
        assert!(pauses[2..].windows(2).any(|w| w[0].to_bits() != w[1].to_bits()), "clients must not march in step");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_the_end_cut_short_does_not_hide_what_vcenter_answered() {
        let second = Duration::from_secs(1);
        let answer = || Cause::HttpStatus { server: "vc.lab:443".to_owned(), status: 503 };
        let late = |after| Cause::DeadlinePassed { after, waiting_for: "the reply of vCenter" };
        let told = async |last: Cause, tries: Option<Cause>| {
            let mut pace = Pace::new(second, second, 30 * second);
            if let Some(first) = tries {
                pace.pause_after(first).await.expect("there is time");
            }
            tokio::time::sleep_until(pace.ends()).await;
            pace.pause_after(last).await.expect_err("there is no time").chain()
        };
        let over = "did not succeed within 30 s; the last try said: ";
        assert_eq!(told(late(5 * second), Some(answer())).await, format!("{over}{}", answer()));
        assert_eq!(told(late(5 * second), None).await, format!("{over}{}", late(5 * second)));
        assert_eq!(told(answer(), Some(late(second))).await, format!("{over}{}", answer()));
        assert_eq!(told(late(30 * second), Some(answer())).await, format!("{over}{}", late(30 * second)));
    }

    #[tokio::test]
    async fn an_endless_deadline_does_not_overflow_the_clock() {
        assert!(deadline_after(Duration::MAX) > Instant::now());
    }
}
