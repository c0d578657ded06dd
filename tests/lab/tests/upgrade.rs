//! What helm makes of a release on a real API server: an upgrade from an earlier one, the way back, and the way from the original.
//! The earlier definitions are today's without a few fields, so that they grow old by themselves.
#![allow(clippy::unwrap_used)] // a test may stop at the first surprise
#![allow(clippy::disallowed_types)] // it runs helm and kubectl and waits for them

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt as _};
use lab::{Lab, Options, VELERO_NAMESPACE, until};
use serde_json::{Value, json};

const RELEASE: &str = "velero-plugin-for-vsphere";
const CHART: &str = "charts/velero-plugin-for-vsphere";
const DRIVER: &str = "backup-driver";
const DATA_MANAGER: &str = "datamgr-for-vsphere-plugin";
const KEY: &str = "vsphere-backup-repository-key";
/// The image that the chart names today; an earlier chart names [`BEFORE`].
const TODAY: &str = concat!("velero-plugin-for-vsphere:", env!("CARGO_PKG_VERSION"));
const BEFORE: &str = "velero-plugin-for-vsphere:0.0.9";
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
/// A moment as the API server writes it.
const NOON: &str = "2026-01-02T12:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn w33_an_upgrade_of_a_release_brings_what_is_new_and_loses_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::without_us(&folder.path().join("lab")).await;
    let older = older_chart(folder.path());
    let older = older.to_str().unwrap();
    cluster.helm(&[
        "upgrade",
        "--install",
        RELEASE,
        older,
        "--set",
        "repositoryKey.value=kept",
        "--set",
        "logLevel=debug",
    ]);
    cluster.serves_the_definitions().await;
    let before = cluster.make_objects().await;
    assert!(!cluster.keeps_a_new_field().await, "the earlier definition does not know it");
    assert_eq!(cluster.program().await, (BEFORE.to_owned(), 0, true));
    assert!(!cluster.may_look_at_attachments().await);

    // the values as they were given then: what has come since has no value but the chart's
    cluster.helm(&["upgrade", "--install", RELEASE, CHART, "--reset-then-reuse-values"]);
    cluster.has_todays_definitions().await;
    cluster.comes_to_keep_a_new_field().await;
    assert_eq!(cluster.objects().await, before, "as they were");
    assert_eq!(cluster.program().await, (TODAY.to_owned(), 1, true));
    assert!(cluster.may_look_at_attachments().await);

    cluster.helm(&["rollback", RELEASE, "1"]);
    assert_eq!(cluster.program().await, (BEFORE.to_owned(), 0, true));
    assert!(!cluster.may_look_at_attachments().await);
    assert_eq!(cluster.objects().await, before, "as they were");

    // with nothing given again, and with helm's old way to take over values: a key that is no longer named is not removed
    cluster.helm(&["upgrade", RELEASE, CHART, "--reuse-values"]);
    assert_eq!(cluster.program().await, (TODAY.to_owned(), 1, true));
    cluster.helm(
        &["upgrade", RELEASE, CHART, "--reset-values", "--set", "secretMounts[0].secret=sse-key"]
            .into_iter()
            .chain(["--set", "secretMounts[0].mountPath=/sse"])
            .collect::<Vec<_>>(),
    );
    assert_eq!(cluster.program().await, (TODAY.to_owned(), 2, false));
    cluster.has_todays_definitions().await;
    assert_eq!(cluster.key().await.as_deref(), Some("kept"));

    cluster.helm(&["uninstall", RELEASE]);
    assert_eq!(cluster.objects().await, before, "as they were");
    assert_eq!(cluster.key().await.as_deref(), Some("kept"));
    cluster.helm(&["upgrade", "--install", RELEASE, CHART]);
    cluster.has_todays_definitions().await;
    assert_eq!(cluster.objects().await, before, "as they were");
    cluster.lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w33_the_originals_definitions_and_objects_are_taken_over_by_the_documented_commands() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::without_us(&folder.path().join("lab")).await;
    cluster.put_the_originals_definitions().await;
    cluster.make_the_originals_programs().await;
    let before = cluster.make_objects().await;
    assert!(!cluster.keeps_a_new_field().await, "the original's definition does not know it");

    // nothing is taken by accident, and nothing is half taken
    let refused = cluster.try_helm(&["upgrade", "--install", RELEASE, CHART]).unwrap_err();
    assert!(refused.contains("take-ownership") || refused.contains("invalid ownership metadata"), "{refused}");
    assert!(!cluster.keeps_a_new_field().await);
    assert_eq!(cluster.program().await.0, "original:1.6");
    assert!(!cluster.helm(&["list", "--short"]).contains(RELEASE), "no release is left");

    // what doctor says of such a definition
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "deploy/crds"]);
    cluster.has_todays_definitions().await;
    cluster.comes_to_keep_a_new_field().await;
    assert_eq!(cluster.objects().await, before, "as they were");

    // the way without helm
    cluster.put_the_originals_definitions().await;
    cluster.remove_the_originals_programs();
    cluster.kubectl(&["apply", "-f", "deploy/crds", "-f", "deploy/manifests"]);
    cluster.has_todays_definitions().await;
    cluster.comes_to_keep_a_new_field().await;
    assert_eq!(cluster.objects().await, before, "as they were");
    assert_eq!(cluster.program().await.0, TODAY);

    // the way with it
    cluster.kubectl(&["delete", "-f", "deploy/manifests"]);
    cluster.put_the_originals_definitions().await;
    cluster.make_the_originals_programs().await;
    cluster.remove_the_originals_programs();
    cluster.helm(&["upgrade", "--install", RELEASE, CHART, "--take-ownership", "--force-conflicts"]);
    cluster.has_todays_definitions().await;
    cluster.comes_to_keep_a_new_field().await;
    assert_eq!(cluster.objects().await, before, "as they were");
    assert_eq!(cluster.program().await, (TODAY.to_owned(), 1, false));
    // from then on it is a release like any other
    cluster.helm(&["upgrade", "--install", RELEASE, CHART, "--set", "logLevel=debug"]);
    assert_eq!(cluster.program().await, (TODAY.to_owned(), 1, true));
    cluster.lab.stop().await.unwrap();
}

