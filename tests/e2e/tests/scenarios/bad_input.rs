//! Requests that cannot be met, and repositories that cannot be used: each ends with a reason, an event with cause and
//! fix, and nothing behind. Restores are in `bad_restores`.

use anyhow::{Context as _, Result, bail, ensure};
use api::conditions::{READY, get};
use api::entity::{DiskEntity, PvcSnapshotId};
use api::{
    BackupRepository, BackupRepositoryClaim, CloneFromSnapshotSpec, ClonePhase, Condition, Download, DownloadPhase,
    DownloadSpec, Reason, ResourceHandle, SnapshotPhase, SnapshotSpec, Timestamp, Upload, UploadPhase, UploadSpec,
    names,
};
use disk::DiskSnapshot;
use e2e::{BY_HAND, Claim, DEADLINE, Namespace, World, explained, nothing_left, wait_until, warned};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::jiff::SignedDuration;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use uuid::Uuid;

crate::scenarios![
    a_backup_of_a_claim_that_is_not_there_says_so,
    a_backup_of_an_unbound_claim_says_so,
    a_backup_of_another_drivers_volume_says_so,
    a_backup_of_another_kind_says_so,
    a_backup_into_an_unknown_repository_says_so,
    a_transfer_whose_repository_was_deleted_ends_at_once,
    a_backup_into_a_missing_bucket_says_so,
    a_backup_with_a_wrong_s3_key_says_so,
    a_backup_that_trusts_a_garbage_certificate_says_so,
    a_repository_claim_that_can_never_work_says_why,
    an_object_in_the_wrong_namespace_says_so,
    a_second_driver_refuses_to_start_beside_the_originals,
    transfers_that_ended_yesterday_are_removed,
    an_upload_whose_disk_snapshot_is_gone_ends_at_once,
    garbage_in_objects_stops_nobody_elses_backup,
    objects_of_the_original_are_accepted_and_come_back_unchanged,
    a_bucket_that_was_wiped_gets_a_new_repository,
];

/// The Snapshot fails for that reason before anything is made.
async fn is_refused(
    world: &World,
    namespace: &Namespace,
    asked: &e2e::Snapshot,
    reason: Reason,
    words: &[&str],
) -> Result<()> {
    let seen = asked.wait_for(SnapshotPhase::SnapshotFailed).await?;
    let status = seen.status.context("status")?;
    explained(world, namespace.name(), &asked.name, &status.conditions, reason, words).await?;
    let message = status.message.unwrap_or_default();
    ensure!(words.iter().all(|word| message.contains(word)), "status.message says it too: {message}");
    ensure!(status.completion_timestamp.is_some(), "an end has its time");
    ensure!(asked.upload().await.is_err(), "nothing was to be uploaded");
    nothing_left(world, namespace, 0).await
}

pub(crate) async fn back_up(namespace: &Namespace, claim: &Claim) -> Result<api::Snapshot> {
    namespace.snapshot(claim).await?.wait_for(SnapshotPhase::Uploaded).await
}

pub(crate) fn disk_snapshot(snapshot: &api::Snapshot) -> Result<DiskSnapshot> {
    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.as_ref()).context("a snapshot id")?;
    Ok(id.parse::<PvcSnapshotId>()?.disk_snapshot)
}

async fn a_backup_of_a_claim_that_is_not_there_says_so(world: World) -> Result<()> {
    let shop = world.namespace("missing").await?;
    let asked = shop.snapshot_of("nobody", shop.repository()).await?;
    let words = ["nobody does not exist", Reason::ClaimNotFound.fix()];
    is_refused(&world, &shop, &asked, Reason::ClaimNotFound, &words).await?;
    // W-49: the word that condition and event have is the one to alert on
    let counted = r#"vsphere_backup_transitions_total{kind="Snapshot",phase="SnapshotFailed",reason="ClaimNotFound""#;
    let metrics = world.metrics("backup-driver").await?;
    ensure!(metrics.contains(counted), "it is not counted:\n{metrics}");
    ensure!(world.metrics("data-manager-node-a").await?.contains("vsphere_backup_"), "a node has no metrics");
    Ok(())
}

