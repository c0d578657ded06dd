#![allow(clippy::unwrap_used)] // a test may stop at the first surprise
use serde_json::{Value, json};

use super::*;

fn template(change: impl FnOnce(&mut Value)) -> PodTemplateSpec {
    let mut template = json!({
        "metadata": {"labels": {"name": "datamgr"}},
        "spec": {
            "serviceAccountName": "datamgr-for-vsphere-plugin",
            "containers": [{
                "name": "datamgr",
                "command": ["/datamgr"],
                "args": ["server", "--cache=/scratch/cache", "/scratchy"],
                "env": [
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "VELERO_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['name']"}}},
                    {"name": "VELERO_SCRATCH_DIR", "value": "/scratch"},
                    {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/credentials/cloud"},
                    {"name": "METRICS_ADDRESS", "value": ":8085"},
                ],
                "ports": [{"name": "metrics", "containerPort": 8085}],
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "metrics"}},
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "keys", "mountPath": "/credentials"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "keys", "secret": {"secretName": "cloud-credentials", "optional": true}},
            ],
        },
    });
    change(&mut template["spec"]);
    serde_json::from_value(template).unwrap()
}

fn translated(change: impl FnOnce(&mut Value)) -> Result<Pod> {
    let at = Placement {
        name: "data-manager-node-a",
        node: "node-a",
        namespace: "velero",
        folder: Path::new("/lab/pods/x"),
        metrics_port: 4242,
    };
    translate(&template(change), &at)
}

#[test]
fn a_process_gets_what_the_kubelet_would_give_the_container() {
    let pod = translated(|_| ()).unwrap();
    assert_eq!(pod.program, "datamgr");
    assert_eq!(pod.account, "datamgr-for-vsphere-plugin");
    let cases = [
        ("NODE_NAME", "node-a"),
        ("POD_NAME", "data-manager-node-a"),
        ("VELERO_NAMESPACE", "velero"),
        ("LABEL", "datamgr"),
        ("VELERO_SCRATCH_DIR", "/lab/pods/x/scratch"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/lab/pods/x/credentials/cloud"),
        ("METRICS_ADDRESS", "127.0.0.1:4242"),
        ("TMPDIR", "/lab/pods/x/tmp"),
    ];
    for (name, want) in cases {
        assert_eq!(pod.env.get(name).map(String::as_str), Some(want), "{name}");
    }
    assert_eq!(pod.env.len(), cases.len(), "nothing else: {:?}", pod.env);
}

#[test]
fn only_paths_below_a_mount_are_moved() {
    let pod = translated(|_| ()).unwrap();
    assert_eq!(pod.args, ["server", "--cache=/lab/pods/x/scratch/cache", "/scratchy"]);
}

#[test]
fn a_mounted_secret_is_named_with_whether_it_may_be_missing() {
    let pod = translated(|_| ()).unwrap();
    let secrets: Vec<_> = pod.mounts.iter().filter_map(|m| m.secret.clone()).collect();
    assert_eq!(secrets, [("cloud-credentials".to_owned(), true)]);
}

#[test]
fn readiness_is_asked_where_the_program_really_listens() {
    assert_eq!(translated(|_| ()).unwrap().ready, Some(Probe { path: "/readyz".to_owned(), port: 4242 }));
    let other_port = translated(|spec| spec["containers"][0]["ports"][0]["containerPort"] = json!(9999));
    assert!(other_port.unwrap_err().to_string().contains("9999"), "a chart that probes a dead port is refused");
}

type Change = Box<dyn FnOnce(&mut Value)>;

#[test]
fn what_the_lab_cannot_give_is_refused_and_not_left_out() {
    let from_secret = json!({"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
    let field = json!({"name": "K", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}});
    let cases: [(&str, Change); 4] = [
        ("variable from a Secret", Box::new(|s| s["containers"][0]["env"][0] = from_secret)),
        ("unknown field", Box::new(|s| s["containers"][0]["env"][0] = field)),
        ("volume of the node", Box::new(|s| s["volumes"][0] = json!({"name": "scratch", "hostPath": {"path": "/x"}}))),
        ("volume that is not there", Box::new(|s| s["volumes"] = json!([]))),
    ];
    for (what, change) in cases {
        assert!(translated(change).is_err(), "{what}");
    }
}
