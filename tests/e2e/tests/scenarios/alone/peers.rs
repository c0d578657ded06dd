//! S3, vCenter and the disk library: away, distrusted, wrong or missing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, Reason, SnapshotPhase, UploadPhase, conditions, names};
use e2e::{
    Claim, DEADLINE, DiskFault, Namespace, World, delete_if_there, explained, nothing_left, put_right, wait_until,
    warned,
};
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
    let failed = async {
        world.kill("s3").await?;
        world.control().heal(claim.disk.as_str()).await?;
        asked.wait_for(SnapshotPhase::UploadFailed).await
    };
    let failed = put_right(failed.await, [world.start_process("s3").await])?;
    let conditions = failed.status.context("status")?.conditions;
    let reason = Reason::StoreUnreachable;
    explained(&world, shop.name(), &asked.name, &conditions, reason, &[reason.fix()]).await?;
    asked.wait_for_within(SnapshotPhase::Uploaded, DEADLINE + Duration::from_secs(60)).await?;
    world.restic(shop.name()).check().await?;
    nothing_left(&world, &shop, 1).await?;
    world.locations_are_available().await
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
    let failed = async {
        bucket.give_to(&world, world.var("LAB_S3_SECOND_ACCESS_KEY_ID")).await?;
        world.control().heal(claim.disk.as_str()).await?;
        asked.wait_for(SnapshotPhase::UploadFailed).await
    };
    let failed = put_right(failed.await, [bucket.give_to(&world, world.var("AWS_ACCESS_KEY_ID")).await])?;
    let conditions = failed.status.context("status")?.conditions;
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
    put_right(unencrypted.await, restarted(&world, DATA_MANAGERS).await)?;
    let asked = shop.snapshot(&claim).await?;
    asked.wait_for(SnapshotPhase::Uploaded).await?;
    told(&asked.upload().await?.status.context("status")?.conditions, "by nbdssl; allowed, best first: nbdssl, nbd")?;
    nothing_left(&world, &shop, 2).await
}

/// Starts these programs anew, as the lab has them.
async fn restarted(world: &World, programs: impl IntoIterator<Item = &str>) -> Vec<Result<()>> {
    let mut acts = Vec::new();
    for program in programs {
        acts.push(world.restart(program).await);
    }
    acts
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
    let mut outcome = configure(world, secret).await;
    for _ in 0..times {
        let once = async {
            let asked = shop.snapshot(&claim).await?;
            let seen = asked.wait_for(SnapshotPhase::SnapshotFailed).await?;
            let conditions = seen.status.context("status")?.conditions;
            let words = ["take the disk snapshot", "in the vCenter Secret"];
            explained(world, shop.name(), &asked.name, &conditions, reason, &words).await
        };
        if outcome.is_ok() {
            outcome = once.await;
        }
    }
    put_right(outcome, [configure(world, &before).await])?;
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
    let outcome = async {
        secrets.delete(names::VCENTER_SECRET, &DeleteParams::default()).await?;
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
    let mut acts = vec![secrets.create(&PostParams::default(), &again).await.map(drop).map_err(Into::into)];
    for name in DATA_MANAGERS.into_iter().chain(["backup-driver"]) {
        acts.push(world.start_process(name).await); // one that runs goes on
    }
    put_right(outcome, acts)?;
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
    let own = json!({"vsphere_secret_namespace": shop.name(), "vsphere_secret_name": "our-vcenter"});
    let none = json!({"vsphere_secret_namespace": null, "vsphere_secret_name": null});
    let (shared, not) = (json!({"decouple-vsphere-csi-driver": "false"}), json!({"decouple-vsphere-csi-driver": null}));
    let csi = "vmware-system-csi";
    let cases = [
        (names::CONFIG, &own, &none, shop.name(), "our-vcenter"),
        (names::FEATURES, &shared, &not, csi, names::CSI_SECRETS[0]),
        (names::FEATURES, &shared, &not, csi, names::CSI_SECRETS[1]),
    ];
    let mut outcome = configure(&world, "[Global]\n").await;
    for (map, set, unset, namespace, name) in cases {
        if outcome.is_err() {
            break;
        }
        let once = async {
            secret_elsewhere(&world, namespace, name, &before).await?;
            world.set(map, set).await?;
            back_up(&shop, &claim).await.with_context(|| format!("with Secret {namespace}/{name}")).map(drop)
        };
        let outcome_here = once.await;
        let acts = [
            world.set(map, unset).await,
            delete_if_there(&Api::<Secret>::namespaced(world.client(), namespace), name).await,
            delete_if_there(&Api::<Role>::namespaced(world.client(), namespace), name).await,
            delete_if_there(&Api::<RoleBinding>::namespaced(world.client(), namespace), name).await,
        ];
        outcome = put_right(outcome_here, acts);
    }
    put_right(outcome, [configure(&world, &before).await])?;
    nothing_left(&world, &shop, cases.len()).await
}

/// M-7-7: a change counts for the next disk, and what the library would not understand holds up no backup.
async fn what_the_user_sets_of_the_disk_library_is_in_use_and_a_mistake_in_it_is_told(world: World) -> Result<()> {
    let shop = world.namespace("vddkset").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(79)?;
    let (nfc, transport) = ("vixDiskLib.nfc.LogLevel", "vixDiskLib.transport.LogLevel");
    let outcome = async {
        world.set(names::VDDK_CONFIG, &json!({nfc: "4", transport: "loud"})).await?;
        world.control().slow(claim.disk.as_str(), "Read").await?;
        let asked = shop.snapshot(&claim).await?;
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
        warned(&world, world.velero(), &name, Reason::SettingsInvalid, &words).await?;
        Ok(asked)
    };
    let outcome = outcome.await;
    let acts = [
        world.set(names::VDDK_CONFIG, &json!({nfc: null, transport: null})).await,
        world.control().heal(claim.disk.as_str()).await,
    ];
    let asked = put_right(outcome, acts)?;
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
    let outcome = async {
        for library in libraries(&world) {
            std::fs::rename(&library, aside(&library))?;
        }
        let asked = shop.snapshot(&claim).await?;
        let seen = asked.wait_for(SnapshotPhase::UploadFailed).await?;
        let conditions = seen.status.context("status")?.conditions;
        let reason = Reason::VddkLibraryMissing;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &["vddkLibs", reason.fix()]).await?;
        anyhow::Ok(asked)
    }
    .await;
    let back = |library: PathBuf| match std::fs::rename(aside(&library), &library) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && library.exists() => Ok(()), // it never went
        renamed => renamed.with_context(|| format!("bring {} back", library.display())),
    };
    put_right(outcome, libraries(&world).map(back))?.cancel().await?;
    nothing_left(&world, &shop, 0).await?;
    back_up(&shop, &claim).await.context("the library is found without a restart")?;
    nothing_left(&world, &shop, 1).await
}

