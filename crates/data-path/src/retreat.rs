//! Fewer requests at a time for a server that has no memory for more: an ESXi host has 48 to 96 MB for the disk connections
//! of everybody, and answers `ENOMEM` beyond (`VIX_E_OUT_OF_MEMORY`).
//!
//! Each wave of refusals halves what is under way; a long row of answers lets one more through. A request that was refused
//! is sent again: that is how little the server can take is found out, and no other error is met so.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nbd::Errno;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How long one request is sent again before its refusal counts, without the time in which others had their turn.
const PATIENCE: Duration = Duration::from_secs(60);
/// First pause after a refusal; each further one of the same request doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Answers in a row, per request that is allowed, before one more is.
const CALM: usize = 16;

/// How many requests one disk's server is sent at a time.
#[derive(Debug, Default)]
pub(crate) struct Retreat {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: as many as there are; nothing was ever refused.
    allowed: Option<usize>,
    running: usize,
    /// Answers since the last change.
    answered: usize,
    /// Changes with each halving: what was sent before it says nothing new by being refused.
    wave: u64,
}

/// One request under way.
struct Place<'r> {
    retreat: &'r Retreat,
    wave: u64,
}

impl Retreat {
    /// Sends `request`, when it is its turn, and again while the server has no memory for it.
    pub(crate) async fn send<T, F>(&self, request: impl Fn() -> F) -> Result<T, nbd::Error>
    where
        F: Future<Output = Result<T, nbd::Error>>,
    {
        let (mut refused_for, mut pause) = (Duration::ZERO, FIRST_PAUSE);
        loop {
            let place = self.enter().await; // waiting for one's turn is no refusal
            let sent = Instant::now();
            let error = match request().await {
                Ok(answer) => {
                    self.answered();
                    return Ok(answer);
                }
                Err(error) if error.errno() != Some(Errno::NoMemory) => return Err(error),
                Err(error) => error,
            };
            self.refused(place.wave, &error);
            drop(place);
            refused_for += sent.elapsed() + pause;
            if refused_for > PATIENCE {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn enter(&self) -> Place<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_enter() {
                return place;
            }
            freed.await;
        }
    }

    fn try_enter(&self) -> Option<Place<'_>> {
        let mut state = self.state();
        if state.allowed.is_some_and(|allowed| state.running >= allowed) {
            return None;
        }
        state.running += 1;
        Some(Place { retreat: self, wave: state.wave })
    }

    fn answered(&self) {
        let mut state = self.state();
        state.answered += 1;
        let Some(allowed) = state.allowed.filter(|allowed| state.answered >= CALM * allowed) else { return };
        state.allowed = Some(allowed + 1);
        state.answered = 0;
        drop(state);
        self.freed.notify_one();
    }

    fn refused(&self, wave: u64, error: &nbd::Error) {
        let mut state = self.state();
        state.answered = 0;
        if wave != state.wave {
            return;
        }
        let allowed = (state.running / 2).max(1);
        if state.allowed.is_none() {
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::warn!(
                error,
                at_a_time = allowed,
                "the disk's server is short of memory; asking for less at a time"
            );
        }
        (state.allowed, state.wave) = (Some(allowed), state.wave + 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.retreat.state().running -= 1;
        self.retreat.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn refusal(errno: Errno) -> nbd::Error {
        let (server, request) = ("esxi".to_owned(), "read 1048576 bytes at 0".to_owned());
        nbd::Error::Request { server, request, errno, message: String::new() }
    }

    /// A server with memory for so many requests at a time.
    struct Server {
        room: usize,
        running: AtomicUsize,
        refused: AtomicUsize,
    }

    impl Server {
        fn new(room: usize) -> Self {
            Self { room, running: AtomicUsize::new(0), refused: AtomicUsize::new(0) }
        }

        async fn read(&self) -> Result<(), nbd::Error> {
            let has_room = self.running.fetch_add(1, Relaxed) < self.room;
            sleep(Duration::from_millis(10)).await;
            self.running.fetch_sub(1, Relaxed);
            if has_room {
                return Ok(());
            }
            self.refused.fetch_add(1, Relaxed);
            Err(refusal(Errno::NoMemory))
        }
    }

    async fn read_all(retreat: &Retreat, server: &Server, reads: usize) -> Vec<Result<(), nbd::Error>> {
        futures::future::join_all((0..reads).map(|_| retreat.send(|| server.read()))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_short_of_memory_is_asked_for_less_until_it_answers() {
        let (retreat, server) = (Retreat::default(), Server::new(3));
        assert!(read_all(&retreat, &server, 400).await.iter().all(Result::is_ok));
        assert!(retreat.state().allowed.is_some_and(|allowed| allowed <= 4), "{retreat:?}");
        let before = server.refused.load(Relaxed);
        assert!(read_all(&retreat, &server, 400).await.iter().all(Result::is_ok));
        let probes = server.refused.load(Relaxed) - before;
        assert!(probes < 20, "{probes} of 400 refused: now and then one too many, no more");
    }

    #[tokio::test(start_paused = true)]
    async fn more_is_asked_for_again_once_others_have_gone() {
        let (retreat, mut server) = (Retreat::default(), Server::new(2));
        read_all(&retreat, &server, 50).await;
        server.room = 1000;
        assert!(read_all(&retreat, &server, 5000).await.iter().all(Result::is_ok));
        assert!(retreat.state().allowed.is_some_and(|allowed| allowed > 12), "{retreat:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_has_memory_is_an_error_within_a_minute() {
        let (retreat, server) = (Retreat::default(), Server::new(0));
        let began = Instant::now();
        let errors = read_all(&retreat, &server, 3).await;
        assert!(errors.iter().all(|e| e.as_ref().is_err_and(|e| e.errno() == Some(Errno::NoMemory))), "{errors:?}");
        assert!(began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn another_error_is_told_at_once_and_holds_nobody_up() {
        let retreat = Retreat::default();
        let began = Instant::now();
        let answer = retreat.send(|| async { Err::<(), _>(refusal(Errno::Io)) }).await;
        assert!(answer.is_err_and(|e| e.errno() == Some(Errno::Io)));
        assert_eq!(began.elapsed(), Duration::ZERO);
        let state = retreat.state();
        assert_eq!((state.allowed, state.running), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_cancelled_gives_its_place_back() {
        let (retreat, server) = (Retreat::default(), Server::new(1));
        read_all(&retreat, &server, 8).await;
        let given_up = tokio::time::timeout(Duration::from_millis(1), read_all(&retreat, &server, 8)).await;
        assert!(given_up.is_err(), "all of them were in the middle");
        let after = tokio::time::timeout(Duration::from_secs(30), read_all(&retreat, &Server::new(1), 8)).await;
        assert!(after.is_ok_and(|all| all.iter().all(Result::is_ok)), "{retreat:?}");
    }
}
