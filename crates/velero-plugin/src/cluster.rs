//! The Kubernetes API server, connected to when it is first needed: Velero starts us every ten seconds while anything
//! waits, and most of those starts need little of it.

use std::time::Duration;

use tokio::sync::OnceCell;

/// Longest time until a connection to the API server stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence of the API server in one request. Velero sets no deadline of its own, so a hanging request would hang
/// the backup.
const REQUEST: Duration = Duration::from_secs(20);

/// The API server cannot be used as we are configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("connect to the API server: {0}")]
pub struct ClusterError(String);

/// The cluster that Velero runs in.
#[derive(Default)]
pub struct Cluster {
    client: OnceCell<kube::Client>,
}

impl Cluster {
    /// A cluster whose client is already there.
    pub fn connected(client: kube::Client) -> Self {
        Self { client: OnceCell::new_with(Some(client)) }
    }

    /// The client, made at the first call from KUBECONFIG or the pod's account; every request has 20 s.
    ///
    /// # Errors
    /// When there is neither, or what is there cannot be read.
    pub async fn client(&self) -> Result<kube::Client, ClusterError> {
        self.client.get_or_try_init(connect).await.cloned()
    }
}

async fn connect() -> Result<kube::Client, ClusterError> {
    let mut config = kube::Config::infer().await.map_err(|e| ClusterError(e.to_string()))?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(REQUEST);
    config.write_timeout = Some(REQUEST);
    // else the time a connection has waited for its next request counts in
    config.reset_reader_on_write = true;
    kube::Client::try_from(config).map_err(|e| ClusterError(e.to_string()))
}