async fn a_disk_library_that_hangs_is_ended(world: World) -> Result<()> {
    let shop = world.namespace("hangs").await?;
    let claim = shop.claim("data").mib(4).create().await?;
    claim.fill_random(74)?;
    let outcome = async {
        for name in DATA_MANAGERS {
            world.kill(name).await?;
            world.start_process_with(name, &[("DISK_CALL_DEADLINE", "3")]).await?;
        }
        world.control().disk_fault(&DiskFault::new(claim.disk.as_str(), "Read", "hang")).await?;
        let asked = shop.snapshot(&claim).await?;
        let seen = asked.wait_for(SnapshotPhase::UploadFailed).await?;
        let conditions = seen.status.context("status")?.conditions;
        let reason = Reason::VddkHung;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &["back up the disk", reason.fix()]).await?;
        anyhow::Ok(asked)
    }
    .await;
    let mut acts = vec![world.control().heal(claim.disk.as_str()).await];
    acts.extend(restarted(&world, DATA_MANAGERS).await);
    put_right(outcome, acts)?.cancel().await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_disk_deleted_between_snapshot_and_upload_ends_the_backup(world: World) -> Result<()> {
    let shop = world.namespace("diskgone").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let outcome = async {
        for name in DATA_MANAGERS {
            world.kill(name).await?;
        }
        let asked = shop.snapshot(&claim).await?;
        let upload = asked.upload_when_made().await?;
        world.control().remove_disk(claim.disk.as_str()).await?;
        Ok((asked, upload))
    }
    .await;
    let mut acts = Vec::new();
    for name in DATA_MANAGERS {
        acts.push(world.start_process(name).await);
    }
    let (asked, upload) = put_right(outcome, acts)?;
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
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "data": data }))).await?;
        anyhow::Ok(())
    };
    let well_known = ByteString(b"static-passw0rd".to_vec());
    let outcome = async {
        write(&[(names::REPOSITORY_PASSWORD.to_owned(), well_known)].into()).await?;
        let asked = shop.snapshot(&claim).await?;
        asked.wait_for(SnapshotPhase::Uploaded).await?;
        asked.told(Reason::RepositoryPasswordDefault).await
    }
    .await;
    put_right(outcome, [write(&own).await])
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
        roles.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "rules": rules }))).await?;
        anyhow::Ok(())
    };
    let waits = async {
        write(&cut).await?;
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
    let waits = put_right(waits, [write(&whole).await])?;
    waits.wait_for(SnapshotPhase::Uploaded).await.context("it goes on by itself")?;
    nothing_left(&world, &shop, 1).await
}

async fn an_upload_is_tried_as_often_as_the_settings_say_and_no_more(world: World) -> Result<()> {
    let shop = world.namespace("retries").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(75)?;
    let outcome = async {
        let refused = DiskFault { code: 13, ..DiskFault::new(claim.disk.as_str(), "Open", "fail") };
        world.control().disk_fault(&refused).await?;
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": "0"})).await?;
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

        // the setting counts as it is when an attempt fails, also for an upload that was tried under another one
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await?;
        let asked = shop.snapshot(&claim).await?;
        asked.wait_for(SnapshotPhase::UploadFailed).await?;
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": "0"})).await?;
        asked.back_off_is_over().await?;
        asked.wait_for(SnapshotPhase::UploadFailedAfterRetry).await?;
        let status = asked.upload().await?.status.context("status")?;
        ensure!(status.retry_count == 2, "it was given up by the second attempt: {status:#?}");
        anyhow::Ok(())
    }
    .await;
    let acts = [
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await,
        world.control().heal(claim.disk.as_str()).await,
    ];
    put_right(outcome, acts)?;
    nothing_left(&world, &shop, 0).await
}
