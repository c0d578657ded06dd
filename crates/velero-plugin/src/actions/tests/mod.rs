//! The actions before an API server that does what a test has told it: what they write, and how long they wait.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api_server;
mod deleting;
mod old_snapshots;
mod settings;
mod silence;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::patience::Patience;
use super::reads::Reads;
use crate::{Cluster, Host};
use api_server::ApiServer;

/// Longest time until a test fails that should have ended long ago; two busy cores are slow.
const AT_THE_LATEST: Duration = Duration::from_secs(30);

/// What the actions read, from that API server. A driver is waited for as `patience` has it.
fn reads(server: &ApiServer, patience: Patience) -> Reads {
    let cluster = Arc::new(Cluster::connected(server.client()));
    let mut reads = Reads::new(Host { namespace: "velero".to_owned(), features: Vec::new(), cluster });
    reads.patience = patience;
    reads
}

/// An API server with a storage location `default` and nothing else.
fn with_location() -> ApiServer {
    let server = ApiServer::default();
    let location = json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": "default"},
        "spec": {"provider": "aws", "objectStorage": {"bucket": "backups"}, "config": {"region": "here"}}
    });
    server.put("/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default", location);
    server
}
