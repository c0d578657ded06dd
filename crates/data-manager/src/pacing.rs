//! Keeps the transfers of this node to the setting `transfer-rate-limit`, all of them together. Decides nothing: which rule
//! counts is [`lifecycle::limits`]'s business, and waiting is the throttle's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connections::Vcenters;
use data_path::Throttle;
use lifecycle::Problem;
use lifecycle::limits::{Limit, Limits};

/// Pause between two looks at the setting and the clock.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a look at the setting may take.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// A limit is told of when transfers waited for it this long between two looks.
const WORTH_TELLING: Duration = Duration::from_millis(200);

/// The limit of this node.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    throttle: Arc<Throttle>,
    slowing: Mutex<Option<Limit>>,
}

impl Pacing {
    /// What every disk of this node is held to.
    pub(crate) fn throttle(&self) -> Arc<Throttle> {
        self.throttle.clone()
    }

    /// The limit that holds transfers up right now.
    pub(crate) fn slowing(&self) -> Option<Limit> {
        self.slowing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the setting while `work` goes on. Any number of transfers may do so at once: they find the same.
    pub(crate) async fn while_following<T>(&self, vcenters: &Vcenters, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.follow(vcenters) => unreachable!("it follows until it is dropped"),
            done = work => done,
        }
    }

    async fn follow(&self, vcenters: &Vcenters) {
        // until it is read, what other transfers have found counts
        let (mut limits, mut refused, mut waited) = (None, None, self.throttle.waited());
        loop {
            match tokio::time::timeout(READ_WITHIN, vcenters.settings()).await.map(|read| read.map(|set| set.limits()))
            {
                Ok(Ok(Ok(set))) => (limits, refused) = (Some(set), None),
                Ok(Ok(Err(error))) => {
                    if refused.as_ref() != Some(&error) {
                        tracing::warn!(error = Problem::chain(&error), "transfer-rate-limit is not followed");
                    }
                    (limits, refused) = (Some(Limits::default()), Some(error));
                }
                Ok(Err(problem)) => tracing::debug!(%problem, "what was set stays"),
                Err(_) => tracing::debug!("the API server does not answer; what was set stays"),
            }
            if let Some(limits) = &limits {
                let limit = limits.at(api::Timestamp::now());
                self.throttle.set(limit.as_ref().map(|limit| limit.rate));
                let now = self.throttle.waited();
                let is_slowing = self.throttle.is_waited_for() || now - waited >= WORTH_TELLING;
                *self.slowing.lock().unwrap_or_else(PoisonError::into_inner) = limit.filter(|_| is_slowing);
                waited = now;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
