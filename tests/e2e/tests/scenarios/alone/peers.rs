//! S3, vCenter and the disk library: away, distrusted, wrong or missing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, Reason, SnapshotPhase, UploadPhase, conditions, names};
use e2e::{Claim, DEADLINE, DiskFault, Namespace, World, explained, nothing_left, wait_until, warned};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::{DATA_MANAGERS, back_up};

crate::scenarios![
    a_backup_survives_an_s3_server_that_goes_away_in_the_middle,
    a_key_that_is_refused_in_the_middle_is_named_and_the_upload_goes_on_with_it,
    the_transport_of_a_disk_is_told_and_follows_the_setting,
    a_vcenter_that_is_not_trusted_gets_no_password,
    a_wrong_password_does_not_lock_the_account,
    programs_start_without_the_vcenter_secret_and_take_it_when_it_is_made,
    the_vcenter_secret_is_found_where_the_settings_say,
    what_the_user_sets_of_the_disk_library_is_in_use_and_a_mistake_in_it_is_told,
    a_missing_disk_library_is_named_and_everything_else_works,
    a_disk_library_that_hangs_is_ended,
    a_disk_deleted_between_snapshot_and_upload_ends_the_backup,
    a_repository_key_that_everybody_knows_is_warned_about,
    a_role_that_was_cut_is_named_on_the_backup_that_waits_for_it,
    an_upload_is_tried_as_often_as_the_settings_say_and_no_more,
];

async fn a_backup_survives_an_s3_server_that_goes_away_in_the_middle(world: World) -> Result<()> {
    let shop = world.namespace("s3gone").await?;
    let claim = shop.claim("data").mib(64).create().await?;
    claim.fill_random(71)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    asked.copying().await?;
    world.kill("s3").await?;
    world.control().heal(claim.disk.as_str()).await?;
    let failed = asked.wait_for(SnapshotPhase::UploadFailed).await;
    world.start_process("s3").await?;
    let conditions = failed?.status.context("status")?.conditions;
    let reason = Reason::StoreUnreachable;
    explained(&world, shop.name(), &asked.name, &conditions, reason, &[reason.fix()]).await?;
    asked.wait_for_within(SnapshotPhase::Uploaded, DEADLINE + Duration::from_secs(60)).await?;
    world.restic(shop.name()).check().await?;
    nothing_left(&world, &shop, 1).await
}

/// The store answers 403 from the middle of an upload on, as after a change of its policy that somebody takes back.
async fn a_key_that_is_refused_in_the_middle_is_named_and_the_upload_goes_on_with_it(world: World) -> Result<()> {
    let shop = world.namespace("refused").await?;
    let claim = shop.claim("data").mib(64).create().await?;
    claim.fill_random(76)?;
    let bucket = world.bucket("refused").await?;
    let repository = shop.repository_with(&[("bucket", bucket.name())]).await?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    asked.copying().await?;
    bucket.give_to(&world, world.var("LAB_S3_SECOND_ACCESS_KEY_ID")).await?;
    world.control().heal(claim.disk.as_str()).await?;
    let failed = asked.wait_for(SnapshotPhase::UploadFailed).await;
    bucket.give_to(&world, world.var("AWS_ACCESS_KEY_ID")).await?;
    let conditions = failed?.status.context("status")?.conditions;
    let reason = Reason::StoreAccessDenied;
    let words = ["access denied", bucket.name(), reason.fix()];
    explained(&world, shop.name(), &asked.name, &conditions, reason, &words).await?;
    let snapshot = asked.wait_for_within(SnapshotPhase::Uploaded, DEADLINE + Duration::from_secs(60)).await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 0).await // the lab's own bucket has none of it
}

