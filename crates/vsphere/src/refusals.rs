//! Refused logins of this process, so that a wrong password never locks the account.
//!
//! vCenter locks an account after a few refusals within minutes. Whoever builds clients anew (each reconcile may) must
//! not start counting anew, so the count belongs to the process and to one pair of account and password.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ring::hmac;
use secrecy::ExposeSecret as _;
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

struct Refusals {
    key: hmac::Key,
    refused: Mutex<HashMap<Credentials, Refused>>,
}

impl Refusals {
    fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .expect("the system has random numbers");
        Self { key, refused: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Credentials, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credentials(&self, config: &Config) -> Credentials {
        let password = hmac::sign(&self.key, config.password.expose_secret().as_bytes());
        Credentials { server: config.server(), user: config.user.clone(), password: password.as_ref().to_vec() }
    }

    fn check(&self, config: &Config) -> Result<(), Cause> {
        let known = self.known();
        let Some(refused) = known.get(&self.credentials(config)) else { return Ok(()) };
        let held = |next_try| Cause::LoginHeldBack { user: config.user.clone(), refusals: refused.times, next_try };
        if refused.times >= REFUSALS {
            return Err(held(None));
        }
        match refused.not_before.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(held(Some(wait))),
            None => Ok(()),
        }
    }

    fn refused(&self, config: &Config) {
        let mut known = self.known();
        let refused = known.entry(self.credentials(config)).or_insert(Refused { times: 0, not_before: Instant::now() });
        let pause = config.deadlines.login_pause.saturating_mul(1 << refused.times.min(10));
        refused.times += 1;
        refused.not_before = crate::pace::deadline_after(pause);
    }

    fn accepted(&self, config: &Config) {
        self.known().remove(&self.credentials(config));
    }
}

/// Whether these credentials may be tried now.
pub(crate) fn check(config: &Config) -> Result<(), Cause> {
    PROCESS.check(config)
}

/// Remembers a refusal.
pub(crate) fn refused(config: &Config) {
    PROCESS.refused(config);
}

/// Forgets refusals: the credentials work.
pub(crate) fn accepted(config: &Config) {
    PROCESS.accepted(config);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

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

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_tried_three_times_with_growing_pauses_and_never_again() {
        let refusals = Refusals::new();
        let wrong = credentials("wrong");
        for pause in [200, 400] {
            refusals.check(&wrong).unwrap();
            refusals.refused(&wrong);
            let wait = wait_of(&refusals.check(&wrong).unwrap_err());
            assert_eq!(wait.unwrap().as_secs(), pause);
            tokio::time::advance(Duration::from_secs(pause)).await;
        }
        refusals.check(&wrong).unwrap();
        refusals.refused(&wrong);
        tokio::time::advance(Duration::from_secs(30 * 24 * 3600)).await;
        assert_eq!(wait_of(&refusals.check(&wrong).unwrap_err()), None, "the account would be locked");
    }

    #[tokio::test(start_paused = true)]
    async fn new_credentials_are_tried_at_once() {
        let refusals = Refusals::new();
        for _ in 0..3 {
            refusals.refused(&credentials("wrong"));
        }
        assert!(refusals.check(&credentials("wrong")).is_err());
        refusals.check(&credentials("right")).unwrap();
        refusals.refused(&credentials("also wrong"));
        assert_eq!(wait_of(&refusals.check(&credentials("also wrong")).unwrap_err()).unwrap().as_secs(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn other_accounts_and_servers_are_not_held_back() {
        let refusals = Refusals::new();
        (0..3).for_each(|_| refusals.refused(&credentials("wrong")));
        let mut other = credentials("wrong");
        other.user = "other@vsphere.local".to_owned();
        refusals.check(&other).unwrap();
        let mut other = credentials("wrong");
        other.port = 8443;
        refusals.check(&other).unwrap();
    }
}
