//! Waiting for an object that somebody else writes. A spell without the API server, or with nothing to tell, is waited
//! out: only the deadline ends a wait, or a refusal that will not change.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, pin_mut};
use kube::api::{WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource, ResourceExt as _};
use lifecycle::Problem;
use serde::de::DeserializeOwned;

use crate::protocol::kinds::ActionError;

/// The API server ends a silent watch after so many seconds, before the client takes its silence for a fault.
const SILENCE: u32 = 15;

/// Pause before the API server is asked again.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// How a wait ended.
pub(super) enum Waited<K> {
    /// It is as it should be; `None`: it is gone.
    Settled(Option<K>),
    /// It was not in time.
    TooLate,
}

/// Waits until `is_so` holds for an object that we have just made. It is watched from there on, without reading it first.
pub(super) async fn from_now<K>(
    api: Api<K>,
    made: &K,
    within: Duration,
    act: &str,
    is_so: impl Fn(Option<&K>) -> bool,
) -> Result<Waited<K>, ActionError>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begun = Instant::now();
    let (name, version) = (made.name_any(), made.resource_version().unwrap_or_default());
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(SILENCE);
    let watching = async {
        let changes = api.watch(&params, &version).await.ok()?;
        pin_mut!(changes);
        loop {
            // a watch that ends or fails is no trouble: then the object is looked at anew
            let seen = match changes.next().await?.ok()? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(object),
                WatchEvent::Deleted(_) => None,
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(_) => return None,
            };
            if is_so(seen.as_ref()) {
                return Some(seen);
            }
        }
    };
    match tokio::time::timeout(within, watching).await {
        Ok(Some(seen)) => Ok(Waited::Settled(seen)),
        Ok(None) => until(api, &name, within.saturating_sub(begun.elapsed()), act, is_so).await,
        Err(_) => Ok(Waited::TooLate),
    }
}

/// Waits until `is_so` holds for the object of that name; `None` is an object that does not exist. `act` is what for.
pub(super) async fn until<K>(
    api: Api<K>,
    name: &str,
    within: Duration,
    act: &str,
    is_so: impl Fn(Option<&K>) -> bool,
) -> Result<Waited<K>, ActionError>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = Config::default().fields(&format!("metadata.name={name}")).timeout(SILENCE);
    let watching = async {
        let events = watch(api, config).default_backoff();
        pin_mut!(events);
        let mut listed: Option<K> = None;
        loop {
            let seen = match events.next().await {
                Some(Ok(Event::Init)) => {
                    listed = None;
                    continue;
                }
                Some(Ok(Event::InitApply(object))) => {
                    listed = Some(object);
                    continue;
                }
                Some(Ok(Event::InitDone)) => listed.take(),
                Some(Ok(Event::Apply(object))) => Some(object),
                Some(Ok(Event::Delete(_))) => None,
                Some(Err(error)) if is_refusal(&error) => {
                    return Err(ActionError::new(format!("{act}: {}", Problem::chain(&error))));
                }
                Some(Err(error)) => {
                    tracing::info!(error = Problem::chain(&error), "the API server is asked again");
                    continue;
                }
                None => return Err(ActionError::new(format!("{act}: the watch ended"))),
            };
            if is_so(seen.as_ref()) {
                return Ok(Waited::Settled(seen));
            }
        }
    };
    tokio::time::timeout(within, watching).await.unwrap_or(Ok(Waited::TooLate))
}

/// Asks again until there is an answer, for `within` at most; then the last error is the answer, and one that `is_final`
/// is it at once.
pub(super) async fn insist<T, E: Display, A: Future<Output = Result<T, E>>>(
    within: Duration,
    is_final: impl Fn(&E) -> bool,
    ask: impl Fn() -> A,
) -> Result<T, E> {
    let due = Instant::now() + within;
    loop {
        match ask().await {
            Err(error) if !is_final(&error) && Instant::now() + PAUSE < due => {
                tracing::info!(%error, "the API server is asked again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Whether asking again is of no use: we may not.
fn is_refusal(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) = error else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.code == 401 || status.code == 403)
}
