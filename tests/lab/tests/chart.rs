//! What the chart's values do beyond the default rendering, which is in `deploy/manifests` and in every lab.
#![allow(clippy::unwrap_used)] // a test may stop at the first surprise
#![allow(clippy::disallowed_types)] // it runs helm and waits for it

use std::path::Path;
use std::process::Command;

use serde::Deserialize as _;
use serde_json::{Value, json};

/// The chart as real helm renders it with these values.
fn rendered(values: &[&str]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let helm = lab::peer("helm").and_then(|peer| peer.build(&root)).unwrap();
    let mut command = Command::new(helm);
    command.args(["template", "release", "charts/velero-plugin-for-vsphere", "--namespace", "backups"]);
    let output = command.args(values.iter().flat_map(|value| ["--set", value])).current_dir(&root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents = serde_yaml_ng::Deserializer::from_slice(&output.stdout);
    documents.map(|document| Value::deserialize(document).unwrap()).filter(|document| !document.is_null()).collect()
}

#[test]
fn a_key_that_a_storage_location_names_as_a_file_is_in_both_programs() {
    let objects = rendered(&["secretMounts[0].secret=sse-key", "secretMounts[0].mountPath=/sse"]);
    for kind in ["Deployment", "DaemonSet"] {
        let pod = &objects.iter().find(|object| object["kind"] == kind).unwrap()["spec"]["template"]["spec"];
        let all = |list: &Value| list.as_array().unwrap().clone();
        let volume = all(&pod["volumes"]).into_iter().find(|v| v["secret"]["secretName"] == "sse-key").unwrap();
        let mounts = all(&pod["containers"][0]["volumeMounts"]);
        let wanted = json!({"name": volume["name"], "mountPath": "/sse", "readOnly": true});
        assert!(mounts.contains(&wanted), "{kind}: {mounts:?}");
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/credentials"), "{kind}: {mounts:?}");
    }
}

#[test]
fn the_csi_drivers_own_secret_may_be_read_under_both_its_names() {
    let elsewhere = |namespace: &str| {
        let objects = rendered(&[&format!("vcenterSecret.namespace={namespace}")]);
        let role = objects.iter().find(|o| o["kind"] == "Role" && o["metadata"]["namespace"] == namespace).unwrap();
        role["rules"][0]["resourceNames"].clone()
    };
    let (own, csi) = ("velero-vsphere-config-secret", ["vsphere-config-secret", "csi-vsphere-config"]);
    assert_eq!(elsewhere("vmware-system-csi"), json!([own, csi[0], csi[1]]));
    assert_eq!(elsewhere("secrets"), json!([own]));
}
