//! What the actions take for set, from ConfigMaps and from the flags of the server that started us.

use std::sync::Arc;

use serde_json::json;

use super::ApiServer;
use crate::actions::reads::Reads;
use crate::{Cluster, Host};

const MAPS: &str = "/api/v1/namespaces/velero/configmaps";

fn reads(server: &ApiServer, features: &[&str]) -> Reads {
    let cluster = Arc::new(Cluster::connected(server.client()));
    let features = features.iter().map(|f| (*f).to_owned()).collect();
    Reads::new(Host { namespace: "velero".to_owned(), features, cluster })
}

/// M-7-4: users of the original turned local mode on with `--features=EnableLocalMode` of Velero.
#[tokio::test]
async fn a_velero_that_was_started_for_local_mode_uploads_nothing() {
    let server = ApiServer::default();
    assert!(!reads(&server, &["EnableCSI"]).settings().await.unwrap().local_mode);
    assert!(reads(&server, &["EnableCSI", "EnableLocalMode"]).settings().await.unwrap().local_mode);
}

/// M-7-5: a new installation has no ConfigMap.
#[tokio::test]
async fn a_new_installation_blocks_the_default_list_and_a_config_map_takes_its_place() {
    let server = ApiServer::default();
    let blocked = reads(&server, &[]).blocked().await.unwrap().entries().count();
    assert_eq!(blocked, 123);
    let own = json!({"metadata": {"name": "own"}, "data": {"widgets.shop.example": "true"}});
    server.put(&format!("{MAPS}/velero-vsphere-plugin-blocked-resources-list"), own);
    let reads = reads(&server, &[]);
    let entries: Vec<_> = reads.blocked().await.unwrap().entries().collect();
    assert_eq!(entries, ["widgets.shop.example"], "nothing is added to a list that its user has edited");
}