/// A lab whose cluster is as before anything of ours was installed.
struct Cluster {
    lab: Lab,
    root: PathBuf,
    /// What helm remembers.
    home: PathBuf,
}

impl Cluster {
    async fn without_us(folder: &Path) -> Self {
        let lab = Lab::start(Options::in_folder(folder)).await.unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let cluster = Self { home: folder.join("helm"), lab, root };
        cluster.kubectl(&["delete", "-f", "deploy/manifests", "-f", "deploy/crds"]);
        cluster.kubectl(&["-n", VELERO_NAMESPACE, "delete", "secret", KEY]);
        cluster
    }

    /// Runs a peer at the checkout's root; what it said, or why it failed.
    fn try_run(&self, peer: &str, arguments: &[&str]) -> Result<String, String> {
        let program = lab::peer(peer).and_then(|peer| peer.build(&self.root)).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg("--kubeconfig").arg(self.lab.kubeconfig()).current_dir(&self.root);
        command
            .env("HELM_CACHE_HOME", &self.home)
            .env("HELM_CONFIG_HOME", &self.home)
            .env("HELM_DATA_HOME", &self.home);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        if output.status.success() { Ok(said.concat()) } else { Err(said.concat()) }
    }

    fn try_helm(&self, arguments: &[&str]) -> Result<String, String> {
        self.try_run("helm", &[&["--namespace", VELERO_NAMESPACE], arguments].concat())
    }

    fn helm(&self, arguments: &[&str]) -> String {
        self.try_helm(arguments).unwrap_or_else(|why| panic!("helm {arguments:?}: {why}"))
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_run("kubectl", arguments).unwrap_or_else(|why| panic!("kubectl {arguments:?}: {why}"))
    }

    fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Api::all(self.lab.client().clone())
    }

    fn ours<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.lab.client().clone(), VELERO_NAMESPACE)
    }

    async fn serves_the_definitions(&self) {
        for (name, _) in todays_definitions() {
            let served = await_condition(self.all(), &name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(20), served).await.unwrap().unwrap();
        }
    }

    /// Every definition in the cluster says what the committed one says.
    async fn has_todays_definitions(&self) {
        for (name, committed) in todays_definitions() {
            let found: CustomResourceDefinition = self.all().get(&name).await.unwrap();
            let found = serde_json::to_value(found).unwrap();
            for part in [SCHEMA, "/spec/versions/0/additionalPrinterColumns", "/spec/names", "/spec/scope"] {
                assert_eq!(found.pointer(part), committed.pointer(part), "{part} of {name}");
            }
        }
        self.serves_the_definitions().await;
    }

    fn kind(&self, kind: &str) -> Api<DynamicObject> {
        let (name, definition) = definition_of(kind);
        let (plural, group) = name.split_once('.').unwrap();
        let resource = ApiResource {
            group: group.to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: format!("{group}/v1alpha1"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let client = self.lab.client().clone();
        match definition["spec"]["scope"] == "Cluster" {
            true => Api::all_with(client, &resource),
            false => Api::namespaced_with(client, VELERO_NAMESPACE, &resource),
        }
    }

    /// One object of each kind, with what the original's definitions know; as the API server has them.
    async fn make_objects(&self) -> Vec<Value> {
        for (kind, mut object) in objects() {
            let group = definition_of(kind).1["spec"]["group"].as_str().unwrap().to_owned();
            object["apiVersion"] = json!(format!("{group}/v1alpha1"));
            object["kind"] = json!(kind);
            object["metadata"] = json!({"name": "one"});
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            self.kind(kind).create(&PostParams::default(), &object).await.unwrap();
            // of Uploads and Downloads the status is a part of the object
            if definition_of(kind).1["spec"]["versions"][0]["subresources"].is_object() {
                let status = Patch::Merge(json!({"status": object.data["status"]}));
                self.kind(kind).patch_status("one", &PatchParams::default(), &status).await.unwrap();
            }
        }
        let made = self.objects().await;
        assert_eq!(made.len(), 7, "{made:?}");
        assert!(made.iter().filter(|object| object["status"]["phase"].is_string()).count() == 5, "{made:?}");
        made
    }

    async fn objects(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for (kind, _) in objects() {
            for object in self.kind(kind).list(&ListParams::default()).await.unwrap() {
                let mut object = serde_json::to_value(object).unwrap();
                let about = object["metadata"].as_object_mut().unwrap();
                for word in ["managedFields", "resourceVersion", "generation"] {
                    about.remove(word);
                }
                object["spec"].as_object_mut().map(|spec| spec.remove("admitted"));
                all.push(object);
            }
        }
        all
    }

    /// Whether a field that only today's definition of Upload has is there after it was written.
    async fn keeps_a_new_field(&self) -> bool {
        let patch = Patch::Merge(json!({"spec": {"admitted": true}}));
        let upload = self.kind("Upload").patch("one", &PatchParams::default(), &patch).await.unwrap();
        !upload.data["spec"]["admitted"].is_null()
    }

    /// The API server follows a definition a moment after it was written.
    async fn comes_to_keep_a_new_field(&self) {
        let kept = async || Ok(self.keeps_a_new_field().await.then_some(()));
        until(Duration::from_secs(20), "the API server keeps a field of today's", kept).await.unwrap();
    }

    /// The image of both programs, how many folders from Secrets the driver has, and whether it logs as was asked for at first.
    async fn program(&self) -> (String, usize, bool) {
        let driver: Deployment = self.ours().get(DRIVER).await.unwrap();
        let nodes: DaemonSet = self.ours().get(DATA_MANAGER).await.unwrap();
        let pod = driver.spec.unwrap().template.spec.unwrap();
        let of_nodes = nodes.spec.unwrap().template.spec.unwrap().containers[0].image.clone();
        assert_eq!(pod.containers[0].image, of_nodes);
        let args = pod.containers[0].args.clone().unwrap_or_default();
        let secrets = pod.volumes.unwrap_or_default().iter().filter(|volume| volume.secret.is_some()).count();
        (of_nodes.unwrap(), secrets, args.iter().any(|argument| argument == "--log-level=debug"))
    }

    async fn may_look_at_attachments(&self) -> bool {
        let role: ClusterRole = self.all().get("velero-vsphere:backup-driver").await.unwrap();
        let resources = role.rules.into_iter().flatten().filter_map(|rule| rule.resources).flatten();
        resources.into_iter().any(|resource| resource == "volumeattachments")
    }

    async fn key(&self) -> Option<String> {
        let secret: Secret = self.ours().get_opt(KEY).await.unwrap()?;
        Some(String::from_utf8(secret.data?.remove("repository-password")?.0).unwrap())
    }

    /// As its installer makes them: by a plain create, in nobody's release.
    async fn put_the_originals_definitions(&self) {
        let api: Api<CustomResourceDefinition> = self.all();
        for (name, mut definition) in todays_definitions() {
            make_older(&mut definition);
            definition["metadata"] = json!({"name": name, "labels": {"component": "velero"}});
            if let Some(there) = api.get_opt(&name).await.unwrap() {
                definition["metadata"]["resourceVersion"] = json!(there.resource_version());
                let definition = serde_json::from_value(definition).unwrap();
                api.replace(&name, &PostParams::default(), &definition).await.unwrap();
            } else {
                api.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
            }
        }
        self.serves_the_definitions().await;
    }

    /// Under the names, labels and selectors that ours have too.
    async fn make_the_originals_programs(&self) {
        let template = |name: &str| {
            let container = json!({"name": name, "image": "original:1.6", "args": ["server"]});
            json!({
                "selector": {"matchLabels": {"name": name}},
                "template": {
                    "metadata": {"labels": {"name": name, "component": "velero"}},
                    "spec": {"serviceAccountName": "velero", "containers": [container]},
                },
            })
        };
        let object = |name: &str| json!({"metadata": {"name": name}, "spec": template(name)});
        let driver: Deployment = serde_json::from_value(object(DRIVER)).unwrap();
        self.ours().create(&PostParams::default(), &driver).await.unwrap();
        let nodes: DaemonSet = serde_json::from_value(object(DATA_MANAGER)).unwrap();
        self.ours().create(&PostParams::default(), &nodes).await.unwrap();
    }

    fn remove_the_originals_programs(&self) {
        let (driver, nodes) = (format!("deployment/{DRIVER}"), format!("daemonset/{DATA_MANAGER}"));
        self.kubectl(&["-n", VELERO_NAMESPACE, "delete", &driver, &nodes]);
    }
}

/// One object of each kind, without a name.
fn objects() -> Vec<(&'static str, Value)> {
    let driver = "s3repository.astrolabe.vmware-tanzu.com";
    let parameters = json!({"bucket": "b", "region": "r"});
    vec![
        (
            "BackupRepositoryClaim",
            json!({"repositoryDriver": driver, "repopsitoryParameters": parameters, "allowedNamespaces": ["shop"]}),
        ),
        (
            "BackupRepository",
            json!({
                "repositoryDriver": driver, "repopsitoryParameters": parameters, "allowedNamespaces": ["shop"],
                "backupRepositoryClaim": "one",
            }),
        ),
        (
            "Snapshot",
            json!({
                "spec": {"resourceHandle": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data"}, "backupRepository": "br-1"},
                "status": {"phase": "Uploaded", "snapshotID": "pvc:shop/data:x", "progress": {}, "metadata": "CgA="},
            }),
        ),
        (
            "CloneFromSnapshot",
            json!({
                "spec": {"snapshotID": "pvc:shop/data:x", "apiGroup": "", "kind": "PersistentVolumeClaim", "backupRepository": "br-1", "cloneCancel": false},
                "status": {"phase": "Completed"},
            }),
        ),
        (
            "DeleteSnapshot",
            json!({"spec": {"snapshotID": "pvc:shop/data:x", "backupRepository": "br-1"}, "status": {"phase": "Completed"}}),
        ),
        (
            "Upload",
            json!({"spec": {"snapshotID": "ivd:d:s", "backupTimestamp": NOON}, "status": {"phase": "Completed", "progress": {"totalBytes": 7}}}),
        ),
        (
            "Download",
            json!({"spec": {"snapshotID": "ivd:d:s", "restoreTimestamp": NOON}, "status": {"phase": "Completed"}}),
        ),
    ]
}

/// The committed definitions by their names.
fn todays_definitions() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| read_yaml(&entry.unwrap().path())).collect();
    all.sort_by_key(|definition| definition["metadata"]["name"].to_string());
    all.into_iter()
        .map(|definition| (definition["metadata"]["name"].as_str().unwrap().to_owned(), definition))
        .collect()
}

