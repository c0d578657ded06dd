//! What an action may know of the server that started us.

use std::sync::Arc;

use crate::Cluster;

/// The server that started us, and the cluster it works on.
#[derive(Clone)]
pub struct Host {
    /// Velero's namespace.
    pub namespace: String,
    /// Velero's features that are on, such as `EnableCSI`.
    pub features: Vec<String>,
    /// The API server, when an action asks for it.
    pub cluster: Arc<Cluster>,
}