async fn the_transport_of_a_disk_is_told_and_follows_the_setting(world: World) -> Result<()> {
    let shop = world.namespace("transport").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(77)?;
    let told = |all: &[Condition], words: &str| -> Result<()> {
        let told = conditions::get(all, conditions::TRANSPORT).context("it says how its data moves")?;
        ensure!(told.status == "True" && told.message.contains(words), "`{words}` is not in {told:?}");
        Ok(())
    };
    let unencrypted = async {
        for name in DATA_MANAGERS {
            world.kill(name).await?;
            world.start_process_with(name, &[("VDDK_TRANSPORT_MODES", "nbd:nbdssl")]).await?;
        }
        let asked = shop.snapshot(&claim).await?;
        let snapshot = asked.wait_for(SnapshotPhase::Uploaded).await?;
        let words = "by nbd, which is not encrypted; allowed, best first: nbd, nbdssl";
        told(&asked.upload().await?.status.context("status")?.conditions, words)?;
        let clone = shop.clone_as(&snapshot, "back").await?;
        clone.wait_for(ClonePhase::Completed).await?;
        told(&clone.download().await?.status.context("status")?.conditions, words)
    };
    let unencrypted = unencrypted.await;
    for name in DATA_MANAGERS {
        world.kill(name).await?;
        world.start_process(name).await?;
    }
    unencrypted?;
    let asked = shop.snapshot(&claim).await?;
    asked.wait_for(SnapshotPhase::Uploaded).await?;
    told(&asked.upload().await?.status.context("status")?.conditions, "by nbdssl; allowed, best first: nbdssl, nbd")?;
    nothing_left(&world, &shop, 2).await
}

/// Text of the vCenter Secret.
pub(super) async fn configuration(world: &World) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
    let secret = secrets.get(names::VCENTER_SECRET).await?;
    let ByteString(text) = secret.data.and_then(|mut d| d.remove("csi-vsphere.conf")).context("the Secret's key")?;
    Ok(String::from_utf8(text)?)
}

pub(super) async fn configure(world: &World, text: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
    let patch = json!({"data": {"csi-vsphere.conf": ByteString(text.as_bytes().to_vec())}});
    secrets.patch(names::VCENTER_SECRET, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The configuration with another value for one key.
pub(super) fn with(text: &str, key: &str, value: &str) -> Result<String> {
    let is_it = |line: &str| line.trim_start().starts_with(key);
    ensure!(text.lines().any(is_it), "the configuration has no {key}");
    let lines = text.lines().map(|line| if is_it(line) { format!("{key} = \"{value}\"") } else { line.to_owned() });
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// A backup fails before anything is made while the Secret says that; returns once the Secret is as before.
async fn fails_with_secret(world: &World, shop: &Namespace, secret: &str, reason: Reason, times: usize) -> Result<()> {
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(72)?;
    let before = configuration(world).await?;
    configure(world, secret).await?;
    let mut outcome = Ok(());
    for _ in 0..times {
        let once = async {
            let asked = shop.snapshot(&claim).await?;
            let seen = asked.wait_for(SnapshotPhase::SnapshotFailed).await?;
            let conditions = seen.status.context("status")?.conditions;
            let words = ["take the disk snapshot", "in the vCenter Secret"];
            explained(world, shop.name(), &asked.name, &conditions, reason, &words).await
        };
        outcome = outcome.and(once.await);
    }
    configure(world, &before).await?;
    outcome?;
    nothing_left(world, shop, 0).await?;
    back_up(shop, &claim).await.context("a corrected Secret is taken up by itself")?;
    nothing_left(world, shop, 1).await
}

async fn a_vcenter_that_is_not_trusted_gets_no_password(world: World) -> Result<()> {
    let shop = world.namespace("untrusted").await?;
    let logins = world.control().logins().await?;
    let other = ["AB"; 32].join(":");
    let text = with(&configuration(&world).await?, "thumbprint", &other)?;
    fails_with_secret(&world, &shop, &text, Reason::VCenterCertificateUntrusted, 1).await?;
    let now = world.control().logins().await?;
    ensure!(now["refused"] == logins["refused"], "credentials went to a stranger: {logins}, then {now}");
    Ok(())
}

async fn a_wrong_password_does_not_lock_the_account(world: World) -> Result<()> {
    let shop = world.namespace("password").await?;
    let refused = |logins: serde_json::Value| logins["refused"].as_u64().context("a count of refused logins");
    let before = refused(world.control().logins().await?)?;
    let text = with(&configuration(&world).await?, "password", "not-the-password")?;
    fails_with_secret(&world, &shop, &text, Reason::VCenterLoginRefused, 5).await?;
    let more = refused(world.control().logins().await?)? - before;
    ensure!((1..=3).contains(&more), "{more} refused logins; an account is locked after a few");
    let log = world.logs("backup-driver").await?;
    ensure!(!log.contains("not-the-password"), "the password stands in the log");
    Ok(())
}

/// W-29: right after the installation nobody has made it yet.
async fn programs_start_without_the_vcenter_secret_and_take_it_when_it_is_made(world: World) -> Result<()> {
    let shop = world.namespace("nosecret").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(78)?;
    let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
    let before = secrets.get(names::VCENTER_SECRET).await?;
    secrets.delete(names::VCENTER_SECRET, &DeleteParams::default()).await?;
    let outcome = async {
        for name in DATA_MANAGERS.into_iter().chain(["backup-driver"]) {
            world.kill(name).await?;
            world.start_process(name).await.with_context(|| format!("{name} does not start"))?;
        }
        let asked = shop.snapshot(&claim).await?;
        let seen = asked.wait_for(SnapshotPhase::SnapshotFailed).await?;
        let conditions = seen.status.context("status")?.conditions;
        let reason = Reason::VCenterSecretMissing;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &[names::VCENTER_SECRET, reason.fix()]).await
    };
    let outcome = outcome.await;
    let mut again = Secret { data: before.data, type_: before.type_, ..Secret::default() };
    again.metadata.name = Some(names::VCENTER_SECRET.to_owned());
    secrets.create(&PostParams::default(), &again).await?;
    outcome?;
    back_up(&shop, &claim).await.context("it is taken up without a restart")?;
    nothing_left(&world, &shop, 1).await
}

/// Makes vCenter's Secret elsewhere, with what the chart's value `vcenterSecret` gives our accounts there.
pub(super) async fn secret_elsewhere(world: &World, namespace: &str, name: &str, text: &str) -> Result<()> {
    let post = PostParams::default();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client());
    match namespaces.create(&post, &serde_json::from_value(json!({"metadata": {"name": namespace}}))?).await {
        Err(kube::Error::Api(said)) if said.code == 409 => {}
        made => drop(made?),
    }
    let metadata = json!({"name": name});
    let secret = json!({"metadata": metadata, "stringData": {"csi-vsphere.conf": text}});
    Api::<Secret>::namespaced(world.client(), namespace).create(&post, &serde_json::from_value(secret)?).await?;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name],
        "verbs": ["get", "list", "watch"]}]);
    let role = json!({"metadata": metadata, "rules": rules});
    Api::<Role>::namespaced(world.client(), namespace).create(&post, &serde_json::from_value(role)?).await?;
    let subjects = [names::DRIVER, names::DATA_MANAGER]
        .map(|account| json!({"kind": "ServiceAccount", "name": account, "namespace": world.velero()}));
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let binding = json!({"metadata": metadata, "roleRef": role, "subjects": subjects});
    Api::<RoleBinding>::namespaced(world.client(), namespace).create(&post, &serde_json::from_value(binding)?).await?;
    Ok(())
}

