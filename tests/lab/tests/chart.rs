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

fn find<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap()
}

/// M-8-1: scripts, PodMonitors and disruption budgets of users name these.
#[test]
fn deployment_and_daemon_set_go_by_the_originals_names_labels_and_selectors() {
    let objects = rendered(&[]);
    for (kind, name, command) in
        [("Deployment", "backup-driver", "/backup-driver"), ("DaemonSet", "datamgr-for-vsphere-plugin", "/datamgr")]
    {
        let object = find(&objects, kind);
        let template = &object["spec"]["template"];
        assert_eq!(object["metadata"]["name"], name);
        assert_eq!(object["metadata"]["namespace"], "backups", "beside Velero");
        assert_eq!(object["metadata"]["labels"]["component"], "velero");
        assert_eq!(object["spec"]["selector"], json!({"matchLabels": {"name": name}}));
        assert_eq!(template["metadata"]["labels"]["name"], name);
        assert_eq!(template["metadata"]["labels"]["component"], "velero");
        let [container] = template["spec"]["containers"].as_array().unwrap().as_slice() else { panic!("{kind}") };
        assert_eq!((&container["name"], &container["command"]), (&json!(name), &json!([command])));
        assert_eq!(container["args"][0], "server");
        for variable in ["NODE_NAME", "VELERO_NAMESPACE", "VELERO_SCRATCH_DIR", "LD_LIBRARY_PATH"] {
            let all = container["env"].as_array().unwrap();
            assert!(all.iter().any(|one| one["name"] == variable), "{kind} has no {variable}");
        }
    }
}

/// W-32, with every value that adds a container or a right.
#[test]
fn no_container_runs_as_root_and_no_account_may_do_everything() {
    let elsewhere = ["vcenterSecret.namespace=vmware-system-csi", "vddk.image=registry/vddk", "storageSecrets[0]=more"];
    for values in [&[][..], &elsewhere] {
        let objects = rendered(values);
        for kind in ["Deployment", "DaemonSet"] {
            let pod = &find(&objects, kind)["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{kind}");
            assert!(pod["securityContext"]["runAsUser"].as_u64().unwrap() > 0, "{kind}");
            let of = |list: &str| pod[list].as_array().cloned().unwrap_or_default();
            for container in of("initContainers").into_iter().chain(of("containers")) {
                let limits = &container["securityContext"];
                assert_eq!(limits["allowPrivilegeEscalation"], false, "{}", container["name"]);
                assert_eq!(limits["capabilities"]["drop"], json!(["ALL"]), "{}", container["name"]);
                assert!(limits["runAsUser"].is_null() && limits["privileged"].is_null(), "{}", container["name"]);
            }
            assert!(["hostNetwork", "hostPID", "hostIPC"].iter().all(|shared| pod[*shared].is_null()), "{kind}");
        }
        for object in &objects {
            let role = &object["roleRef"]["name"];
            assert!(role.is_null() || role != "cluster-admin" && role != "admin", "{object}");
            for rule in object["rules"].as_array().into_iter().flatten() {
                let words = ["apiGroups", "resources", "verbs"].map(|list| rule[list].as_array().unwrap().clone());
                assert!(!words.iter().flatten().any(|word| word == "*"), "{rule}");
                let is_for = |name: &str| words[1].iter().any(|resource| resource == name);
                let by_name = rule["resourceNames"].as_array().is_some_and(|names| !names.is_empty());
                assert!(by_name || !is_for("secrets") && !is_for("configmaps"), "read by name alone: {rule}");
            }
        }
    }
}
