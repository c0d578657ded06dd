//! Stopping when asked to: one token for the whole process.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Signals so close to the first say the same thing twice: `timeout` signals the process and its group, and a terminal's
/// Ctrl-C reaches a program that its parent signals as well. Long enough to end what is at hand, too.
const ONE_WISH: Duration = Duration::from_secs(2);

/// A token that is cancelled by the first SIGTERM or SIGINT. Another one, two seconds later or more, ends the process at
/// once. SIGHUP ends nothing from now on: a shell that closes sends it, and so does `restic unlock` to find out whether the
/// holder of a lock lives.
///
/// # Errors
/// The handlers cannot be installed.
pub fn on_signal() -> Result<CancellationToken, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    tokio::spawn(async move { while hangup.recv().await.is_some() {} });
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        let mut first = None;
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            let now = Instant::now();
            if is_impatient(*first.get_or_insert(now), now) {
                std::process::exit(130); // asked twice: the user does not want to wait
            }
            if !asked.is_cancelled() {
                tracing::info!("asked to stop; finishing what is at hand");
                asked.cancel();
            }
        }
    });
    Ok(token)
}

/// Whether a signal at `now` is a second wish, rather than the first one repeated.
fn is_impatient(first: Instant, now: Instant) -> bool {
    now.duration_since(first) >= ONE_WISH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wish_sent_twice_is_not_impatience() {
        let first = Instant::now();
        let cases = [("the first", 0, false), ("its double", 5, false), ("a second one", 2500, true)];
        for (which, later, want) in cases {
            assert_eq!(is_impatient(first, first + Duration::from_millis(later)), want, "{which}");
        }
    }
}