/// M-7-8: under a name of the user's own, and the CSI driver's Secret under both its names. The usual one is good for nothing.
async fn the_vcenter_secret_is_found_where_the_settings_say(world: World) -> Result<()> {
    let shop = world.namespace("elsewhere").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let before = configuration(&world).await?;
    configure(&world, "[Global]\n").await?;
    let own = json!({"vsphere_secret_namespace": shop.name(), "vsphere_secret_name": "our-vcenter"});
    let none = json!({"vsphere_secret_namespace": null, "vsphere_secret_name": null});
    let (shared, not) = (json!({"decouple-vsphere-csi-driver": "false"}), json!({"decouple-vsphere-csi-driver": null}));
    let csi = "vmware-system-csi";
    let cases = [
        (names::CONFIG, &own, &none, shop.name(), "our-vcenter"),
        (names::FEATURES, &shared, &not, csi, names::CSI_SECRETS[0]),
        (names::FEATURES, &shared, &not, csi, names::CSI_SECRETS[1]),
    ];
    let mut outcome = Ok(());
    for (map, set, unset, namespace, name) in cases {
        let once = async {
            secret_elsewhere(&world, namespace, name, &before).await?;
            world.set(map, set).await?;
            back_up(&shop, &claim).await.with_context(|| format!("with Secret {namespace}/{name}"))
        };
        outcome = outcome.and(once.await.map(drop));
        world.set(map, unset).await?;
        let delete = DeleteParams::default();
        Api::<Secret>::namespaced(world.client(), namespace).delete(name, &delete).await?;
        Api::<Role>::namespaced(world.client(), namespace).delete(name, &delete).await?;
        Api::<RoleBinding>::namespaced(world.client(), namespace).delete(name, &delete).await?;
    }
    configure(&world, &before).await?;
    outcome?;
    nothing_left(&world, &shop, cases.len()).await
}

