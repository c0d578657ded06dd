//! `vsphere-backup doctor`: a cluster in which all is well is called so, each trouble is named with what helps, and what is left over is
//! told before the driver removes it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::{BackupRepository, BackupRepositoryClaim, Download, Reason, Snapshot, SnapshotPhase, SnapshotSpec, Upload};
use api::{ResourceHandle, labels, names};
use e2e::{DEADLINE, World, delete_if_there, nothing_left, put_right, wait_until};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::process::Command;

use super::back_up;
use super::peers::{configuration, configure, with};

crate::scenarios![
    doctor_calls_a_healthy_cluster_healthy,
    doctor_names_each_trouble_and_what_helps,
    doctor_tells_what_is_left_over_and_the_driver_removes_what_is_old,
];

const DRIVER: &str = "backup-driver";
/// Pause between two looks at what is not watched.
const LOOK: Duration = Duration::from_millis(300);

/// SHA-256 of an empty body.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What doctor says.
#[derive(Debug)]
struct Told {
    code: i32,
    document: Value,
}

async fn doctor(world: &World, more: &[&str]) -> Result<Told> {
    let arguments = [&["doctor", "--velero-namespace", world.velero(), "--output", "json"], more].concat();
    let output = world.output("vsphere-backup", &arguments).await?;
    let document = serde_json::from_slice(&output.stdout);
    let document = document.with_context(|| format!("one document, not {output:?}"))?;
    Ok(Told { code: output.status.code().context("it ended by itself")?, document })
}

impl Told {
    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.document["findings"].as_array().into_iter().flatten()
    }

    /// The finding of that matter and verdict that was seen so, with every word in what it says.
    fn says(&self, matter: &str, verdict: &str, words: &[&str]) -> Result<&Value> {
        let fits = |finding: &&Value| {
            let text = finding.to_string();
            finding["matter"] == matter && finding["verdict"] == verdict && words.iter().all(|word| text.contains(word))
        };
        self.findings()
            .find(fits)
            .with_context(|| format!("no {verdict} of {matter} with {words:?} in {:#}", self.document))
    }

    /// A problem with the reason that objects carry, and its fix.
    fn has(&self, matter: &str, reason: Reason, words: &[&str]) -> Result<()> {
        ensure!(self.code == 1, "a problem ends with code 1, not {}", self.code);
        let finding = self.says(matter, "problem", &[&[reason.as_str()], words].concat())?;
        let helps = |field: &str| finding[field].as_str().is_some_and(|text| !text.is_empty());
        ensure!(helps("why") && helps("fix"), "it says neither why it matters nor what helps: {finding}");
        Ok(())
    }
}

/// Forgets the repositories and transfers of earlier scenarios: their buckets are gone, and their troubles were meant.
async fn as_if_nobody_had_been_here(world: &World) -> Result<()> {
    let (delete, all) = (DeleteParams::default(), ListParams::default());
    Api::<BackupRepositoryClaim>::namespaced(world.client(), world.velero()).delete_collection(&delete, &all).await?;
    Api::<Upload>::namespaced(world.client(), world.velero()).delete_collection(&delete, &all).await?;
    Api::<Download>::namespaced(world.client(), world.velero()).delete_collection(&delete, &all).await?;
    let repositories: Api<BackupRepository> = Api::all(world.client());
    repositories.delete_collection(&delete, &all).await?;
    world.nodes_name_their_machines().await
}

/// What the controllers of a cluster would write: none run in the lab, our programs are processes there.
async fn programs_are_said_to_run(world: &World) -> Result<()> {
    let patch = PatchParams::default();
    let deployments: Api<Deployment> = Api::namespaced(world.client(), world.velero());
    let one = json!({"status": {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1}});
    deployments.patch_status(names::DRIVER, &patch, &Patch::Merge(one)).await?;
    let sets: Api<DaemonSet> = Api::namespaced(world.client(), world.velero());
    let two = json!({"status": {
        "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
        "numberReady": 2, "updatedNumberScheduled": 2,
    }});
    sets.patch_status(names::DATA_MANAGER, &patch, &Patch::Merge(two)).await.map(drop)?;
    Ok(())
}

