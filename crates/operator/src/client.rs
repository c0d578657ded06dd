//! The client of the API server: a kubeconfig where one is named or found, else the pod's own account.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::Error;

/// Longest time until a connection to the API server stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence of the API server; longer than the bookmarks of a watch are apart.
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
    kube::Client::try_from(config).map_err(|e| unusable(&e))
}
