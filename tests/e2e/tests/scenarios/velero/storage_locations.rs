//! Storage locations as users write them: what a setting means to Velero's S3 plugin it means to us, on the same line.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use api::entity::{DiskEntity, PvcSnapshotId};
use api::{
    BackupRepository, BackupRepositoryClaim, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, DeleteSnapshotStatus,
    Download, DownloadPhase, DownloadSpec, Reason, SnapshotPhase, Upload, UploadPhase, UploadSpec,
    WITHOUT_BACKUP_REPOSITORY, names,
};
use e2e::{DEADLINE, Namespace, World, explained, nothing_left, wait_until};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, CustomResource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::s3_server::S3Server;
use super::{digests, lose, same};

#[path = "../../../../../crates/repository/tests/repository/recorder.rs"]
pub(super) mod recorder;

use recorder::{Head, Recorder};

crate::scenarios![
    a_setting_of_a_storage_location_means_to_us_what_it_means_to_velero,
    an_s3_server_with_a_certificate_of_its_own_takes_backups,
    who_names_no_repository_means_the_location_default,
];

/// A BackupStorageLocation, as it is.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "BackupStorageLocation",
    plural = "backupstoragelocations",
    namespaced,
    status = "Value",
    schema = "disabled"
)]
struct LocationSpec {
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// Headers that settings of a location add to what is stored.
const SETTINGS: [&str; 4] = [
    "x-amz-tagging",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-sdk-checksum-algorithm",
];

/// W-39: prefix, `credential`, profile, KMS, tags and checksum, all in one location, compared on the line
/// with what Velero's S3 plugin makes of them.
async fn a_setting_of_a_storage_location_means_to_us_what_it_means_to_velero(world: World) -> Result<()> {
    let shop = world.namespace("vsettings").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(301)?;
    let before = digests(std::slice::from_ref(&claim))?;
    let recorder = Recorder::before(world.var("S3_ENDPOINT").trim_start_matches("http://")).await;
    let config = [
        ("s3Url", recorder.url()),
        ("profile", "lab".to_owned()),
        ("kmsKeyId", "key-7".to_owned()),
        ("tagging", "team=shop&tier=1".to_owned()),
        ("checksumAlgorithm", "SHA256".to_owned()),
    ];
    let location = Location::create(&world, shop.name(), &Keys::of_lab(&world), &config, json!({})).await?;
    let velero = world.velero_server();
    velero.back_up(shop.name(), shop.name(), &["--storage-location", shop.name()]).await?;
    velero.backup_is(shop.name(), "Completed").await?;

    let puts = recorder.heads("PUT");
    let folder = format!("/{}/{}", world.var("S3_BUCKET"), prefix(shop.name()));
    let below = |part: &str| {
        let found = puts.iter().filter(|put| put.path.starts_with(&format!("{folder}/{part}/")));
        found.map(settings).collect::<BTreeSet<_>>()
    };
    let (by_velero, by_us) = (below("backups"), below("plugins"));
    let wanted = ["team=shop&tier=1", "aws:kms", "key-7", "SHA256"];
    let wanted = BTreeSet::from([wanted.map(|value| Some(value.to_owned()))]);
    ensure!(by_us == wanted, "our objects came with {by_us:?}");
    ensure!(by_velero == wanted, "Velero's objects came with {by_velero:?}");

    keys_are_not_copied(&world, &prefix(shop.name())).await?;
    lose(&[claim]).await?;
    velero.restore(shop.name(), shop.name(), &[]).await?;
    velero.restore_is(shop.name(), "Completed").await?;
    same(&world, shop.name(), &before).await?;
    location.remove(&world, &shop).await
}

/// W-31: what the plugin and the driver write about a location names its Secret, and holds nothing of it.
async fn keys_are_not_copied(world: &World, prefix: &str) -> Result<()> {
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let repositories: Api<BackupRepository> = Api::all(world.client());
    let all = ListParams::default();
    let claims = claims.list(&all).await?.items.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    let repositories =
        repositories.list(&all).await?.items.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    for (kind, objects) in [("BackupRepositoryClaim", claims), ("BackupRepository", repositories)] {
        let of_location: Vec<_> = objects.into_iter().filter(|object| object.contains(prefix)).collect();
        ensure!(!of_location.is_empty(), "there is no {kind} for {prefix}");
        for object in of_location {
            let key = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| world.var(name));
            ensure!(!key.iter().any(|key| object.contains(key)), "{kind} holds a key of the bucket:\n{object}");
        }
    }
    Ok(())
}

