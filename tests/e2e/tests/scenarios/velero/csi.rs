//! Velero with its CSI feature: claims that it takes itself are left to it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{DEADLINE, Namespace, World, nothing_left};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::backup_choices::says;

crate::scenarios![a_claim_that_velero_takes_by_csi_is_left_to_it];

/// Kinds of the CSI snapshotter: singular, plural, whether they lie in namespaces.
const KINDS: [(&str, &str, bool); 3] = [
    ("VolumeSnapshot", "volumesnapshots", true),
    ("VolumeSnapshotContent", "volumesnapshotcontents", false),
    ("VolumeSnapshotClass", "volumesnapshotclasses", false),
];
const LOOK: Duration = Duration::from_millis(200);

/// With `EnableCSI`, and with `--snapshot-move-data`: Velero's own action comes first, ours stands aside and says why. The
/// test is the snapshotter and the node agent, which a lab has not.
async fn a_claim_that_velero_takes_by_csi_is_left_to_it(world: World) -> Result<()> {
    let (kept, moved) = (shop(&world, "vcsi").await?, shop(&world, "vmove").await?);
    snapshotter_kinds(&world).await?;
    let snapshotter = tokio::spawn(snapshotter(world.clone()));
    let before = restart_with(&world, "--features=EnableCSI").await?;
    let outcome = left_to_velero(&world, &kept, &moved).await;
    restart_with(&world, &before).await?;
    snapshotter.abort();
    let crds: Api<CustomResourceDefinition> = Api::all(world.client());
    for (_, plural, _) in KINDS {
        crds.delete(&format!("{plural}.snapshot.storage.k8s.io"), &DeleteParams::default()).await?;
    }
    outcome
}

async fn left_to_velero(world: &World, kept: &Namespace, moved: &Namespace) -> Result<()> {
    let velero = world.velero_server();
    velero.back_up(kept.name(), kept.name(), &[]).await?;
    velero.back_up(moved.name(), moved.name(), &["--snapshot-move-data"]).await?;
    velero.backup_is(kept.name(), "Completed").await?;
    fail_data_upload(world, moved.name()).await?;
    velero.backup_is(moved.name(), "PartiallyFailed").await?;
    for (shop, why) in [
        (kept, "Velero has taken a CSI snapshot of it (--features=EnableCSI)"),
        (moved, "Velero moves a CSI snapshot of it (--snapshot-move-data)"),
    ] {
        says(&velero.log(shop.name()).await?, &[&format!("{}/data", shop.name()), why])?;
        let asked = world.snapshots_of(shop.name()).await?;
        ensure!(asked.is_empty(), "our action made {} Snapshots beside Velero's", asked.len());
        nothing_left(world, shop, 0).await?;
    }
    Ok(())
}

async fn shop(world: &World, prefix: &str) -> Result<Namespace> {
    let shop = world.namespace(prefix).await?;
    shop.claim("data").mib(1).create().await?;
    Ok(shop)
}

/// Gives Velero's server another `--features` and starts it anew; returns the argument it had.
async fn restart_with(world: &World, features: &str) -> Result<String> {
    let api: Api<Deployment> = Api::namespaced(world.client(), world.velero());
    let mut server = api.get("velero").await?;
    let pod = server.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()).context("a pod")?;
    let args = pod.containers.first_mut().and_then(|container| container.args.as_mut()).context("arguments")?;
    let before = args.iter_mut().find(|arg| arg.starts_with("--features=")).context("an argument for features")?;
    let before = std::mem::replace(before, features.to_owned());
    api.replace("velero", &PostParams::default(), &server).await?;
    world.kill("velero").await?;
    world.start_process("velero").await?;
    Ok(before)
}

/// The snapshotter's kinds, and a class for vSphere's driver.
async fn snapshotter_kinds(world: &World) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(world.client());
    for (kind, plural, namespaced) in KINDS {
        let name = format!("{plural}.snapshot.storage.k8s.io");
        let crd = json!({
            "metadata": {"name": name, "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814",
            }},
            "spec": {
                "group": "snapshot.storage.k8s.io",
                "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                    "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        });
        crds.create(&PostParams::default(), &serde_json::from_value(crd)?).await?;
        let due = Instant::now() + DEADLINE;
        while objects(world, "snapshot.storage.k8s.io", "v1", kind).list(&ListParams::default()).await.is_err() {
            ensure!(Instant::now() < due, "{name} is not served");
            sleep(LOOK).await;
        }
    }
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": "vsphere", "labels": {"velero.io/csi-volumesnapshot-class": "true"}},
        "driver": "csi.vsphere.vmware.com", "deletionPolicy": "Delete",
    });
    let classes = objects(world, "snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
    classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    Ok(())
}

fn objects(world: &World, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    Api::all_with(world.client(), &resource(group, version, kind))
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if let Some((_, plural, _)) = KINDS.iter().find(|known| known.0 == kind) {
        resource.plural = (*plural).to_owned();
    }
    resource
}

/// Answers each VolumeSnapshot as the CSI snapshotter does, until it is ended.
async fn snapshotter(world: World) {
    loop {
        if let Ok(asked) =
            objects(&world, "snapshot.storage.k8s.io", "v1", "VolumeSnapshot").list(&ListParams::default()).await
        {
            for one in asked.iter().filter(|one| one.data["status"]["readyToUse"] != true) {
                let _ = answer(&world, one).await; // one that was deleted meanwhile needs no answer; others are met again
            }
        }
        sleep(LOOK).await;
    }
}

async fn answer(world: &World, asked: &DynamicObject) -> Result<()> {
    let namespace = asked.namespace().context("a namespace")?;
    let content = format!("snapcontent-{}", asked.uid().context("a uid")?);
    let object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": content},
        "spec": {
            "deletionPolicy": "Delete", "driver": "csi.vsphere.vmware.com", "source": {"volumeHandle": "disk"},
            "volumeSnapshotClassName": "vsphere",
            "volumeSnapshotRef": {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "namespace": namespace, "name": asked.name_any(), "uid": asked.uid()},
        },
        "status": {"snapshotHandle": "disk+snapshot", "restoreSize": 1 << 20, "readyToUse": true},
    });
    let contents = objects(world, "snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent");
    let force = PatchParams::apply("snapshotter").force();
    contents.patch(&content, &force, &Patch::Apply(object)).await?;
    let status = json!({"boundVolumeSnapshotContentName": content, "readyToUse": true, "restoreSize": "1Mi"});
    patch(world, &resource("snapshot.storage.k8s.io", "v1", "VolumeSnapshot"), asked, json!({"status": status})).await
}

async fn patch(world: &World, resource: &ApiResource, object: &DynamicObject, patch: Value) -> Result<()> {
    let namespace = object.namespace().context("a namespace")?;
    let api: Api<DynamicObject> = Api::namespaced_with(world.client(), &namespace, resource);
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// What a node agent would say that cannot move the data.
async fn fail_data_upload(world: &World, backup: &str) -> Result<()> {
    let kind = resource("velero.io", "v2alpha1", "DataUpload");
    let all: Api<DynamicObject> = Api::namespaced_with(world.client(), world.velero(), &kind);
    let of_backup = ListParams::default().labels(&format!("velero.io/backup-name={backup}"));
    let due = Instant::now() + DEADLINE;
    let upload = loop {
        if let Some(upload) = all.list(&of_backup).await?.items.pop() {
            break upload;
        }
        ensure!(Instant::now() < due, "Velero's CSI action made no DataUpload for {backup}");
        sleep(LOOK).await;
    };
    patch(world, &kind, &upload, json!({"status": {"phase": "Failed", "message": "no node agent in this lab"}})).await
}