async fn a_backup_of_an_unbound_claim_says_so(world: World) -> Result<()> {
    let shop = world.namespace("unbound").await?;
    shop.claim("waits").class("vsphere-wffc").create_unbound().await?;
    let asked = shop.snapshot_of("waits", shop.repository()).await?;
    let words = ["waits is Pending", Reason::ClaimNotBound.fix()];
    is_refused(&world, &shop, &asked, Reason::ClaimNotBound, &words).await
}

async fn a_backup_of_another_drivers_volume_says_so(world: World) -> Result<()> {
    let shop = world.namespace("foreign").await?;
    let name = format!("foreign-{}", Uuid::new_v4());
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let volume = json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "16Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": "other.example.com", "volumeHandle": "vol-1"},
            "claimRef": {"namespace": shop.name(), "name": "theirs"},
        },
    });
    volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
    let claim = json!({
        "metadata": {"name": "theirs"},
        "spec": {
            "storageClassName": "", "volumeName": name, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "16Mi"}},
        },
    });
    shop.claims().create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    wait_until(&shop.claims(), "theirs", DEADLINE, "is Bound", |claim| {
        claim.and_then(|c| c.status.as_ref()?.phase.as_deref()) == Some("Bound")
    })
    .await?;
    let asked = shop.snapshot_of("theirs", shop.repository()).await?;
    let words = ["of CSI driver `other.example.com`", Reason::ForeignDriver.fix()];
    is_refused(&world, &shop, &asked, Reason::ForeignDriver, &words).await?;
    volumes.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

async fn a_backup_of_another_kind_says_so(world: World) -> Result<()> {
    let shop = world.namespace("kind").await?;
    let spec = SnapshotSpec {
        resource_handle: ResourceHandle { kind: "Secret".to_owned(), ..ResourceHandle::claim("passwords") },
        backup_repository: shop.repository().to_owned(),
        ..SnapshotSpec::default()
    };
    let asked = shop.apply_snapshot(spec).await?;
    let words = ["of kind `Secret`", Reason::UnsupportedKind.fix()];
    is_refused(&world, &shop, &asked, Reason::UnsupportedKind, &words).await
}

async fn a_backup_into_an_unknown_repository_says_so(world: World) -> Result<()> {
    let shop = world.namespace("norepo").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    for nobody in ["br-nobody", "../x y", "br?force=1"] {
        let asked = shop.snapshot_of(&claim.name, nobody).await?;
        let words = [nobody, Reason::RepositoryUnknown.fix()];
        is_refused(&world, &shop, &asked, Reason::RepositoryUnknown, &words).await?;
    }
    Ok(())
}

