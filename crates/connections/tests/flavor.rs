//! The user's word on what the cluster is, against a real API server: what a user would lose are backups that are refused for good
//! after the setting was put right.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::time::Duration;

use connections::Vcenters;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::{Lab, Options, VELERO_NAMESPACE};
use lifecycle::flavor::Flavor;
use serde_json::{Value, json};

/// Longest time until a setting is known.
const WITHIN: Duration = Duration::from_secs(60);

async fn set(maps: &Api<ConfigMap>, flavor: Value) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": api::names::CONFIG},
        "data": {"cluster_flavor": flavor}});
    maps.patch(api::names::CONFIG, &PatchParams::apply("user").force(), &Patch::Apply(map)).await.unwrap();
}

/// A watch is late now and then; twenty changes show it.
#[tokio::test]
async fn nothing_is_refused_after_the_user_has_said_that_it_is_no_guest_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(Options::in_folder(folder.path())).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(lab.client().clone(), VELERO_NAMESPACE);
    let vcenters = Vcenters::new(lab.client().clone(), VELERO_NAMESPACE);
    for _ in 0..20 {
        set(&maps, json!("GUEST")).await;
        let told = async {
            while vcenters.flavor().await.unwrap().flavor != Flavor::Guest {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WITHIN, told).await.expect("the watch tells of the setting");
        set(&maps, json!("VANILLA")).await;
        assert_eq!(vcenters.flavor().await.unwrap().flavor, Flavor::Vanilla);
    }
}
