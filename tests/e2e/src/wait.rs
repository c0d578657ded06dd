//! Waiting for an object, with a deadline, and with the object in the message when it passes.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, pin_mut};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::world::LOOK;

/// How long a scenario waits for one step. Generous: the machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Waits until `is_so` holds for the object; `None` is an object that does not exist.
///
/// # Errors
/// When the deadline passes; the message holds the object as it was last seen.
pub async fn wait_until<K>(
    api: &Api<K>,
    name: &str,
    deadline: Duration,
    what: &str,
    is_so: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
    K::DynamicType: Default,
{
    let mut last: Option<K> = None;
    let watching = async {
        let objects = watcher::watch_object(api.clone(), name).default_backoff();
        pin_mut!(objects);
        while let Some(seen) = objects.next().await {
            let Ok(seen) = seen else { continue }; // the watcher backs off and tries again
            let done = is_so(seen.as_ref());
            last = seen;
            if done {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    match tokio::time::timeout(deadline, watching).await {
        Ok(watched) => watched?,
        Err(_) => {
            let shown = serde_json::to_string_pretty(&last).context("show the object")?;
            bail!("waited {} s until {name} {what}; it is\n{shown}", deadline.as_secs())
        }
    }
    Ok(last)
}

/// Does what may be done twice until it succeeds.
///
/// # Errors
/// The last one, when it does not in three minutes.
pub async fn insist<T, F: Future<Output = Result<T>>>(what: &str, act: impl Fn() -> F) -> Result<T> {
    let due = tokio::time::Instant::now() + DEADLINE;
    loop {
        match act().await {
            Err(error) if tokio::time::Instant::now() > due => return Err(error.context(what.to_owned())),
            Err(_) => tokio::time::sleep(LOOK).await,
            done => return done,
        }
    }
}