async fn doctor_calls_a_healthy_cluster_healthy(world: World) -> Result<()> {
    as_if_nobody_had_been_here(&world).await?;
    programs_are_said_to_run(&world).await?;
    let shop = world.namespace("healthy").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(101)?;
    back_up(&shop, &claim).await?;
    nothing_left(&world, &shop, 1).await?;
    let told = doctor(&world, &["--probe-store"]).await?;
    ensure!(told.code == 0 && told.document["problems"] == 0, "problems in a healthy cluster: {:#}", told.document);
    let matters = [
        "cluster",
        "definitions",
        "programs",
        "rights",
        "settings",
        "vcenter",
        "privileges",
        "clocks",
        "tracking",
        "library",
        "key",
        "storage",
        "leftovers",
    ];
    for matter in matters {
        told.says(matter, "ok", &[])?;
    }
    told.says("programs", "ok", &["the active driver is"])?;
    told.says("library", "ok", &["opened a disk at", "nbdssl"])?;
    told.says("clocks", "ok", &["API server", "vCenter", "object store of storage location default"])?;
    told.says("storage", "ok", &["storage location default", "put an object only where there is none"])?;
    told.says("storage", "ok", &["storage location second", "delete an object"])?;
    told.says("leftovers", "ok", &["no disk snapshot"])?;
    // nothing of the probe stays, and no repository was made by looking
    let folders = std::fs::read_dir(world.repository_folder(""))?.flatten().map(|entry| entry.file_name());
    let probes: Vec<_> = folders.filter(|name| name.to_string_lossy().contains("doctor")).collect();
    ensure!(probes.is_empty(), "the probe has left {probes:?}");
    let text = world.run("kubectl", &["vsphere-backup", "doctor"]).await?;
    ensure!(text.contains("ok       vcenter") && text.contains("0 problems"), "it prints\n{text}");
    nothing_left(&world, &shop, 1).await
}

/// What doctor says while something is wrong, and after it was put right whatever that was.
async fn while_wrong(
    world: &World,
    wrong: impl Future<Output = Result<()>>,
    right: impl Future<Output = Result<()>>,
) -> Result<Told> {
    let told = match wrong.await {
        Ok(()) => doctor(world, &[]).await,
        Err(error) => Err(error),
    };
    put_right(told, [right.await])
}