/// W-27: both kinds; the original asked for it again without a pause, or every five minutes without end. M-2-9: it goes with
/// its claim.
async fn a_transfer_whose_repository_was_deleted_ends_at_once(world: World) -> Result<()> {
    let shop = world.namespace("brgone").await?;
    let (claim, target) = (shop.claim("data").mib(1).create().await?, shop.claim("target").mib(1).create().await?);
    let gone = shop.repository_with(&[]).await?;
    let repositories: Api<BackupRepository> = Api::all(world.client());
    let asked_by = repositories.get(&gone).await?.backup_repository_claim;
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    claims.delete(&asked_by, &DeleteParams::default()).await?;
    wait_until(&repositories, &gone, DEADLINE, "is gone", |r| r.is_none()).await?;
    let taken = DiskSnapshot { disk: claim.disk.clone(), snapshot: Uuid::new_v4().to_string().parse()? };

    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let spec = UploadSpec {
        snapshot_id: Some(DiskEntity::from(taken.clone()).to_string()),
        backup_repository: Some(gone.clone()),
        ..UploadSpec::default()
    };
    let upload = names::upload(&taken.snapshot);
    uploads.create(&PostParams::default(), &Upload::new(&upload, spec)).await?;
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let spec = DownloadSpec {
        snapshot_id: Some(DiskEntity::from(taken.clone()).to_string()),
        protected_entity_id: Some(DiskEntity::from(target.disk.clone()).to_string()),
        backup_repository_name: Some(gone.clone()),
        ..DownloadSpec::default()
    };
    let name = names::download(&taken.snapshot, Uuid::new_v4());
    downloads.create(&PostParams::default(), &Download::new(&name, spec)).await?;

    let (reason, words) = (Reason::RepositoryUnknown, [gone.as_str(), Reason::RepositoryUnknown.fix()]);
    let ended = wait_until(&uploads, &upload, DEADLINE, "has ended", |u| {
        u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
    });
    let status = ended.await?.and_then(|u| u.status).context("status")?;
    ensure!(status.phase == Some(UploadPhase::UploadFailedAfterRetry) && status.retry_count <= 1, "it is {status:#?}");
    explained(&world, world.velero(), &upload, &status.conditions, reason, &words).await?;
    let ended = wait_until(&downloads, &name, DEADLINE, "has ended", |d| {
        d.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
    });
    let status = ended.await?.and_then(|d| d.status).context("status")?;
    ensure!(status.phase == Some(DownloadPhase::Failed) && status.retry_count <= 1, "it is {status:#?}");
    explained(&world, world.velero(), &name, &status.conditions, reason, &words).await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_backup_into_a_missing_bucket_says_so(world: World) -> Result<()> {
    let shop = world.namespace("nobucket").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let repository = shop.repository_with(&[("bucket", "no-such-bucket")]).await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    let words = ["no-such-bucket", Reason::BucketMissing.fix()];
    is_refused(&world, &shop, &asked, Reason::BucketMissing, &words).await
}

async fn a_backup_with_a_wrong_s3_key_says_so(world: World) -> Result<()> {
    let shop = world.namespace("wrongkey").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let secret = "a-wrong-secret-key";
    let repository = shop.repository_with(&[("aws_secret_access_key", secret)]).await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    let words = ["open the repository", Reason::StoreAccessDenied.fix()];
    is_refused(&world, &shop, &asked, Reason::StoreAccessDenied, &words).await?;
    ensure!(!world.logs("backup-driver").await?.contains(secret), "the key stands in the log");
    Ok(())
}

async fn a_backup_that_trusts_a_garbage_certificate_says_so(world: World) -> Result<()> {
    let shop = world.namespace("badca").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let repository = shop.repository_with(&[("caCert", "no certificate at all")]).await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    let words = ["parameter `caCert`", Reason::RepositoryInvalid.fix()];
    is_refused(&world, &shop, &asked, Reason::RepositoryInvalid, &words).await
}

async fn a_repository_claim_that_can_never_work_says_why(world: World) -> Result<()> {
    let shop = world.namespace("badclaim").await?;
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let with = |changed: &[(&str, &str)]| {
        let mut claim = BackupRepositoryClaim::new(&format!("{BY_HAND}{}", Uuid::new_v4()));
        claim.repository_parameters = shop.parameters();
        let changed = changed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        claim.repository_parameters.extend(changed);
        claim.allowed_namespaces = Some(vec![shop.name().to_owned()]);
        claim
    };
    let bare = BackupRepositoryClaim { repository_parameters: Default::default(), ..with(&[]) };
    let foreign = BackupRepositoryClaim { repository_driver: "nfs.example.com".to_owned(), ..with(&[]) };
    let mut capital = with(&[("Bucket", "b")]);
    capital.repository_parameters.remove("bucket");
    let cases = [
        (bare, "`bucket` is missing"),
        (capital, "`bucket` is missing; `Bucket` is there, and names mind case"),
        (foreign, "nfs.example.com"),
        (with(&[("bucket", "my bucket")]), "`my bucket`"),
        (with(&[("s3Url", "ftp://store")]), "parameter `s3Url`"),
        (with(&[("caCert", "no certificate at all")]), "parameter `caCert`"),
    ];
    for (claim, why) in cases {
        let name = claims.create(&PostParams::default(), &claim).await?.name_any();
        let conditions_of = |c: &BackupRepositoryClaim| c.status.clone().map(|s| s.conditions).unwrap_or_default();
        let says = |status: &'static str| {
            move |c: Option<&BackupRepositoryClaim>| {
                c.is_some_and(|c| get(&conditions_of(c), READY).is_some_and(|ready| ready.status == status))
            }
        };
        let seen = wait_until(&claims, &name, DEADLINE, "says that it cannot work", says("False")).await?;
        let seen = seen.context("a claim")?;
        let words = [why, "make a new claim"];
        let reason = Reason::RepositoryInvalid;
        explained(&world, world.velero(), &name, &conditions_of(&seen), reason, &words).await?;
        // whoever made it waits for a name; the description can be corrected
        let repository = seen.backup_repository.context("it is answered all the same")?;
        let corrected = with(&[]);
        let corrected = json!({
            "repositoryDriver": corrected.repository_driver,
            "repopsitoryParameters": corrected.repository_parameters.into_iter()
                .map(|(key, value)| (key, json!(value))).chain([("caCert".to_owned(), Value::Null)])
                .collect::<serde_json::Map<_, _>>(),
        });
        let repositories: Api<BackupRepository> = Api::all(world.client());
        repositories.patch(&repository, &PatchParams::default(), &Patch::Merge(corrected)).await?;
        wait_until(&claims, &name, DEADLINE, "says that it was corrected", says("True")).await?;
        claims.delete(&name, &DeleteParams::default()).await?;
    }
    // what nobody reads keeps no claim from its repository, and is told
    let name = claims.create(&PostParams::default(), &with(&[("prefx", "team-a")])).await?.name_any();
    let told = |c: Option<&BackupRepositoryClaim>| {
        let conditions = c.and_then(|c| c.status.clone()).map(|s| s.conditions).unwrap_or_default();
        get(&conditions, READY).is_some_and(|ready| {
            ready.status == "True" && ready.message.contains("nobody reads parameter `prefx`; `prefix` may be meant")
        })
    };
    wait_until(&claims, &name, DEADLINE, "names the parameter that nobody reads", told).await?;
    warned(&world, world.velero(), &name, Reason::SettingsInvalid, &["`prefx`"]).await?;
    claims.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

async fn an_object_in_the_wrong_namespace_says_so(world: World) -> Result<()> {
    let shop = world.namespace("astray").await?;
    let name = format!("astray-{}", Uuid::new_v4());
    let kinds = [
        ("datamover", "Upload", json!({"spec": {"snapshotID": "ivd:d:s"}})),
        ("datamover", "Download", json!({"spec": {"snapshotID": "ivd:d:s"}})),
        ("backupdriver", "DeleteSnapshot", json!({"spec": {"snapshotID": "ivd:d:s", "backupRepository": "br-1"}})),
        (
            "backupdriver",
            "BackupRepositoryClaim",
            json!({"repositoryDriver": "x", "repopsitoryParameters": {}, "allowedNamespaces": []}),
        ),
    ];
    for (group, kind, mut object) in kinds {
        object["apiVersion"] = json!(format!("{group}.cnsdp.vmware.com/v1alpha1"));
        object["kind"] = json!(kind);
        let name = format!("{name}-{}", kind.to_lowercase());
        object["metadata"] = json!({"name": name});
        let api = dynamic(&world, &object, Some(shop.name()))?;
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await.context(kind)?;
        let (reason, words) = (Reason::WrongNamespace, [shop.name(), world.velero()]);
        warned(&world, shop.name(), &name, reason, &words).await.context(kind)?;
        // the event comes after the status, and is gone after an hour
        let status = api.get(&name).await?.data["status"].clone();
        let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone())
            .with_context(|| format!("{kind} says nothing: {status}"))?;
        explained(&world, shop.name(), &name, &conditions, reason, &words).await.context(kind)?;
        ensure!(status["phase"].is_null(), "{kind} was worked on: {status}");
        let said = conditions.first().map(|ready| json!(ready.message)).unwrap_or_default();
        ensure!(kind == "BackupRepositoryClaim" || status["message"] == said, "{kind}: {status}");
    }
    Ok(())
}