/// M-7-7: a change counts for the next disk, and what the library would not understand holds up no backup.
async fn what_the_user_sets_of_the_disk_library_is_in_use_and_a_mistake_in_it_is_told(world: World) -> Result<()> {
    let shop = world.namespace("vddkset").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(79)?;
    let (nfc, transport) = ("vixDiskLib.nfc.LogLevel", "vixDiskLib.transport.LogLevel");
    world.set(names::VDDK_CONFIG, &json!({nfc: "4", transport: "loud"})).await?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    let outcome = async {
        let process = asked.copying().await?;
        let mut found = Vec::new();
        for folder in std::fs::read_dir(world.folder().join("pods").join(process).join("scratch"))? {
            found.extend(std::fs::read_to_string(folder?.path().join("vddk.conf")).ok());
        }
        let [config] = &found[..] else { anyhow::bail!("one disk is open, with one configuration: {found:?}") };
        for line in ["vixDiskLib.nfc.LogLevel=4", "vixDiskLib.transport.LogLevel=3"] {
            ensure!(config.lines().any(|l| l == line), "`{line}` is not in\n{config}");
        }
        let name = asked.upload().await?.name_any();
        let words = [names::VDDK_CONFIG, "vixDiskLib.transport.LogLevel is `loud`: a level from 0 to 6"];
        warned(&world, world.velero(), &name, Reason::SettingsInvalid, &words).await
    };
    let outcome = outcome.await;
    world.set(names::VDDK_CONFIG, &json!({nfc: null, transport: null})).await?;
    world.control().heal(claim.disk.as_str()).await?;
    outcome?;
    asked.wait_for(SnapshotPhase::Uploaded).await?;
    nothing_left(&world, &shop, 1).await
}

fn libraries(world: &World) -> [PathBuf; 2] {
    DATA_MANAGERS.map(|name| world.folder().join("pods").join(name).join("vddkLibs/lib64/libvixDiskLib.so.8"))
}

async fn a_missing_disk_library_is_named_and_everything_else_works(world: World) -> Result<()> {
    let shop = world.namespace("nolib").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(73)?;
    let aside = |library: &PathBuf| library.with_extension("aside");
    for library in libraries(&world) {
        std::fs::rename(&library, aside(&library))?;
    }
    let outcome = async {
        let asked = shop.snapshot(&claim).await?;
        let seen = asked.wait_for(SnapshotPhase::UploadFailed).await?;
        let conditions = seen.status.context("status")?.conditions;
        let reason = Reason::VddkLibraryMissing;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &["vddkLibs", reason.fix()]).await?;
        anyhow::Ok(asked)
    }
    .await;
    for library in libraries(&world) {
        std::fs::rename(aside(&library), &library)?;
    }
    outcome?.cancel().await?;
    nothing_left(&world, &shop, 0).await?;
    back_up(&shop, &claim).await.context("the library is found without a restart")?;
    nothing_left(&world, &shop, 1).await
}

async fn a_disk_library_that_hangs_is_ended(world: World) -> Result<()> {
    let shop = world.namespace("hangs").await?;
    let claim = shop.claim("data").mib(4).create().await?;
    claim.fill_random(74)?;
    for name in DATA_MANAGERS {
        world.kill(name).await?;
        world.start_process_with(name, &[("DISK_CALL_DEADLINE", "3")]).await?;
    }
    world.control().disk_fault(&DiskFault::new(claim.disk.as_str(), "Read", "hang")).await?;
    let outcome = async {
        let asked = shop.snapshot(&claim).await?;
        let seen = asked.wait_for(SnapshotPhase::UploadFailed).await?;
        let conditions = seen.status.context("status")?.conditions;
        let reason = Reason::VddkHung;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &["back up the disk", reason.fix()]).await?;
        anyhow::Ok(asked)
    }
    .await;
    world.control().heal(claim.disk.as_str()).await?;
    for name in DATA_MANAGERS {
        world.kill(name).await?;
        world.start_process(name).await?;
    }
    outcome?.cancel().await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_disk_deleted_between_snapshot_and_upload_ends_the_backup(world: World) -> Result<()> {
    let shop = world.namespace("diskgone").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    for name in DATA_MANAGERS {
        world.kill(name).await?;
    }
    let asked = shop.snapshot(&claim).await?;
    let upload = asked.upload_when_made().await?;
    world.control().remove_disk(claim.disk.as_str()).await?;
    for name in DATA_MANAGERS {
        world.start_process(name).await?;
    }
    let seen = asked.wait_for(SnapshotPhase::UploadFailedAfterRetry).await?;
    let conditions = seen.status.context("status")?.conditions;
    let reason = Reason::DiskMissing;
    explained(&world, shop.name(), &asked.name, &conditions, reason, &[claim.disk.as_str(), reason.fix()]).await?;
    let status = asked.upload().await?.status.context("status")?;
    ensure!(status.phase == Some(UploadPhase::UploadFailedAfterRetry), "it is {status:#?}");
    let name = upload.name_any();
    explained(&world, world.velero(), &name, &status.conditions, reason, &[reason.fix()]).await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_repository_key_that_everybody_knows_is_warned_about(world: World) -> Result<()> {
    let shop = world.namespace("wellknown").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
    let name = names::REPOSITORY_KEY_SECRET;
    let own = secrets.get(name).await?.data.context("the lab's own key")?;
    let write = async |data: &std::collections::BTreeMap<String, ByteString>| {
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "data": data }))).await.map(drop)
    };
    let well_known = ByteString(b"static-passw0rd".to_vec());
    write(&[(names::REPOSITORY_PASSWORD.to_owned(), well_known)].into()).await?;
    let outcome = async {
        let asked = shop.snapshot(&claim).await?;
        asked.wait_for(SnapshotPhase::Uploaded).await?;
        asked.told(Reason::RepositoryPasswordDefault).await
    }
    .await;
    write(&own).await?;
    outcome
}