/// A BackupRepository that nobody claims, of that bucket and with these keys.
async fn describe(world: &World, name: &str, bucket: &str, secret: &str) -> Result<()> {
    let mut described = BackupRepository::new(name);
    described.repository_parameters = [
        ("region", world.var("AWS_REGION")),
        ("bucket", bucket),
        ("s3ForcePathStyle", "true"),
        ("s3Url", world.var("S3_ENDPOINT")),
        ("aws_access_key_id", world.var("AWS_ACCESS_KEY_ID")),
        ("aws_secret_access_key", secret),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    described.backup_repository_claim = "nobody".to_owned();
    described.allowed_namespaces = vec!["nowhere".to_owned()];
    let api: Api<BackupRepository> = Api::all(world.client());
    api.create(&PostParams::default(), &described).await.map(drop)?;
    Ok(())
}

async fn forget(world: &World, name: &str) -> Result<()> {
    let api: Api<BackupRepository> = Api::all(world.client());
    delete_if_there(&api, name).await
}

async fn doctor_names_each_trouble_and_what_helps(world: World) -> Result<()> {
    as_if_nobody_had_been_here(&world).await?;
    programs_are_said_to_run(&world).await?;
    let shop = world.namespace("troubled").await?;
    shop.claim("data").mib(1).create().await?;
    vcenter_refuses(&world).await?;
    the_cluster_is_not_as_the_chart_made_it(&world).await?;
    the_bucket_refuses(&world).await?;
    let gone = doctor(&world, &["--kubeconfig", "/nowhere/kubeconfig"]).await?;
    ensure!(gone.code == 1 && gone.says("cluster", "problem", &["/nowhere/kubeconfig"]).is_ok(), "{:#}", gone.document);
    let told = doctor(&world, &[]).await?;
    ensure!(told.code == 0, "all was put right again: {:#}", told.document);
    Ok(())
}

async fn vcenter_refuses(world: &World) -> Result<()> {
    let control = world.control();
    let disks = control.disks().await?;
    let datastore = disks[0]["datastore"].as_str().context("a datastore")?.to_owned();
    let lacks = json!([
        {"privilege": "Datastore.FileManagement", "entity": datastore},
        {"privilege": "VirtualMachine.Config.ChangeTracking"},
    ]);
    let none = json!([]);
    let told = while_wrong(world, control.tell("/lacks", &lacks), control.tell("/lacks", &none)).await?;
    let words = ["lacks Datastore.FileManagement on datastore", &datastore, "Low level file operations"];
    told.has("privileges", Reason::VCenterPermission, &words)?;
    told.says("privileges", "warning", &["VirtualMachine.Config.ChangeTracking", "virtual machine node-b"])?;

    let text = configuration(world).await?;
    let wrong = with(&text, "password", "not-the-password")?;
    let told = while_wrong(world, configure(world, &wrong), configure(world, &text)).await?;
    told.has("vcenter", Reason::VCenterLoginRefused, &[world.var("VCENTER_USER")])?;
    ensure!(!told.document.to_string().contains("not-the-password"), "it tells the password");

    let stranger = with(&text, "thumbprint", &["AB"; 32].join(":"))?;
    let told = while_wrong(world, configure(world, &stranger), configure(world, &text)).await?;
    told.has("vcenter", Reason::VCenterCertificateUntrusted, &["certificate"])?;

    // W-32: who wants no certificate to be checked gets it, and is told
    let pinned = text.lines().find(|line| line.trim_start().starts_with("thumbprint")).context("a thumbprint")?;
    let unchecked = text.replace(pinned, "insecure-flag = true");
    let told = while_wrong(world, configure(world, &unchecked), configure(world, &text)).await?;
    let words = ["certificate is not checked", "insecure-flag", "csi-vsphere.conf", names::VCENTER_SECRET];
    let finding = told.says("vcenter", "warning", &words)?;
    let helps = |word: &str| finding["fix"].as_str().is_some_and(|fix| fix.contains(word));
    ensure!(helps("ca-file") && helps("thumbprint` = "), "it says {finding}");

    let elsewhere = text.replace(pinned, "ca-file = /nowhere/ca.crt");
    let told = while_wrong(world, configure(world, &elsewhere), configure(world, &text)).await?;
    let finding = told.says("vcenter", "problem", &["/nowhere/ca.crt", Reason::VCenterSecretInvalid.as_str()])?;
    ensure!(finding["fix"].as_str().is_some_and(|fix| fix.contains("where doctor runs")), "it says {finding}");

    let garbled = text.replace("[VirtualCenter", "VirtualCenter");
    let told = while_wrong(world, configure(world, &garbled), configure(world, &text)).await?;
    told.has("vcenter", Reason::VCenterSecretInvalid, &["line"])?;
    // where vCenter cannot be asked, nobody says that nothing is left over there
    told.says("leftovers", "warning", &["disk-snapshot", "could not be looked for"]).map(drop)
}

async fn the_cluster_is_not_as_the_chart_made_it(world: &World) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client());
    let name = "uploads.datamover.cnsdp.vmware.com";
    let ours = definitions.get(name).await?.spec;
    let mut originals = serde_json::to_value(&ours)?;
    let schema = &mut originals["versions"][0]["schema"]["openAPIV3Schema"];
    let words = schema["properties"]["status"]["properties"]["phase"]["enum"].as_array_mut().context("words")?;
    words.retain(|word| word != "UploadFailedAfterRetry");
    schema["properties"]["spec"]["properties"].as_object_mut().context("fields")?.remove("admitted");
    let write = async |spec: Value| {
        definitions.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await?;
        anyhow::Ok(())
    };
    // a merge patch would keep a field that is only missing in it
    originals["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["admitted"] = Value::Null;
    let told = while_wrong(world, write(originals), write(serde_json::to_value(&ours)?)).await?;
    let finding = told.says("definitions", "problem", &["the word UploadFailedAfterRetry in status.phase"])?;
    ensure!(finding["fix"].as_str().is_some_and(|fix| fix.contains("deploy/crds")), "it says {finding}");

    let roles: Api<ClusterRole> = Api::all(world.client());
    let role = "velero-vsphere:backup-driver";
    let whole = roles.get(role).await?.rules.context("rules")?;
    let mut cut = whole.clone();
    let volumes = Some(vec!["persistentvolumes".to_owned()]);
    cut.iter_mut().filter(|rule| rule.resources == volumes).for_each(|rule| rule.verbs.retain(|verb| verb != "patch"));
    let write = async |rules| {
        roles.patch(role, &PatchParams::default(), &Patch::Merge(json!({ "rules": rules }))).await?;
        anyhow::Ok(())
    };
    let told = while_wrong(world, write(cut), write(whole)).await?;
    told.has("rights", Reason::ClusterForbidden, &["account backup-driver may not patch persistentvolumes"])?;

    let set = |text| async move { world.set(names::CONFIG, &json!({"orphan-age": text})).await };
    let told = while_wrong(world, set(Some("soon")), set(None)).await?;
    told.says("settings", "warning", &["orphan-age is `soon`", Reason::SettingsInvalid.as_str()])?;
    let set = |retries, slip, local| async move {
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": retries, "transfer_rate_limits": slip})).await?;
        world.set(names::FEATURES, &json!({"local-mode": local})).await
    };
    let told = while_wrong(world, set(Some("many"), Some("5MiB/s"), Some("yes")), set(None, None, None)).await?;
    told.says("settings", "warning", &[names::CONFIG, "upload-cr-retry-max is `many`", "10 counts"])?;
    told.says("settings", "warning", &[names::CONFIG, "transfer_rate_limits", "transfer-rate-limit may be meant"])?;
    told.says("settings", "warning", &[names::FEATURES, "local-mode is `yes`", "`false` counts"])?;

    let map = names::BLOCKED_RESOURCES;
    let set = |word: Option<&'static str>| async move { world.set(map, &json!({"secrets": word})).await };
    let told = while_wrong(world, set(Some("maybe")), set(None)).await?;
    told.says("settings", "warning", &[map, "secrets is `maybe`", "it is blocked"])?;

    let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
    let own = secrets.get(names::REPOSITORY_KEY_SECRET).await?.data.context("the lab's own key")?;
    let write = async |data: BTreeMap<String, ByteString>| {
        let patch = Patch::Merge(json!({ "data": data }));
        secrets.patch(names::REPOSITORY_KEY_SECRET, &PatchParams::default(), &patch).await?;
        anyhow::Ok(())
    };
    let well_known = ByteString(b"static-passw0rd".to_vec());
    let known = [(names::REPOSITORY_PASSWORD.to_owned(), well_known)].into();
    let told = while_wrong(world, write(known), write(own)).await?;
    told.says("key", "warning", &[Reason::RepositoryPasswordDefault.as_str()]).map(drop)
}

