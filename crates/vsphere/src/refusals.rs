//! Refused logins of this process, so that a wrong password never locks the account.
//!
//! vCenter locks an account after a few refusals within minutes. Whoever builds clients anew (each reconcile may) must
//! not start counting anew, so the count belongs to the process and to one pair of account and password.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;
use secrecy::ExposeSecret as _;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Cause;

/// After so many refusals the credentials are not tried again.
const REFUSALS: u32 = 3;

static PROCESS: LazyLock<Refusals> = LazyLock::new(Refusals::new);

/// One account on one server with one password, which is kept as a keyed hash only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Credentials {
    server: String,
    user: String,
    password: Vec<u8>,
}

#[derive(Debug)]
struct Refused {
    times: u32,
    not_before: Instant,
}

/// The right to try credentials now. Others who want to try the same ones wait for its end: tried side by side they
/// would all be refused before the first refusal is counted.
#[derive(Debug)]
pub(crate) struct Turn {
    refused: OwnedMutexGuard<Refused>,
    first_pause: Duration,
}

struct Refusals {
    key: hmac::Key,
    tried: Mutex<HashMap<Credentials, Arc<tokio::sync::Mutex<Refused>>>>,
}

impl Refusals {
    fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .expect("the system has random numbers");
        Self { key, tried: Mutex::default() }
    }

    fn credentials(&self, config: &Config) -> Credentials {
        let password = hmac::sign(&self.key, config.password.expose_secret().as_bytes());
        Credentials { server: config.server(), user: config.user.clone(), password: password.as_ref().to_vec() }
    }

    async fn turn(&self, config: &Config) -> Result<Turn, Cause> {
        let refused = {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            let untried = || Arc::new(tokio::sync::Mutex::new(Refused { times: 0, not_before: Instant::now() }));
            tried.entry(self.credentials(config)).or_insert_with(untried).clone()
        };
        let refused = refused.lock_owned().await;
        let held = |next_try| {
            let (server, user) = (config.server(), config.user.clone());
            Cause::LoginHeldBack { server, user, refusals: refused.times, next_try }
        };
        if refused.times >= REFUSALS {
            return Err(held(None));
        }
        match refused.not_before.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(held(Some(wait))),
            None => Ok(Turn { refused, first_pause: config.deadlines.login_pause }),
        }
    }
}

impl Turn {
    /// vCenter refused the credentials.
    pub(crate) fn refused(mut self) {
        let pause = self.first_pause.saturating_mul(1 << self.refused.times.min(10));
        self.refused.times += 1;
        self.refused.not_before = crate::pace::deadline_after(pause);
    }

    /// The credentials work: earlier refusals count no more.
    pub(crate) fn accepted(mut self) {
        self.refused.times = 0;
        self.refused.not_before = Instant::now();
    }
}

/// Waits until nobody in this process tries these credentials, and says whether they may be tried now.
pub(crate) async fn turn(config: &Config) -> Result<Turn, Cause> {
    PROCESS.turn(config).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// How long until a login that was held back may be tried.
    fn wait_of(cause: &Cause) -> Option<Duration> {
        match cause {
            Cause::LoginHeldBack { next_try, .. } => *next_try,
            other => panic!("not held back: {other:?}"),
        }
    }

    fn credentials(password: &str) -> Config {
        let mut config = Config::new("vc.lab", "svc@vsphere.local", password.to_owned());
        config.deadlines.login_pause = Duration::from_secs(200);
        config
    }

    async fn refuse(refusals: &Refusals, config: &Config) {
        refusals.turn(config).await.unwrap().refused();
    }

    async fn wait(refusals: &Refusals, config: &Config) -> Option<u64> {
        wait_of(&refusals.turn(config).await.unwrap_err()).map(|wait| wait.as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_tried_three_times_with_growing_pauses_and_never_again() {
        let refusals = Refusals::new();
        let wrong = credentials("wrong");
        for pause in [200, 400] {
            refuse(&refusals, &wrong).await;
            assert_eq!(wait(&refusals, &wrong).await, Some(pause));
            tokio::time::advance(Duration::from_secs(pause)).await;
        }
        refuse(&refusals, &wrong).await;
        tokio::time::advance(Duration::from_secs(30 * 24 * 3600)).await;
        assert_eq!(wait(&refusals, &wrong).await, None, "the account would be locked");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_come_together_do_not_try_a_wrong_password_together() {
        let refusals = Refusals::new();
        let wrong = credentials("wrong");
        let tries = (0..5).map(|_| async {
            let turn = refusals.turn(&wrong).await?;
            tokio::time::sleep(Duration::from_secs(1)).await; // vCenter takes its time to refuse
            turn.refused();
            Ok::<_, Cause>(())
        });
        let tried = futures::future::join_all(tries).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(tried, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn new_credentials_are_tried_at_once_and_old_ones_stay_refused() {
        let refusals = Refusals::new();
        refuse(&refusals, &credentials("wrong")).await;
        refuse(&refusals, &credentials("also wrong")).await;
        refusals.turn(&credentials("right")).await.unwrap().accepted();
        assert_eq!(wait(&refusals, &credentials("wrong")).await, Some(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_works_forgets_earlier_refusals() {
        let refusals = Refusals::new();
        let now_and_then = credentials("right");
        for _ in 0..5 {
            refuse(&refusals, &now_and_then).await;
            tokio::time::advance(Duration::from_secs(200)).await;
            refusals.turn(&now_and_then).await.unwrap().accepted();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_accounts_and_servers_are_not_held_back() {
        let refusals = Refusals::new();
        refuse(&refusals, &credentials("wrong")).await;
        let other_user = Config { user: "other@vsphere.local".to_owned(), ..credentials("wrong") };
        let other_server = Config { port: 8443, ..credentials("wrong") };
        for other in [other_user, other_server] {
            assert!(refusals.turn(&other).await.is_ok());
        }
    }
}