/// The values of [`SETTINGS`].
fn settings(put: &Head) -> [Option<String>; SETTINGS.len()] {
    SETTINGS.map(|name| put.value(name).map(str::to_owned))
}

/// W-39: by a `caCertRef`, and by `insecureSkipTLSVerify`; with the key that the customer brings in a file of its own.
async fn an_s3_server_with_a_certificate_of_its_own_takes_backups(world: World) -> Result<()> {
    let shop = world.namespace("vtls").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(302)?;
    let server = S3Server::behind_tls(&world).await?;
    let key = world.folder().join("sse-key");
    std::fs::write(&key, [b'k'; 32])?;
    let authority = json!({"caCertRef": {"name": format!("{}-trusted-keys", shop.name()), "key": "ca.crt"}});
    let cases = [
        ("trusted", ("customerKeyEncryptionFile", key.display().to_string()), authority),
        ("unseen", ("insecureSkipTLSVerify", "true".to_owned()), json!({})),
    ];
    let velero = world.velero_server();
    for (word, setting, storage) in cases {
        let name = format!("{}-{word}", shop.name());
        let url = format!("https://{}", server.address);
        let config = [("s3Url", url), ("profile", "lab".to_owned()), setting];
        let location = Location::create(&world, &name, &Keys::of_lab(&world), &config, storage).await?;
        velero.back_up(&name, shop.name(), &["--storage-location", &name]).await?;
        velero.backup_is(&name, "Completed").await?;
        ensure!(points_below(&world, &name, &shop)? == 1, "one restore point below the prefix of {name}");
        location.remove(&world, &shop).await?;
    }
    Ok(())
}

/// M-5-6: an Upload, a Download and a DeleteSnapshot of their own, as the original's tools and old objects have them.
async fn who_names_no_repository_means_the_location_default(world: World) -> Result<()> {
    let shop = world.namespace("vdefault").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(304)?;
    // the driver makes the repository; here for the same bucket
    shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    claim.fill_random(305)?;
    let local = shop.snapshot_of(&claim.name, "").await?.wait_for(SnapshotPhase::Snapshotted).await?;
    let id = local.status.and_then(|s| s.snapshot_id).context("an id")?;
    let taken = id.parse::<PvcSnapshotId>()?.disk_snapshot;

    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let spec = UploadSpec {
        snapshot_id: Some(DiskEntity::from(taken.clone()).to_string()),
        snapshot_reference: Some(format!("{}/nobody", shop.name())),
        ..UploadSpec::default()
    };
    let upload = names::upload(&taken.snapshot);
    uploads.create(&PostParams::default(), &Upload::new(&upload, spec)).await?;
    let ended = wait_until(&uploads, &upload, DEADLINE, "has ended", |u| {
        u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
    });
    let status = ended.await?.and_then(|u| u.status).context("status")?;
    ensure!(status.phase == Some(UploadPhase::Completed), "it is {status:#?}");

    let target = shop.claim("target").mib(2).create().await?;
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let spec = DownloadSpec {
        snapshot_id: Some(DiskEntity::from(taken.clone()).to_string()),
        protected_entity_id: Some(DiskEntity::from(target.disk.clone()).to_string()),
        backup_repository_name: Some(WITHOUT_BACKUP_REPOSITORY.to_owned()),
        source_namespace: Some(shop.name().to_owned()),
        ..DownloadSpec::default()
    };
    let download = names::download(&taken.snapshot, uuid::Uuid::new_v4());
    downloads.create(&PostParams::default(), &Download::new(&download, spec)).await?;
    let ended = wait_until(&downloads, &download, DEADLINE, "has ended", |d| {
        d.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
    });
    let status = ended.await?.and_then(|d| d.status).context("status")?;
    ensure!(status.phase == Some(DownloadPhase::Completed), "it is {status:#?}");
    ensure!(target.digest()? == claim.digest()?, "came back different");
    nothing_left(&world, &shop, 2).await?;

    // as versions up to 1.0.2 wrote ids, which had no restore points: nobody can tell where it is, so it is not called deleted
    let (name, status) = delete_by_hand(&world, DiskEntity::from(taken).to_string()).await?;
    ensure!(status.phase == Some(DeletePhase::Failed), "it is {status:#?}");
    let words = ["the original's layout", "status.snapshotID"];
    explained(&world, world.velero(), &name, &status.conditions, Reason::InvalidSpec, &words).await?;
    nothing_left(&world, &shop, 2).await?;
    let (_, status) = delete_by_hand(&world, id).await?;
    ensure!(status.phase == Some(DeletePhase::Completed), "it is {status:#?}");
    nothing_left(&world, &shop, 1).await
}

