//! The Kubernetes API server, connected to when it is first needed: Velero starts us every ten seconds while anything
//! waits, and most of those starts need little of it.

use std::time::Duration;

use kube::client::ClientBuilder;
use tokio::sync::OnceCell;
use tower::timeout::TimeoutLayer;

/// Longest time until a connection to the API server stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time until an answer of the API server begins, and longest silence within one. What is asked once more because
/// it said 429, 503 or 504 counts in: kube goes on with that for minutes. Velero sets no deadline of its own, so a hanging
/// request would hang the backup.
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

    /// The client, made at the first call from KUBECONFIG or the pod's account. An answer has to begin
    /// within 20 s, and to go on without a silence as long.
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
    answered_within(REQUEST, config).map_err(|e| ClusterError(e.to_string()))
}

/// A client whose requests fail where no answer has begun within `time`.
fn answered_within(time: Duration, config: kube::Config) -> Result<kube::Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(time)).build())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    const BUSY: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    /// kube asks fifteen times more by itself.
    #[tokio::test]
    async fn an_api_server_that_says_it_is_busy_again_and_again_holds_no_backup_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let busy = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut connection, mut line) = (BufReader::new(connection), String::new());
                    // the empty line ends what is asked
                    while connection.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                        line.clear();
                    }
                    let _ = connection.write_all(BUSY).await; // it may have gone
                });
            }
        });
        let client = answered_within(Duration::from_secs(2), kube::Config::new(url.parse().unwrap())).unwrap();
        let settings: Api<ConfigMap> = Api::namespaced(client, "velero");
        let asked = tokio::time::timeout(Duration::from_secs(60), settings.get("settings")).await.expect("it ends");
        assert!(matches!(asked, Err(kube::Error::Service(_))), "{asked:?}");
        busy.abort();
    }
}
