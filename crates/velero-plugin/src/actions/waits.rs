//! Waiting for an object that somebody else writes. A spell without the API server, or with nothing to tell, is waited
//! out: only the deadline ends a wait, or a refusal that will not change.

use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource};
use lifecycle::Problem;
use serde::de::DeserializeOwned;

use crate::protocol::kinds::ActionError;

/// The API server ends a silent watch after so many seconds, before the client takes its silence for a fault.
const SILENCE: u32 = 15;

/// How a wait ended.
pub(super) enum Waited<K> {
    /// It is as it should be; `None`: it is gone.
    Settled(Option<K>),
    /// It was not in time.
    TooLate,
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

/// Whether asking again is of no use: we may not.
fn is_refusal(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) = error else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.code == 401 || status.code == 403)
}