/// How a DeleteSnapshot ends that somebody writes by hand and that names no repository.
async fn delete_by_hand(world: &World, id: String) -> Result<(String, DeleteSnapshotStatus)> {
    let deletes: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let spec = DeleteSnapshotSpec { snapshot_id: id, backup_repository: WITHOUT_BACKUP_REPOSITORY.to_owned() };
    let name = names::delete_snapshot(uuid::Uuid::new_v4());
    deletes.create(&PostParams::default(), &DeleteSnapshot::new(&name, spec)).await?;
    let ended = wait_until(&deletes, &name, DEADLINE, "has ended", |d| {
        d.and_then(DeleteSnapshot::phase).is_some_and(DeletePhase::is_terminal)
    });
    Ok((name.clone(), ended.await?.and_then(|d| d.status).context("status")?))
}

/// The prefix of a location in the lab's bucket: below a folder that Velero knows, as the location `default` is the whole
/// bucket, and any other folder in its root would make that unavailable to all other scenarios.
pub(crate) fn prefix(location: &str) -> String {
    format!("plugins/{location}")
}

/// Restore points in the location of that name, on the S3 server's own disk.
fn points_below(world: &World, location: &str, shop: &Namespace) -> Result<usize> {
    let bucket = world.folder().join("s3").join(world.var("S3_BUCKET"));
    let points = bucket.join(prefix(location)).join("plugins/vsphere-restic-repo").join(shop.name()).join("snapshots");
    match std::fs::read_dir(&points) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0), // the server removes empty folders
        listed => Ok(listed.with_context(|| format!("list {}", points.display()))?.count()),
    }
}

/// Keys to an S3 server, in the profile `lab` of a location's Secret.
pub(crate) struct Keys {
    pub(super) id: String,
    pub(super) secret: String,
    /// Of keys that are for a while.
    pub(super) token: Option<String>,
}

impl Keys {
    /// Those to the lab's bucket.
    pub(crate) fn of_lab(world: &World) -> Self {
        let [id, secret] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| world.var(name).to_owned());
        Self { id, secret, token: None }
    }

    /// Those of the lab's other account.
    pub(super) fn of_the_other_account(world: &World) -> Self {
        let [id, secret] =
            ["LAB_S3_SECOND_ACCESS_KEY_ID", "LAB_S3_SECOND_SECRET_ACCESS_KEY"].map(|name| world.var(name).to_owned());
        Self { id, secret, token: None }
    }

    /// For a while; `ASIA` is how stores know such keys.
    pub(super) fn temporary() -> Self {
        let [id, secret] = ["ASIAFORAWHILE", "only-for-a-while"].map(str::to_owned);
        Self { id, secret, token: Some("and-with-this-token".to_owned()) }
    }

    /// A file of keys with these in the profile `lab`, and such as open nothing in the default one.
    pub(super) fn file(&self) -> String {
        let wrong = "[default]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n\n";
        let token = self.token.as_ref().map(|token| format!("aws_session_token = {token}\n")).unwrap_or_default();
        format!("{wrong}[lab]\naws_access_key_id = {}\naws_secret_access_key = {}\n{token}", self.id, self.secret)
    }
}

