//! The client of the API server: a kubeconfig where one is named or found, else the pod's own account.

use std::path::Path;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use tower::BoxError;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::util::MapErrLayer;

use crate::Error;

/// Longest time until a connection to the API server stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time until an answer begins, that of a watch too. The API server gives a request up after 60 seconds by itself, unless it was
/// told otherwise. What is asked once more because it said 429, 503 or 504 counts in.
pub(crate) const ANSWER: Duration = Duration::from_secs(65);
/// How long one of our [watches](watching) lasts before the next one goes on where it was, which costs one request and no list. kube gives
/// one up that is silent 5 seconds longer, and that is when a watch from which nothing comes any more, not even its end, is noticed.
const WATCH_SECONDS: u32 = 120;
/// Longest silence within an answer: longer than any watch lasts, kube's own of single objects (290 seconds) among them.
const READ: Duration = Duration::from_secs(295);

/// Connects as `kubeconfig` says, else as `KUBECONFIG`, else as the pod.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, Error> {
    let unusable = |e: &dyn std::fmt::Display| Error::Config(e.to_string());
    let mut config = match kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).map_err(|e| unusable(&e))?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(read, &options).await.map_err(|e| unusable(&e))?
        }
        None => kube::Config::infer().await.map_err(|e| unusable(&e))?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    // a connection that was used long ago has as much time as a new one
    config.reset_reader_on_write = true;
    answered_within(ANSWER, config).map_err(|e| unusable(&e))
}

/// How our programs watch: an API server that falls silent is noticed in minutes.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// A client whose requests fail where no answer has begun within `time`.
pub(crate) fn answered_within(time: Duration, config: kube::Config) -> Result<kube::Client, kube::Error> {
    let told = MapErrLayer::new(move |error: BoxError| -> BoxError {
        if error.is::<Elapsed>() {
            format!("the API server gave no answer within {time:?}, or only that it is busy").into()
        } else {
            error
        }
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(time)).with_layer(&told).build())
}