/// M-2-16: a cluster in which the original's Deployment was not removed. W-49: the log is JSON where that is asked for.
async fn a_second_driver_refuses_to_start_beside_the_originals(world: World) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.client(), world.velero());
    let original = json!({
        "metadata": {"name": "backup-driver-5d8f7c-x2x9z", "labels": {"name": "backup-driver", "component": "velero"}},
        "spec": {"nodeName": "node-a", "containers": [{"name": "backup-driver", "image": "backup-driver:v1.5.1"}]},
    });
    let name = pods.create(&PostParams::default(), &serde_json::from_value(original)?).await?.name_any();
    let runs = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status(&name, &PatchParams::default(), &runs).await?;
    let started = async {
        let env = [("POD_NAME", "second"), ("METRICS_ADDRESS", "127.0.0.1:0")];
        let old_manifest = ["-v=4", "--logtostderr", "--resync-period=10m", "--log-format", "json"];
        let mut second = world.beside_with("backup-driver", &old_manifest, &env).await?;
        let ended = tokio::time::timeout(DEADLINE, second.wait()).await;
        let ended = ended.context("it runs beside the original's driver")??;
        let log = std::fs::read_to_string(world.folder().join("logs/backup-driver-beside.log"))?;
        ensure!(!ended.success(), "it ended as if all were well:\n{log}");
        for word in [Reason::OriginalRunning.as_str(), &name, Reason::OriginalRunning.fix()] {
            ensure!(log.contains(word), "it does not say `{word}`:\n{log}");
        }
        let first: Value = serde_json::from_str(log.lines().next().unwrap_or_default())
            .with_context(|| format!("the first line is no JSON:\n{log}"))?;
        ensure!(first["message"] == "backup-driver starts" && first["namespace"] == world.velero(), "it says {first}");
        anyhow::Ok(())
    };
    let started = started.await;
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
    started
}