async fn the_bucket_refuses(world: &World) -> Result<()> {
    let right = world.var("AWS_SECRET_ACCESS_KEY");
    let name = "described-by-hand";
    let told = while_wrong(world, describe(world, name, "there-is-none", right), forget(world, name)).await?;
    told.has("storage", Reason::BucketMissing, &[name, "there-is-none"])?;
    told.says("storage", "warning", &["S3 keys in clear", &format!("BackupRepository {name}"), "new keys"])?; // W-31
    ensure!(!told.document.to_string().contains(right), "it tells the key");
    let told = while_wrong(world, describe(world, name, world.var("S3_BUCKET"), "wrong"), forget(world, name)).await?;
    told.has("storage", Reason::StoreAccessDenied, &[name])?;
    let of_another_driver = async {
        let other = "s3repository.example.com".to_owned();
        let described = BackupRepository { repository_driver: other, ..BackupRepository::new(name) };
        let api: Api<BackupRepository> = Api::all(world.client());
        api.create(&PostParams::default(), &described).await.map(drop)?;
        anyhow::Ok(())
    };
    let told = while_wrong(world, of_another_driver, forget(world, name)).await?;
    told.has("storage", Reason::RepositoryInvalid, &[name, "s3repository.example.com"])
}

/// Waits until `is_so`.
async fn until<F: Future<Output = Result<bool>>>(what: &str, mut is_so: impl FnMut() -> F) -> Result<()> {
    let due = tokio::time::Instant::now() + DEADLINE;
    while !is_so().await? {
        if tokio::time::Instant::now() > due {
            bail!("waited {} s until {what}", DEADLINE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// A request to the S3 server with the lab's keys, as curl signs it.
async fn s3(world: &World, method: &str, path: &str) -> Result<String> {
    let user = format!("{}:{}", world.var("AWS_ACCESS_KEY_ID"), world.var("AWS_SECRET_ACCESS_KEY"));
    let sign = format!("aws:amz:{}:s3", world.var("AWS_REGION"));
    let url = format!("{}/{}", world.var("S3_ENDPOINT"), path);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--request", method]);
    curl.arg("--header").arg(format!("x-amz-content-sha256: {OF_NOTHING}"));
    let output = curl.args(["--aws-sigv4", &sign, "--user", &user, &url]).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{method} {path}: {text} {}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// The ids of the uploads in parts that are open in the lab's bucket.
async fn open_uploads(world: &World) -> Result<Vec<String>> {
    let text = s3(world, "GET", &format!("{}?uploads=", world.var("S3_BUCKET"))).await?;
    let ids = text.split("<UploadId>").skip(1).filter_map(|rest| rest.split("</UploadId>").next());
    Ok(ids.map(str::to_owned).collect())
}

async fn begin_upload(world: &World, key: &str) -> Result<String> {
    let text = s3(world, "POST", &format!("{}/{key}?uploads=", world.var("S3_BUCKET"))).await?;
    let id = text.split("<UploadId>").nth(1).and_then(|rest| rest.split("</UploadId>").next());
    id.map(str::to_owned).with_context(|| format!("an id in {text}"))
}

/// Makes an upload three days old: to the server it is a folder.
async fn grow_old(world: &World, id: &str) -> Result<()> {
    let parts = world.folder().join("s3").join(world.var("S3_BUCKET")).join(".sgwtmp/multipart");
    let found = folder_named(&parts, id)?.with_context(|| format!("upload {id} below {}", parts.display()))?;
    let touched = Command::new("touch").args(["--date", "3 days ago"]).arg(&found).status().await?;
    ensure!(touched.success(), "make {} old", found.display());
    Ok(())
}

fn folder_named(below: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(below).with_context(|| format!("list {}", below.display()))?.flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            return Ok(Some(path));
        }
        if path.is_dir()
            && let Some(found) = folder_named(&path, name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A restore point of a backup of Velero that is gone, with all that asked for it.
async fn lose_a_backup(world: &World, shop: &e2e::Namespace, claim: &str) -> Result<()> {
    let spec = SnapshotSpec {
        resource_handle: ResourceHandle::claim(claim),
        backup_repository: shop.repository().to_owned(),
        ..SnapshotSpec::default()
    };
    let mut asked = Snapshot::new("of-a-lost-backup", spec);
    let marks = [(labels::BACKUP_NAME, "lost"), (labels::BACKUP_UID, "0c1f6a52-0000-4000-8000-00000000dead")];
    asked.metadata.labels = Some(marks.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
    snapshots.create(&PostParams::default(), &asked).await?;
    let uploaded = |s: Option<&Snapshot>| s.and_then(Snapshot::phase) == Some(&SnapshotPhase::Uploaded);
    wait_until(&snapshots, "of-a-lost-backup", DEADLINE, "is uploaded", uploaded).await?;
    snapshots.delete("of-a-lost-backup", &DeleteParams::default()).await?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let of_shop = |upload: &&Upload| upload.spec.source_namespace.as_deref() == Some(shop.name());
    for upload in uploads.list(&ListParams::default()).await?.iter().filter(of_shop) {
        uploads.delete(&upload.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

/// Velero's backups as the API server has them.
fn backups(world: &World) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", "Backup"));
    Api::namespaced_with(world.client(), world.velero(), &kind)
}

async fn doctor_tells_what_is_left_over_and_the_driver_removes_what_is_old(world: World) -> Result<()> {
    as_if_nobody_had_been_here(&world).await?;
    let shop = world.namespace("leftover").await?;
    let outcome = what_is_left_over_is_told_and_goes(&world, &shop).await;
    let acts = [
        world.set(names::CONFIG, &json!({"orphaned-restore-points": null})).await,
        delete_if_there(&backups(&world), "kept").await,
        delete_if_there(&Api::<Lease>::namespaced(world.client(), world.velero()), &left_lease()).await,
        world.restart(DRIVER).await,
    ];
    put_right(outcome, acts)
}

/// Of a transfer that is gone.
fn left_lease() -> String {
    names::upload_lease("that-is-gone")
}

/// Waits until the driver has counted: it does so after it has removed something.
async fn counts(world: &World, metric: &str, kind: &str, is_so: impl Fn(u64) -> bool) -> Result<()> {
    let line = format!("vsphere_backup_{metric}{{kind=\"{kind}\",component=\"{DRIVER}\"}} ");
    until(&format!("the driver tells {line}as it should"), || async {
        let metrics = world.metrics(DRIVER).await?;
        let counted = metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok());
        Ok(counted.is_some_and(&is_so))
    })
    .await
}

async fn what_is_left_over_is_told_and_goes(world: &World, shop: &e2e::Namespace) -> Result<()> {
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(102)?;
    lose_a_backup(world, shop, "data").await?;
    let unclaimed = shop.repository_with(&[]).await?;

    // the driver dies with a disk snapshot that nobody will ask for again
    let lost = shop.claim("lost").mib(1).create().await?;
    let died = world.folder().join(format!("pods/{DRIVER}/scratch/died-after-SnapshotTaken"));
    let _ = std::fs::remove_file(&died);
    world.kill(DRIVER).await?;
    world.start_process_with(DRIVER, &[("BACKUP_DRIVER_DIE_AFTER", "SnapshotTaken")]).await?;
    let asked = shop.snapshot(&lost).await?;
    world.ended(DRIVER).await.context("the driver never took the disk snapshot")?;
    let _ = std::fs::remove_file(&died);
    asked.api().delete(&asked.name, &DeleteParams::default()).await?;
    let folder = format!("plugins/vsphere-restic-repo/{}", shop.name());
    let (old, young) =
        (begin_upload(world, &format!("{folder}/old")).await?, begin_upload(world, &format!("{folder}/young")).await?);
    grow_old(world, &old).await?;
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let of_unclaimed = |claim: &&BackupRepositoryClaim| claim.backup_repository.as_deref() == Some(&unclaimed);
    let name = claims.list(&ListParams::default()).await?.iter().find(of_unclaimed).map(|claim| claim.name_any());
    claims.delete(&name.context("its claim")?, &DeleteParams::default()).await?;

    let told = doctor(world, &[]).await?;
    told.says("leftovers", "warning", &["1 disk snapshot:", lost.disk.as_str()])?;
    let open = told.says("leftovers", "warning", &["upload in parts", "/old"])?;
    ensure!(!open.to_string().contains("young"), "a young one is told: {open}");
    told.says("leftovers", "ok", &["no restore point"])?;
    ensure!(open_uploads(world).await?.len() == 2 && lost.disk_snapshots().await?.len() == 1, "doctor changes nothing");

    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let lease = json!({
        "metadata": {"name": left_lease(), "labels": labels::ours()},
        "spec": {"holderIdentity": "a-node", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;

    let fast = [("ORPHAN_GRACE_SECONDS", "1"), ("LEFTOVERS_SECONDS", "1"), ("SWEEP_SECONDS", "1")];
    world.start_process_with(DRIVER, &fast).await?;
    until("the old upload and the disk snapshot are gone", || async {
        Ok(!open_uploads(world).await?.contains(&old) && lost.disk_snapshots().await?.is_empty())
    })
    .await?;
    wait_until(&leases, &left_lease(), DEADLINE, "is gone", |lease: Option<&Lease>| lease.is_none()).await?;
    for kind in ["disk-snapshot", "open-upload", "lease"] {
        counts(world, "orphans_removed_total", kind, |removed| removed >= 1).await?;
    }
    ensure!(open_uploads(world).await? == [young.clone()], "a young upload is not touched");

    let repositories: Api<BackupRepository> = Api::all(world.client());
    ensure!(repositories.get_opt(&unclaimed).await?.is_some(), "a young BackupRepository is not touched");
    // everything is old now; restore points stay nevertheless
    world.kill(DRIVER).await?;
    world.start_process_with(DRIVER, &[&fast[..], &[("ORPHAN_AGE_SECONDS", "1")]].concat()).await?;
    until("what is old is gone", || async {
        Ok(open_uploads(world).await?.is_empty() && repositories.get_opt(&unclaimed).await?.is_none())
    })
    .await?;
    ensure!(repositories.get_opt(shop.repository()).await?.is_some(), "a BackupRepository with a claim is not touched");
    let told_of = "the Velero backup of this restore point is gone";
    until("the restore point is told of", || async { Ok(world.logs(DRIVER).await?.contains(told_of)) }).await?;
    nothing_left(world, shop, 1).await?;
    let removed = "orphans_removed_total";
    for (metric, kind) in [("orphans", "restore-point"), (removed, "repository"), (removed, "open-upload")] {
        counts(world, metric, kind, |count| count >= 1).await?;
    }

    let kept = json!({
        "metadata": {"name": "kept"}, "spec": {"storageLocation": "default"}, "status": {"phase": "Failed"},
    });
    let mut kept: DynamicObject = serde_json::from_value(kept)?;
    kept.types = Some(kube::core::TypeMeta { api_version: "velero.io/v1".to_owned(), kind: "Backup".to_owned() });
    backups(world).create(&PostParams::default(), &kept).await?;
    world.set(names::CONFIG, &json!({"orphaned-restore-points": "remove"})).await?;
    nothing_left_soon(world, shop).await
}

/// Waits until a namespace has no restore point any more.
async fn nothing_left_soon(world: &World, shop: &e2e::Namespace) -> Result<()> {
    let points = world.repository_folder(shop.name()).join("snapshots");
    until("the restore point is gone", || async { Ok(std::fs::read_dir(&points).map_or(0, Iterator::count) == 0) })
        .await?;
    nothing_left(world, shop, 0).await
}
