//! How often, and at which pace, a bucket is asked again: here and nowhere else.
//!
//! The SDK does it as long as a request has no answer or a bad one. The body of a download comes after that: where it breaks
//! off, [`Tries`] lets the caller ask again, out of the same number of tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

use crate::location::S3Options;

/// What the SDK has for tries that fail is 500, and a try costs up to 10. Of this, so much comes back each second: a store
/// that was away for long does not find its first hiccup afterwards to be an error.
const BACK_EACH_SECOND: f32 = 2.0;

/// The pause before a try doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How one request is tried again: what may pass by itself, after pauses that grow and differ.
pub(super) fn config(options: &S3Options) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(options.attempts.max(1))
        .with_initial_backoff(options.first_pause)
        .with_max_backoff(LONGEST_PAUSE)
}

/// The tries of one store. The SDK would count those of all buckets of a process together, so that one that is away takes
/// them from all others.
pub(super) fn of_its_own(place: &str) -> RetryPartition {
    let tries = TokenBucket::builder().refill_rate(BACK_EACH_SECOND).build();
    RetryPartition::custom(place.to_owned()).token_bucket(tries).build()
}

/// The tries of one download, whoever makes them.
#[derive(Debug)]
pub(super) struct Tries {
    config: RetryConfig,
    made: Arc<AtomicU32>,
}

impl Tries {
    /// None of them made yet.
    pub(super) fn new(config: &RetryConfig) -> Self {
        Self { config: config.clone(), made: Arc::default() }
    }

    fn left(&self) -> u32 {
        self.config.max_attempts().saturating_sub(self.made.load(Relaxed))
    }

    /// For the next request: as many tries as are left.
    pub(super) fn config(&self) -> RetryConfig {
        self.config.clone().with_max_attempts(self.left().max(1))
    }

    /// Sees each try of a request.
    pub(super) fn counted(&self) -> impl Intercept + 'static {
        Counted(self.made.clone())
    }

    /// Waits as the SDK would; `false` when there is no try left.
    pub(super) async fn another(&self) -> bool {
        if self.left() == 0 {
            return false;
        }
        let doubled = 1_u32 << (self.made.load(Relaxed).saturating_sub(1)).min(16);
        let pause = self.config.initial_backoff().saturating_mul(doubled).min(LONGEST_PAUSE);
        tokio::time::sleep(pause.mul_f64(rand::random::<f64>())).await; // not all at once
        true
    }
}

#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

impl Intercept for Counted {
    fn name(&self) -> &'static str {
        "Counted"
    }

    fn read_before_attempt(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Relaxed);
        Ok(())
    }
}