/// M-2-5: what is a day old goes, and not before.
async fn transfers_that_ended_yesterday_are_removed(world: World) -> Result<()> {
    let shop = world.namespace("yesterday").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(61)?;
    let asked = shop.snapshot(&claim).await?;
    let snapshot = asked.wait_for(SnapshotPhase::Uploaded).await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    clone.wait_for(ClonePhase::Completed).await?;
    let (upload, download) = (asked.upload().await?.name_any(), clone.download().await?.name_any());
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let ended = |hours_ago: i64| {
        let at = Timestamp::now() - SignedDuration::from_hours(hours_ago);
        Patch::Merge(json!({"status": {"completionTimestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}))
    };
    uploads.patch(&upload, &PatchParams::default(), &ended(23)).await?;
    downloads.patch(&download, &PatchParams::default(), &ended(25)).await?;
    wait_until(&downloads, &download, DEADLINE, "is removed", |d| d.is_none()).await?;
    ensure!(uploads.get_opt(&upload).await?.is_some(), "one that is 23 hours old was removed before its time");
    uploads.patch(&upload, &PatchParams::default(), &ended(25)).await?;
    wait_until(&uploads, &upload, DEADLINE, "is removed", |u| u.is_none()).await?;
    nothing_left(&world, &shop, 1).await // its restore point stays
}

async fn an_upload_whose_disk_snapshot_is_gone_ends_at_once(world: World) -> Result<()> {
    let shop = world.namespace("snapgone").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(41)?;
    back_up(&shop, &claim).await?;
    let gone = DiskSnapshot { disk: claim.disk.clone(), snapshot: Uuid::new_v4().to_string().parse()? };
    let spec = UploadSpec {
        snapshot_id: Some(DiskEntity::from(gone.clone()).to_string()),
        backup_repository: Some(shop.repository().to_owned()),
        source_namespace: Some(shop.name().to_owned()),
        ..UploadSpec::default()
    };
    let api: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let upload = api.create(&PostParams::default(), &Upload::new(&api::names::upload(&gone.snapshot), spec)).await?;
    let ended = wait_until(&api, &upload.name_any(), DEADLINE, "has ended", |u| {
        u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
    })
    .await?;
    let status = ended.and_then(|u| u.status).context("status")?;
    ensure!(status.phase == Some(UploadPhase::UploadFailedAfterRetry), "it is {status:#?}");
    ensure!(status.retry_count <= 1, "it was not tried again: {status:#?}");
    let words = [gone.snapshot.as_str(), Reason::SnapshotMissing.fix()];
    let conditions = &status.conditions;
    explained(&world, world.velero(), &upload.name_any(), conditions, Reason::SnapshotMissing, &words).await?;
    nothing_left(&world, &shop, 1).await
}

fn dynamic(world: &World, object: &Value, namespace: Option<&str>) -> Result<Api<DynamicObject>> {
    let kind = object["kind"].as_str().context("an object has a kind")?;
    let group = if matches!(kind, "Upload" | "Download") { "datamover" } else { "backupdriver" };
    let gvk = GroupVersionKind::gvk(&format!("{group}.cnsdp.vmware.com"), "v1alpha1", kind);
    let plural = match kind {
        "BackupRepository" => "backuprepositories".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    let resource = kube::core::ApiResource::from_gvk_with_plural(&gvk, &plural);
    Ok(match namespace {
        Some(namespace) => Api::namespaced_with(world.client(), namespace, &resource),
        None => Api::all_with(world.client(), &resource),
    })
}

async fn garbage_in_objects_stops_nobody_elses_backup(world: World) -> Result<()> {
    let shop = world.namespace("garbage").await?;
    let listed: Vec<Value> = serde_json::from_str(include_str!("../../../../crates/api/testdata/garbage.json"))?;
    let mut made = Vec::new();
    for mut object in listed {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let namespace = match kind.as_str() {
            "BackupRepository" => None,
            "Snapshot" | "CloneFromSnapshot" => Some(shop.name()),
            _ => Some(world.velero()),
        };
        object["metadata"]["name"] = json!(format!("garbage-{}", Uuid::new_v4()));
        let api = dynamic(&world, &object, namespace)?;
        let group = if matches!(kind.as_str(), "Upload" | "Download") { "datamover" } else { "backupdriver" };
        object["apiVersion"] = json!(format!("{group}.cnsdp.vmware.com/v1alpha1"));
        match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
            Ok(object) => made.push((api, object)),
            Err(kube::Error::Api(said)) if said.code == 422 || said.code == 400 => {} // the schema caught it
            Err(other) => return Err(other).context("the API server should take it or say what is wrong with it"),
        }
    }
    ensure!(made.len() >= 3, "some garbage passes the schema, or this scenario says nothing");

    nonsense_ends(&world, &shop).await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(49)?;
    let snapshot = back_up(&shop, &claim).await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    for (api, object) in made {
        match api.delete(&object.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(said)) if said.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Well-formed objects with ids that mean nothing end with a reason; phases that mean nothing are refused.
async fn nonsense_ends(world: &World, shop: &Namespace) -> Result<()> {
    let (clones, uploads, downloads) = (
        Api::<api::CloneFromSnapshot>::namespaced(world.client(), shop.name()),
        Api::<Upload>::namespaced(world.client(), world.velero()),
        Api::<Download>::namespaced(world.client(), world.velero()),
    );
    let name = format!("nonsense-{}", Uuid::new_v4());
    let (upload_name, download_name) = (format!("upload-{name}"), format!("download-{name}"));
    let spec = CloneFromSnapshotSpec {
        snapshot_id: "no id".to_owned(),
        kind: api::CLAIM_KIND.to_owned(),
        ..CloneFromSnapshotSpec::default()
    };
    clones.create(&PostParams::default(), &api::CloneFromSnapshot::new(&name, spec)).await?;
    let spec = UploadSpec { snapshot_id: Some("no id".to_owned()), ..UploadSpec::default() };
    let mut upload = Upload::new(&upload_name, spec);
    upload.status = Some(serde_json::from_value(json!({"phase": "Paused"}))?);
    let refused = uploads.create(&PostParams::default(), &upload).await;
    ensure!(matches!(refused, Err(kube::Error::Api(said)) if said.code == 422), "the schema knows the phases");
    upload.status = None;
    uploads.create(&PostParams::default(), &upload).await?;
    let spec = DownloadSpec { protected_entity_id: Some("::".to_owned()), ..DownloadSpec::default() };
    downloads.create(&PostParams::default(), &Download::new(&download_name, spec)).await?;

    let invalid = Reason::InvalidSpec;
    let seen = wait_until(&clones, &name, DEADLINE, "is Failed", |c| {
        c.and_then(api::CloneFromSnapshot::phase) == Some(&ClonePhase::Failed)
    });
    let conditions = seen.await?.and_then(|c| c.status).context("status")?.conditions;
    explained(world, shop.name(), &name, &conditions, invalid, &["no id", invalid.fix()]).await?;
    let seen = wait_until(&uploads, &upload_name, DEADLINE, "is UploadFailedAfterRetry", |u| {
        u.and_then(Upload::phase) == Some(&UploadPhase::UploadFailedAfterRetry)
    });
    let conditions = seen.await?.and_then(|u| u.status).context("status")?.conditions;
    explained(world, world.velero(), &upload_name, &conditions, invalid, &["no id", invalid.fix()]).await?;
    let seen = wait_until(&downloads, &download_name, DEADLINE, "is Failed", |d| {
        d.and_then(Download::phase) == Some(&DownloadPhase::Failed)
    });
    let conditions = seen.await?.and_then(|d| d.status).context("status")?.conditions;
    explained(world, world.velero(), &download_name, &conditions, invalid, &[invalid.fix()]).await
}

async fn objects_of_the_original_are_accepted_and_come_back_unchanged(world: World) -> Result<()> {
    let shop = world.namespace("original").await?;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/api/testdata");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        if file.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let mut sample: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&file)?)?;
        let cluster_wide = sample["kind"] == "BackupRepository";
        let metadata = sample["metadata"].as_object_mut().context("metadata")?;
        metadata.remove("uid"); // the server gives its own
        metadata.remove("namespace");
        if !cluster_wide {
            metadata.insert("namespace".to_owned(), json!(shop.name()));
        }
        let api = dynamic(&world, &sample, (!cluster_wide).then(|| shop.name()))?;
        let back = round_trip(&api, &sample).await.with_context(|| format!("{}", file.display()))?;
        for (field, want) in sample.as_object().context("an object")? {
            let got = &back[field];
            match field.as_str() {
                "metadata" => ensure!(got["labels"] == want["labels"] && got["name"] == want["name"], "{got} {want}"),
                _ => ensure!(got == want, "{}: {field} came back as {got}, not {want}", file.display()),
            }
        }
        if cluster_wide {
            api.delete(back["metadata"]["name"].as_str().unwrap_or_default(), &DeleteParams::default()).await?;
        }
    }
    ensure!(seen == 7, "one sample a kind; there are {seen}");
    Ok(())
}

/// What the API server answers when the object is made and its status is written, as the original does.
async fn round_trip(api: &Api<DynamicObject>, sample: &Value) -> Result<Value> {
    let object: DynamicObject = serde_json::from_value(sample.clone())?;
    let made = api.create(&PostParams::default(), &object).await?;
    let back = serde_json::to_value(&made)?;
    let Some(status) = sample.get("status") else { return Ok(back) };
    if back.get("status") == Some(status) {
        return Ok(back); // no status subresource: it came with the object
    }
    let (mut with_status, mut tries) = (made, 0);
    let written = loop {
        tries += 1;
        with_status.data["status"] = status.clone();
        match api.replace_status(&with_status.name_any(), &PostParams::default(), &with_status).await {
            // the driver was faster: it says of a kind that lies elsewhere that nobody reads it
            Err(kube::Error::Api(answer)) if answer.code == 409 && tries < 5 => {
                with_status = api.get(&with_status.name_any()).await?;
            }
            written => break written,
        }
    };
    match written {
        Ok(written) => Ok(serde_json::to_value(&written)?),
        Err(error) => bail!("write the status: {error}"),
    }
}

async fn a_bucket_that_was_wiped_gets_a_new_repository(world: World) -> Result<()> {
    let shop = world.namespace("wiped").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(58)?;
    shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    std::fs::remove_dir_all(world.repository_folder(shop.name()))?;
    // driver and data-managers have the old one open, with a key that nothing in the bucket was sealed with any more
    let snapshot = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    world.restic(shop.name()).check().await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 1).await
}
