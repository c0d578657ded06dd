//! Ctrl-C and SIGTERM, for every command alike: the wait for a server that never answers ends as well.
//!
//! A command that holds nothing ends at once. One that holds a lock is given time to end in order, and no more.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::failure::{Refused, exit};

/// Longest time to drop a half-made restore point and a lock. A store that answers needs a fraction of it.
const IN_ORDER: Duration = Duration::from_secs(5);

/// The user's wish to stop.
#[derive(Debug)]
pub(crate) struct Interrupt {
    asked: CancellationToken,
    holding: AtomicBool,
    /// What is not whole while the command is under way.
    half_made: Mutex<Option<String>>,
}

impl Interrupt {
    /// `asked` is cancelled by the signal.
    pub(crate) fn new(asked: CancellationToken) -> Self {
        Self { asked, holding: AtomicBool::new(false), half_made: Mutex::default() }
    }

    /// For work that ends in order by itself.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.asked
    }

    /// From now on something must be put in order before the program ends: a lock is about to be taken.
    pub(crate) fn hold(&self) {
        self.holding.store(true, Relaxed);
    }

    /// From now on an end in disorder leaves this: a sentence; `None`: nothing.
    pub(crate) fn leaves(&self, half_made: Option<String>) {
        *self.half_made.lock().unwrap_or_else(PoisonError::into_inner) = half_made;
    }

    /// One wait of a command that holds a lock: given up when the user asks, so that the lock can go.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.asked.cancelled() => Err(data_path::Error::Cancelled.into()),
            done = work => done,
        }
    }

    /// A whole command.
    pub(crate) async fn bound(&self, command: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::select! {
            biased;
            // first: it says that it holds something before we ask
            done = command => done,
            ended = self.overdue() => Err(ended),
        }
    }

    /// Waits until the command must end, in order or not; why.
    async fn overdue(&self) -> anyhow::Error {
        self.asked.cancelled().await;
        if !self.holding.load(Relaxed) {
            return data_path::Error::Cancelled.into();
        }
        tokio::time::sleep(IN_ORDER).await;
        let half_made = self.half_made.lock().unwrap_or_else(PoisonError::into_inner).take();
        let half_made = half_made.map(|left| format!("; {left}")).unwrap_or_default();
        Refused {
            message: format!(
                "cancelled by request: the store did not answer in time, so a lock may be left in it{half_made}"
            ),
            fix: "`restic unlock` removes locks that are left, once they are 30 minutes old".into(),
            code: exit::CANCELLED,
        }
        .into()
    }
}