/// A storage location with a Secret that our programs may read, as `storageSecrets` of the chart lets them.
pub(crate) struct Location {
    name: String,
    secret: String,
}

impl Location {
    /// In the lab's bucket below a [`prefix`] of its own, once Velero has found it good.
    pub(crate) async fn create(
        world: &World,
        name: &str,
        keys: &Keys,
        config: &[(&str, String)],
        storage: Value,
    ) -> Result<Self> {
        let made = Self { name: name.to_owned(), secret: readable_secret(world, name, keys).await? };
        let mut config: BTreeMap<_, _> = config.iter().cloned().collect();
        config.insert("region", world.var("AWS_REGION").to_owned());
        config.insert("s3ForcePathStyle", "true".to_owned());
        let mut place = json!({"bucket": world.var("S3_BUCKET"), "prefix": prefix(name)});
        place.as_object_mut().context("an object")?.extend(storage.as_object().context("an object")?.clone());
        let spec = json!({
            "provider": "aws", "objectStorage": place, "config": config,
            "credential": {"name": made.secret, "key": "cloud"},
        });
        let locations = locations(world);
        locations
            .create(&PostParams::default(), &BackupStorageLocation::new(name, serde_json::from_value(spec)?))
            .await?;
        wait_until(&locations, name, DEADLINE, "is available", |l: Option<&BackupStorageLocation>| {
            l.and_then(|l| l.status.as_ref()).is_some_and(|status| status["phase"] == "Available")
        })
        .await?;
        Ok(made)
    }

    /// Deletes its backup, of the same name, with its restore point; then itself.
    pub(crate) async fn remove(self, world: &World, shop: &Namespace) -> Result<()> {
        let velero = world.velero_server();
        velero.delete(&self.name).await?;
        velero.is_gone(&self.name).await?;
        world.deletions_complete(&self.name, 1).await?;
        ensure!(points_below(world, &self.name, shop)? == 0, "the restore point of {} is gone", self.name);
        locations(world).delete(&self.name, &DeleteParams::default()).await?;
        forget(world, &self.secret).await
    }
}

/// A Secret of the location of that name, which our programs may read: keys by two names, of which one is right, and the
/// certificate of the lab's authority. Returns the Secret's name.
pub(super) async fn readable_secret(world: &World, location: &str, keys: &Keys) -> Result<String> {
    let made = format!("{location}-keys");
    let authority = std::fs::read_to_string(world.var("VCENTER_CA_FILE"))?;
    let name = json!({"name": made});
    let object = json!({"metadata": name, "stringData": {"cloud": keys.file(), "ca.crt": authority}});
    let post = PostParams::default();
    let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
    secrets.create(&post, &serde_json::from_value(object)?).await?;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [made],
        "verbs": ["get", "list", "watch"]}]);
    let roles: Api<Role> = Api::namespaced(world.client(), world.velero());
    roles.create(&post, &serde_json::from_value(json!({"metadata": name, "rules": rules}))?).await?;
    let subjects = ["backup-driver", "datamgr-for-vsphere-plugin"]
        .map(|account| json!({"kind": "ServiceAccount", "name": account, "namespace": world.velero()}));
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": made});
    let binding = json!({"metadata": name, "roleRef": role, "subjects": subjects});
    let bindings: Api<RoleBinding> = Api::namespaced(world.client(), world.velero());
    bindings.create(&post, &serde_json::from_value(binding)?).await?;
    Ok(made)
}

pub(super) async fn forget(world: &World, secret: &str) -> Result<()> {
    let (delete, velero) = (DeleteParams::default(), world.velero());
    Api::<RoleBinding>::namespaced(world.client(), velero).delete(secret, &delete).await?;
    Api::<Role>::namespaced(world.client(), velero).delete(secret, &delete).await?;
    Api::<Secret>::namespaced(world.client(), velero).delete(secret, &delete).await?;
    Ok(())
}

fn locations(world: &World) -> Api<BackupStorageLocation> {
    Api::namespaced(world.client(), world.velero())
}