async fn a_role_that_was_cut_is_named_on_the_backup_that_waits_for_it(world: World) -> Result<()> {
    let shop = world.namespace("norole").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let roles: Api<ClusterRole> = Api::all(world.client());
    let name = "velero-vsphere:backup-driver";
    let whole = roles.get(name).await?.rules.context("rules")?;
    let is_for = |rule: &PolicyRule| rule.resources.as_deref() == Some(&["persistentvolumes".to_owned()]);
    ensure!(whole.iter().any(is_for), "the role has a rule for volumes");
    let mut cut = whole.clone();
    cut.iter_mut().filter(|rule| is_for(rule)).for_each(|rule| rule.verbs.retain(|verb| verb != "get"));
    let write = async |rules: &[PolicyRule]| {
        roles.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "rules": rules }))).await.map(drop)
    };
    write(&cut).await?;
    let waits = async {
        let asked = shop.snapshot(&claim).await?;
        let is_told = |s: Option<&api::Snapshot>| {
            let conditions = s.and_then(|s| s.status.as_ref()).map(|s| s.conditions.as_slice()).unwrap_or_default();
            conditions.iter().any(|c| c.reason == Reason::ClusterForbidden.as_str())
        };
        let told = wait_until(&asked.api(), &asked.name, DEADLINE, "says that the role was cut", is_told).await?;
        let conditions = told.and_then(|s| s.status).context("a status")?.conditions;
        let words = ["persistentvolumes", Reason::ClusterForbidden.fix()];
        explained(&world, shop.name(), &asked.name, &conditions, Reason::ClusterForbidden, &words).await?;
        anyhow::Ok(asked)
    }
    .await;
    write(&whole).await?;
    waits?.wait_for(SnapshotPhase::Uploaded).await.context("it goes on by itself")?;
    nothing_left(&world, &shop, 1).await
}

async fn an_upload_is_tried_as_often_as_the_settings_say_and_no_more(world: World) -> Result<()> {
    let shop = world.namespace("retries").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(75)?;
    world.control().disk_fault(&DiskFault { code: 13, ..DiskFault::new(claim.disk.as_str(), "Open", "fail") }).await?;
    world.set(names::CONFIG, &json!({"upload-cr-retry-max": "0"})).await?;
    let outcome = async {
        let asked = shop.snapshot(&claim).await?;
        let seen = asked.wait_for(SnapshotPhase::UploadFailedAfterRetry).await?;
        let conditions = seen.status.context("status")?.conditions;
        let reason = Reason::VddkOpenFailed;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &["13"]).await?;
        let status = asked.upload().await?.status.context("status")?;
        ensure!(
            status.phase == Some(UploadPhase::UploadFailedAfterRetry) && status.retry_count == 1,
            "it is {status:#?}"
        );
        anyhow::Ok(())
    }
    .await;
    world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await?;
    world.control().heal(claim.disk.as_str()).await?;
    outcome?;
    nothing_left(&world, &shop, 0).await
}
