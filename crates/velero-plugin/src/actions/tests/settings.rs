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

/// M-7-6: other plugins have ConfigMaps with one of the two labels, such as Velero's own for the names of images. More than one mapping
/// is an error, so that one taken for a second mapping would fail every restore.
#[tokio::test]
async fn a_config_map_of_another_plugin_is_not_taken_for_the_mapping_of_classes() {
    let of_a_plugin = "velero.io/plugin-config";
    let (class, image) = ("velero.io/change-storage-class", "velero.io/change-image-name");
    let maps = [
        ("change-storage-class-config", json!({of_a_plugin: "", class: "RestoreItemAction"}), true),
        ("any-name", json!({of_a_plugin: "of no matter", class: "RestoreItemAction", "team": "shop"}), true),
        ("change-image-name-config", json!({of_a_plugin: "", image: "RestoreItemAction"}), false),
        ("of-a-plugin-alone", json!({of_a_plugin: ""}), false),
        ("of-no-plugin", json!({class: "RestoreItemAction"}), false),
        ("of-another-action", json!({of_a_plugin: "", class: "BackupItemAction"}), false),
        ("without-labels", json!({}), false),
    ];
    for (name, labels, is_taken) in maps {
        let server = ApiServer::default();
        let map = json!({"metadata": {"name": name, "labels": labels}, "data": {"gold": "silver"}});
        server.put(&format!("{MAPS}/{name}"), map);
        let found = reads(&server, &[]).class_mappings().await.unwrap();
        assert_eq!(found.len(), usize::from(is_taken), "{name}");
    }
}
