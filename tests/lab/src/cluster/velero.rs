//! Velero: the objects that `velero install` prints, a second storage location, and the server as its Deployment says it.
//! Whoever changes that Deployment (an argument, a variable) changes the process that is started next.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::objects::{Applier, secret};
use super::workloads;
use crate::facts::{BUCKET, Facts, REGION, SECOND_BUCKET, SECOND_PREFIX, VELERO_NAMESPACE, write_private};
use crate::processes::Launch;

/// Name of the server among the processes of a lab, and of its Deployment.
pub(crate) const NAME: &str = "velero";

/// The plugins that a lab puts into Velero's folder: that for S3, which is a peer, and ours.
pub(crate) const PLUGINS: [&str; 2] = ["velero-plugin-for-aws", "velero-plugin-for-vsphere"];

/// How the server differs from what the Deployment asks for and users have: less waiting. The Deployment may overrule it.
const QUICK: [&str; 2] = ["--item-operation-sync-frequency=1s", "--backup-sync-period=1s"];

/// Writes Velero's kinds and objects, and waits until the API server serves the kinds.
pub(crate) async fn apply(cli: &Path, lab: &Path, facts: &Facts, client: &Client) -> Result<()> {
    let (crds, others): (Vec<_>, Vec<_>) =
        installation(cli, lab, facts).await?.into_iter().partition(|o| o["kind"] == "CustomResourceDefinition");
    let mut applier = Applier::new(client.clone());
    applier.crds(&crds).await?;
    for object in others.iter().chain(&second_location(facts)) {
        applier.apply(object).await?;
    }
    Ok(())
}

/// What `velero install` would write; the location `default` among it.
async fn installation(cli: &Path, lab: &Path, facts: &Facts) -> Result<Vec<Value>> {
    let credentials = lab.join("s3-credentials");
    write_private(&credentials, &facts.s3.user.credentials_file())?;
    let args = [
        "install",
        "--dry-run",
        "--output=json",
        "--provider=aws",
        "--image=velero/velero:v1.18.0",
        "--plugins=velero/velero-plugin-for-aws:v1.14.2",
        "--use-volume-snapshots=false", // the S3 plugin's other half is for volumes of AWS
        "--concurrent-backups=4",
    ];
    let said = tokio::process::Command::new(cli)
        .args(args)
        .arg(format!("--bucket={BUCKET}"))
        .arg(format!("--backup-location-config={}", settings(facts).map(|(k, v)| format!("{k}={v}")).join(",")))
        .arg(format!("--secret-file={}", credentials.display()))
        .env_clear()
        .env("HOME", lab.join("home"))
        .env("KUBECONFIG", lab.join("kubeconfig")) // it asks the cluster nothing, and wants one all the same
        .kill_on_drop(true)
        .output();
    let said =
        tokio::time::timeout(Duration::from_secs(60), said).await.context("run velero install within 60 s")??;
    if !said.status.success() {
        bail!("velero install ended with {}: {}", said.status, String::from_utf8_lossy(&said.stderr));
    }
    let list: Value = serde_json::from_slice(&said.stdout).context("understand what velero install prints")?;
    let mut objects = list["items"].as_array().context("velero install prints a list")?.clone();
    for object in objects.iter_mut().filter_map(Value::as_object_mut) {
        object.remove("status"); // printed empty, and not for us to write
    }
    Ok(objects)
}

/// How the S3 server is reached: the same for both locations.
fn settings(facts: &Facts) -> [(&'static str, String); 3] {
    [("region", REGION.to_owned()), ("s3ForcePathStyle", "true".to_owned()), ("s3Url", facts.s3.endpoint.clone())]
}

/// The location `second`: another bucket, a prefix, and another account by a Secret of its own.
fn second_location(facts: &Facts) -> [Value; 4] {
    let settings: serde_json::Map<_, _> =
        settings(facts).map(|(key, value)| (key.to_owned(), json!(value))).into_iter().collect();
    let readers = ["backup-driver", "datamgr-for-vsphere-plugin"]
        .map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": VELERO_NAMESPACE}));
    [
        secret("second-credentials", "cloud", &facts.s3.second.credentials_file()),
        json!({
            "apiVersion": "velero.io/v1",
            "kind": "BackupStorageLocation",
            "metadata": {"name": "second", "namespace": VELERO_NAMESPACE},
            "spec": {
                "provider": "aws",
                "objectStorage": {"bucket": SECOND_BUCKET, "prefix": SECOND_PREFIX},
                "config": settings,
                "credential": {"name": "second-credentials", "key": "cloud"},
            },
        }),
        // what the chart's value `storageSecrets: [second-credentials]` gives
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "second-credentials", "namespace": VELERO_NAMESPACE},
            "rules": [{
                "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["second-credentials"],
                "verbs": ["get", "list", "watch"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "second-credentials", "namespace": VELERO_NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "second-credentials"},
            "subjects": readers,
        }),
    ]
}