fn definition_of(kind: &str) -> (String, Value) {
    todays_definitions().into_iter().find(|(_, definition)| definition["spec"]["names"]["kind"] == kind).unwrap()
}

fn read_yaml(file: &Path) -> Value {
    serde_yaml_ng::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Takes out of a definition what the original's lacks: columns, short names, conditions, and fields that came later.
fn make_older(definition: &mut Value) {
    let version = definition.pointer_mut("/spec/versions/0").unwrap().as_object_mut().unwrap();
    version.remove("additionalPrinterColumns");
    let names = definition.pointer_mut("/spec/names").unwrap().as_object_mut().unwrap();
    names.remove("shortNames").unwrap();
    names.remove("categories").unwrap();
    let mut taken = 0;
    for (at, field) in [
        ("", "credentialSecret"),
        ("/properties/status", "conditions"),
        ("/properties/status", "nextRetryTimestamp"),
        ("/properties/spec", "admitted"),
        ("/properties/spec", "claimCreator"),
    ] {
        let properties = definition.pointer_mut(&format!("{SCHEMA}{at}/properties")).and_then(Value::as_object_mut);
        taken += usize::from(properties.and_then(|properties| properties.remove(field)).is_some());
    }
    assert!(taken > 0, "{} has nothing that came later", definition["metadata"]["name"]);
}

/// The chart as an earlier release would have been: fewer fields, values, mounts and rights.
fn older_chart(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let chart = folder.join("older");
    let copied = Command::new("cp").arg("-r").arg(root.join(CHART)).arg(&chart).status().unwrap();
    assert!(copied.success());
    for entry in std::fs::read_dir(chart.join("files/crds")).unwrap() {
        let file = entry.unwrap().path();
        let mut definition = read_yaml(&file);
        make_older(&mut definition);
        std::fs::write(&file, serde_yaml_ng::to_string(&definition).unwrap()).unwrap();
    }
    let change = |file: &str, change: &dyn Fn(&str) -> String| {
        let file = chart.join(file);
        let before = std::fs::read_to_string(&file).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "{} was changed", file.display());
        std::fs::write(&file, after).unwrap();
    };
    change("Chart.yaml", &|text| text.replace(env!("CARGO_PKG_VERSION"), "0.0.9"));
    let values = ["secretMounts: []", "storageSecrets: []", "logFormat: \"\"", "  transportModes: nbdssl:nbd"];
    change("values.yaml", &|text| without(text, |line| values.contains(&line)));
    // the schema has what is known then, and those were not
    change("values.schema.json", &|_| "{}".to_owned());
    for mounts in ["templates/backup-driver.yaml", "templates/data-manager.yaml"] {
        change(mounts, &|text| without(text, |line| line.contains("include \"secret")));
    }
    change("templates/backup-driver-rbac.yaml", &|text| text.replace("volumeattachments", "csinodes"));
    chart
}

fn without(text: &str, gone: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| !gone(line)).map(|line| format!("{line}\n")).collect()
}
