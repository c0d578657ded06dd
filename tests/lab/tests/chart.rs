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

/// M-11-1: control-plane nodes, their network, no DaemonSet; the data-managers outside keep their account, which their kubeconfig is for.
#[test]
fn in_a_supervisor_the_driver_runs_on_control_plane_nodes_and_no_data_manager_does() {
    let objects =
        rendered(&["supervisor=true", "backupDriver.nodeSelector.zone=a", "backupDriver.tolerations[0].key=more"]);
    assert!(objects.iter().all(|object| object["kind"] != "DaemonSet"));
    let pod = &find(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("ClusterFirstWithHostNet")));
    assert_eq!(pod["nodeSelector"], json!({"node-role.kubernetes.io/control-plane": "", "zone": "a"}));
    let tolerated = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let wanted = json!([
        tolerated("node-role.kubernetes.io/master"),
        tolerated("node-role.kubernetes.io/control-plane"),
        {"key": "kubeadmNode", "operator": "Equal", "value": "master", "effect": "NoSchedule"},
        {"key": "more"},
    ]);
    assert_eq!(pod["tolerations"], wanted);
    let names = ["backup-driver", "datamgr-for-vsphere-plugin"];
    for name in names {
        assert!(objects.iter().any(|o| o["kind"] == "ServiceAccount" && o["metadata"]["name"] == name), "{name}");
        let role = objects.iter().find(|o| o["kind"] == "Role" && o["metadata"]["name"] == name).unwrap();
        let secrets = role["rules"].as_array().unwrap().iter().find(|rule| rule["resources"] == json!(["secrets"]));
        let named = secrets.unwrap()["resourceNames"].as_array().unwrap();
        assert!(!named.contains(&json!("velero-vsphere-config-secret")), "{name}: {named:?}");
    }
    let of_csi = |o: &&Value| o["kind"] == "Role" && o["metadata"]["namespace"] == "vmware-system-csi";
    let readable = objects.iter().find(of_csi).unwrap()["rules"][0]["resourceNames"].clone();
    assert!(
        ["vsphere-config-secret", "csi-vsphere-config"]
            .iter()
            .all(|secret| readable.as_array().unwrap().contains(&json!(secret))),
        "{readable}"
    );
}

/// M-11-1: in a Supervisor the data-managers run outside and are told vCenter by flags, so nothing in the cluster but the driver reads the
/// Secret of the CSI driver. Elsewhere both do.
#[test]
fn in_a_supervisor_nobody_but_the_driver_may_read_the_csi_drivers_secret() {
    let readers = |values: &[&str]| {
        let objects = rendered(values);
        let of_csi = |o: &&Value| o["kind"] == "RoleBinding" && o["metadata"]["namespace"] == "vmware-system-csi";
        let binding = objects.iter().find(of_csi).unwrap();
        let subjects = binding["subjects"].as_array().unwrap().iter();
        let told = |subject: &Value| (subject["namespace"].clone(), subject["name"].clone());
        subjects.map(told).collect::<Vec<_>>()
    };
    let account = |name: &str| (json!("backups"), json!(name));
    let (driver, nodes) = (account("backup-driver"), account("datamgr-for-vsphere-plugin"));
    assert_eq!(readers(&["supervisor=true"]), std::slice::from_ref(&driver));
    assert_eq!(readers(&["vcenterSecret.namespace=vmware-system-csi"]), [driver, nodes]);
}

/// M-7-2: what is read to find out the flavor of the cluster, by name and no more.
#[test]
fn of_the_csi_driver_its_controller_alone_may_be_read() {
    let objects = rendered(&[]);
    for account in ["velero-vsphere:backup-driver", "velero-vsphere:data-manager"] {
        let role = objects.iter().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == account).unwrap();
        let of_apps: Vec<_> =
            role["rules"].as_array().unwrap().iter().filter(|rule| rule["apiGroups"] == json!(["apps"])).collect();
        let [rule] = of_apps[..] else { panic!("{account}: {of_apps:?}") };
        let told = (&rule["resources"], &rule["resourceNames"], &rule["verbs"]);
        let wanted = (json!(["deployments", "statefulsets"]), json!(["vsphere-csi-controller"]), json!(["get"]));
        assert_eq!(told, (&wanted.0, &wanted.1, &wanted.2), "{account}");
    }
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