/// Makes the server's process out of its Deployment, with copies of these plugins in its plugin folder.
pub(crate) async fn prepare(
    server: PathBuf,
    plugins: &[PathBuf],
    lab: &Path,
    facts: &mut Facts,
    client: &Client,
) -> Result<Launch> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), VELERO_NAMESPACE);
    let deployment = api.get_opt(NAME).await.context("read the Deployment of Velero")?;
    let deployment = deployment.context("this lab was started without Velero; start it with: LAB_VELERO=on lab up")?;
    let wanted = workloads::wanted(&[serde_json::to_value(deployment)?], &facts.nodes)?;
    let wanted = wanted.first().context("the Deployment of Velero asks for no pod: its replicas are 0")?;
    let pod = workloads::pod(wanted, lab, facts)?;
    let mut launch = workloads::process(&pod, server, lab, facts, client).await?;
    let folder = plugin_folder(lab);
    put_plugins(plugins, &folder)?;
    let own = [
        format!("--plugin-dir={}", folder.display()),
        format!("--metrics-address=127.0.0.1:{}", facts.port(NAME)?),
        "--profiler-address=".to_owned(),
    ];
    launch.args.splice(1..1, QUICK.map(str::to_owned));
    launch.args.extend(own);
    // the credentials of locations, the sockets of plugins and the files of backups all go there; short, because the
    // path of a socket has to be
    let tmp = lab.join("tmp");
    fs::create_dir_all(&tmp).with_context(|| format!("make {}", tmp.display()))?;
    launch.env.insert("TMPDIR".to_owned(), tmp.display().to_string());
    launch.env.insert("HOME".to_owned(), lab.join("home").display().to_string());
    launch.watched = plugins.to_vec();
    launch.takes_children_along = true;
    Ok(launch)
}

/// The folder whose executables Velero runs, every one of them.
pub(crate) fn plugin_folder(lab: &Path) -> PathBuf {
    workloads::folder(lab, NAME).join("plugins")
}

/// Copies plugins into Velero's folder, each complete when it appears there, and takes away those of an earlier start that
/// are no longer built. What others have put there stays.
fn put_plugins(plugins: &[PathBuf], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for name in PLUGINS.iter().filter(|name| !plugins.iter().any(|plugin| plugin.ends_with(name))) {
        match fs::remove_file(folder.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {name}"));
            }
            _ => (),
        }
    }
    for plugin in plugins {
        let name = plugin.file_name().context("a plugin is a file")?;
        let half_made = folder.with_file_name("plugin.partial");
        fs::copy(plugin, &half_made).with_context(|| format!("copy {}", plugin.display()))?;
        fs::rename(&half_made, folder.join(name)).with_context(|| format!("put {} in place", plugin.display()))?;
    }
    Ok(())
}

/// The storage locations that the server which was started then has not found good, each with what it says.
pub(crate) async fn locations_not_ready(client: &Client, started: Timestamp) -> Result<Vec<String>> {
    let kind = GroupVersionKind::gvk("velero.io", "v1", "BackupStorageLocation");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), VELERO_NAMESPACE, &resource);
    let locations = api.list(&ListParams::default()).await.context("list Velero's storage locations")?;
    Ok(locations.iter().filter_map(|location| not_ready(location, started)).collect())
}

fn not_ready(location: &DynamicObject, started: Timestamp) -> Option<String> {
    let status = &location.data["status"];
    let looked: Option<Timestamp> = status["lastValidationTime"].as_str().and_then(|time| time.parse().ok());
    // written in whole seconds
    let by_this_server = looked.is_some_and(|looked| looked + SignedDuration::from_secs(1) > started);
    if by_this_server && status["phase"] == "Available" {
        return None;
    }
    Some(format!("storage location {} is not available: {status}", location.name_any()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;

    #[test]
    fn a_location_counts_only_when_the_server_that_runs_now_has_found_it_good() {
        let started: Timestamp = "2026-11-21T08:00:10.7Z".parse().unwrap();
        let cases = [
            ("never looked at", json!({}), false),
            (
                "good for the server before",
                json!({"phase": "Available", "lastValidationTime": "2026-11-21T08:00:09Z"}),
                false,
            ),
            (
                "good in the second of the start",
                json!({"phase": "Available", "lastValidationTime": "2026-11-21T08:00:10Z"}),
                true,
            ),
            ("bad", json!({"phase": "Unavailable", "lastValidationTime": "2026-11-21T08:00:12Z"}), false),
        ];
        for (situation, status, ready) in cases {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", "BackupStorageLocation"));
            let location = DynamicObject::new("default", &resource).data(json!({"status": status}));
            assert_eq!(not_ready(&location, started).is_none(), ready, "{situation}");
        }
    }

    #[test]
    fn only_whole_plugins_that_are_built_lie_in_the_folder_whose_executables_velero_runs() {
        let lab = tempfile::tempdir().unwrap();
        let made = lab.path().join("made");
        fs::create_dir(&made).unwrap();
        let [s3, ours] = PLUGINS.map(|name| made.join(name));
        fs::write(&s3, "s3").unwrap();
        fs::write(&ours, "ours").unwrap();
        let folder = plugin_folder(lab.path());
        let there = || {
            let mut there: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
            there.sort();
            there
        };
        put_plugins(&[s3.clone(), ours.clone()], &folder).unwrap();
        fs::write(&ours, "ours, built anew").unwrap();
        put_plugins(&[s3.clone(), ours.clone()], &folder).unwrap();
        assert_eq!(there(), PLUGINS);
        assert_eq!(fs::read_to_string(folder.join(PLUGINS[1])).unwrap(), "ours, built anew");
        fs::write(folder.join("somebody-else"), "x").unwrap();
        put_plugins(&[s3], &folder).unwrap();
        assert_eq!(there(), ["somebody-else", PLUGINS[0]]);
    }
}
