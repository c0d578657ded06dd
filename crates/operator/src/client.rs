//! The client of the API server: a kubeconfig where one is named or found, else the pod's own account.

use std::path::Path;
use std::time::Duration;

use kube::client::{AuthError, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use tower::BoxError;
use tower::layer::util::Stack;
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
pub(crate) const WATCH_SECONDS: u32 = 150;
/// Longest silence within an answer: longer than any watch lasts, kube's own of single objects (290 seconds) among them.
const READ: Duration = Duration::from_secs(295);

/// Connects as `kubeconfig` says, else as `KUBECONFIG`, else as the pod. An empty name is none.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, Error> {
    let unusable = |e: &dyn std::fmt::Display| Error::Config(e.to_string());
    let mut config = match kubeconfig.filter(|file| !file.as_os_str().is_empty()) {
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
    let plugin = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
    let client = ClientBuilder::try_from(config);
    let client = client.map_err(|e: kube::Error| Error::Client(no_client(&e, plugin.as_deref())))?;
    // the plugin is asked again when its token is about to end
    let login = MapErrLayer::new(move |error: BoxError| match error.downcast::<AuthError>() {
        Ok(error) => {
            let told = no_client(&kube::Error::Auth(*error), plugin.as_deref());
            BoxError::from(kube::Error::Auth(AuthError::AuthExec(told)))
        }
        Err(error) => error,
    });
    Ok(client.with_layer(&login).with_layer(&answered_within(ANSWER)).build())
}

/// Why there is no client. What a plugin printed may be a token, and kube names its environment too: neither is repeated.
fn no_client(error: &kube::Error, plugin: Option<&str>) -> String {
    let plugin = plugin.unwrap_or("the kubeconfig's plugin");
    match error {
        kube::Error::Auth(AuthError::AuthExecStart(cause)) => format!("run `{plugin}`: {cause}"),
        kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => {
            let complained = String::from_utf8_lossy(&out.stderr);
            let last = complained.lines().rev().map(str::trim).find(|line| !line.is_empty());
            let last = last.map(|line| format!(": {line}")).unwrap_or_default();
            format!("`{plugin}` failed with {}{last}", out.status)
        }
        kube::Error::Auth(AuthError::AuthExecParse(_)) => format!("what `{plugin}` printed is no credential"),
        kube::Error::Auth(other) => other.to_string(),
        other => other.to_string(),
    }
}

/// How our programs watch: an API server that falls silent is noticed in minutes.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// What a client's requests go through that fail where no answer has begun within `time`.
pub(crate) fn answered_within(
    time: Duration,
) -> Stack<TimeoutLayer, MapErrLayer<impl Fn(BoxError) -> BoxError + Clone + Send + 'static>> {
    let told = MapErrLayer::new(move |error: BoxError| -> BoxError {
        if error.is::<Elapsed>() {
            format!("the API server gave no answer within {time:?}, or only that it is busy").into()
        } else {
            error
        }
    });
    Stack::new(TimeoutLayer::new(time), told)
}
