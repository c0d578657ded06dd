//! Looks for what nobody owns any more: in vCenter, in buckets and in the cluster. `lifecycle::orphans` decides; nothing is removed
//! here, so that the driver's sweeps and `vsphere-backup doctor` look with the same eyes.
//!
//! What may be left over is always listed before those who may own it: a new one's owner is then listed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use api::parameters::key;
use api::velero::{Backup, BackupStorageLocation, VolumeSnapshotLocation};
use api::{
    BackupRepository, BackupRepositoryClaim, CloneFromSnapshot, CredentialSecret, DeleteSnapshot, Download,
    REPOSITORY_DRIVER, Reason, Snapshot, Timestamp, Upload, names,
};
use disk::{DiskId, DiskSnapshot};
use k8s_openapi::api::core::v1::{PersistentVolume, Secret};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::orphans::claims::{Asking, unasked};
use lifecycle::orphans::new_disks;
use lifecycle::orphans::parts::{self, OpenUpload};
use lifecycle::orphans::points::{self, BackupOf, Owners, Point};
use lifecycle::orphans::{Installation, Settings, Taken, find, repositories};
use lifecycle::snapshot::{Backing, Migrated, backing};
use lifecycle::velero::parameters::DefaultCredentials;
use repository::Repository;
use repository::store::S3Store;
use vsphere::SnapshotInfo;

use crate::centers::{Centers, concerns_one_object};
use crate::{Migrations, Repositories, from_kube, from_repository, from_vsphere};

/// Pause between two calls to vCenter: a look is never more than ten calls a second.
const BETWEEN_CALLS: Duration = Duration::from_millis(100);
/// How many repositories of a store that does not answer are named.
const NAMED: usize = 5;
/// Volumes that are listed at a time.
const PAGE: u32 = 500;

/// The disks of this cluster, each with its volume's name and no more.
pub type Disks = HashMap<DiskId, PersistentVolume>;

/// The disks of the vSphere CSI driver's volumes, those of migrated ones among them. One whose disk cannot be told is left out,
/// and the log says why.
///
/// # Errors
/// When the API server does not answer or does not allow it.
pub async fn disks(client: &Client) -> Result<Disks, Problem> {
    let (found, unknown) = told_disks(client).await?;
    if let Some(problem) = unknown {
        tracing::info!(%problem, "the disks of migrated volumes are not looked at");
    }
    Ok(found)
}

/// The same for who deletes disks that are not among them: one whose disk cannot be told, though there may be a record of it, is an error.
///
/// # Errors
/// As [`disks`], and when the records of migrated volumes cannot be read.
pub async fn disks_in_use(client: &Client) -> Result<Disks, Problem> {
    let (found, unknown) = told_disks(client).await?;
    unknown.map_or(Ok(found), Err)
}

/// The disks that can be told, and why those of migrated volumes cannot.
async fn told_disks(client: &Client) -> Result<(Disks, Option<Problem>), Problem> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let (mut found, mut page) = (Disks::new(), ListParams::default().limit(PAGE));
    let mut migrated: Vec<(Migrated, PersistentVolume)> = Vec::new();
    loop {
        let listed = volumes.list(&page).await.map_err(|e| from_kube("list volumes", &e))?;
        let more = listed.metadata.continue_.clone().filter(|token| !token.is_empty());
        for volume in listed.items {
            let Ok(backing) = backing(&volume) else { continue }; // somebody else's
            let named = PersistentVolume { spec: None, status: None, ..volume };
            match backing {
                Backing::Disk(disk) => drop(found.insert(disk, named)),
                Backing::Migrated(of_it) => migrated.push((of_it, named)),
            }
        }
        match more {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    let (migrations, asked) = (Migrations::new(client.clone()), Instant::now());
    for (of_it, named) in migrated {
        match migrations.disk_since(&Backing::Migrated(of_it), asked).await {
            Ok(disk) => drop(found.insert(disk, named)),
            Err(problem) if problem.reason == Reason::MigrationUnknown => {
                tracing::info!(%problem, "the disk of a migrated volume is not looked at");
            }
            Err(problem) => return Ok((found, Some(problem))), // the next one would be asked the same
        }
    }
    Ok((found, None))
}

/// Disk snapshots that we took and that nobody will delete; and why disks could not be looked at. A disk that is gone is
/// left out; a vCenter that cannot be reached, where there is no other, ends the look.
///
/// # Errors
/// As vCenter or the API server says.
pub async fn disk_snapshots(
    client: &Client,
    centers: &Centers,
    disks: &Disks,
    of: Installation<'_>,
) -> Result<(Vec<Taken>, Vec<Problem>), Problem> {
    let (mut taken, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for disk in disks.keys() {
        match listed(disk, centers).await {
            Ok(listed) => taken.extend(listed.into_iter().filter_map(|snapshot| {
                let disk_snapshot = DiskSnapshot { disk: disk.clone(), snapshot: snapshot.id };
                of.recognise(disk_snapshot, &snapshot.description)
            })),
            Err(Unlisted::One(problem)) => {
                tracing::debug!(%disk, %problem, "its disk snapshots were not looked at");
            }
            Err(Unlisted::Many(problem)) if centers.only().is_some() => return Err(problem),
            Err(Unlisted::Many(problem)) => {
                // one a reason: its words name a disk, and there may be thousands
                if problems.iter().all(|known| known.reason != problem.reason) {
                    problems.push(problem);
                }
            }
        }
        tokio::time::sleep(BETWEEN_CALLS).await;
    }
    if taken.is_empty() {
        return Ok((taken, problems));
    }
    let snapshots = all::<Snapshot>(client).await?;
    let uploads: Api<Upload> = Api::namespaced(client.clone(), of.namespace);
    let uploads = uploads.list(&ListParams::default()).await.map_err(|e| from_kube("list uploads", &e))?;
    Ok((find(taken, &snapshots, &uploads.items), problems))
}

/// Why the disk snapshots of a disk are not known.
enum Unlisted {
    /// For reasons of its own.
    One(Problem),
    /// For one that other disks have too.
    Many(Problem),
}

async fn listed(disk: &DiskId, centers: &Centers) -> Result<Vec<SnapshotInfo>, Unlisted> {
    let act = "look for disk snapshots that nobody owns";
    let vcenter = centers.of_disk(disk).await.map_err(|problem| match problem.reason {
        Reason::DiskMissing => Unlisted::One(problem),
        _ => Unlisted::Many(Problem { cause: format!("{act}: {}", problem.cause), ..problem }),
    })?;
    vcenter.list_snapshots(disk).await.map_err(|error| match concerns_one_object(&error) {
        true => Unlisted::One(from_vsphere(act, &error)),
        false => Unlisted::Many(from_vsphere(act, &error)),
    })
}

/// Uploads in parts that are open below our folder of a bucket, and that nobody goes on with.
///
/// # Errors
/// As the store says.
pub async fn open_uploads(
    store: &S3Store,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<repository::store::OpenUpload>, repository::store::Error> {
    let open = store.open_uploads("").await?;
    let told = open.iter().map(|open| OpenUpload {
        key: open.upload.key.clone(),
        id: open.upload.id.clone(),
        last_sign: open.last_sign,
    });
    let left = parts::forgotten(told.collect(), settings, now);
    let is_left = |open: &repository::store::OpenUpload| left.iter().any(|left| left.id == open.upload.id);
    Ok(open.into_iter().filter(is_left).collect())
}

/// A repository, and what its restore points say of themselves.
#[derive(Debug)]
pub struct Listed {
    /// The repository.
    pub repository: Repository,
    /// What describes it.
    pub described: BackupRepository,
    /// Its restore points.
    pub points: Vec<Point>,
}

/// What is known of stores that did not answer a moment ago: a second look at one would wait as long as the first, and say the same.
#[derive(Default, Clone)]
pub struct Silent(Vec<Store>);

/// A store and how it is reached, keys included: whatever differs in the folder or the format alone shares it.
#[derive(Clone, PartialEq)]
struct Store {
    parameters: BTreeMap<String, String>,
    credential_secret: Option<CredentialSecret>,
}

impl Store {
    fn of(described: &BackupRepository) -> Self {
        let mut parameters = described.repository_parameters.clone();
        for of_the_folder in [key::LEGACY_PREFIX, key::STORAGE_PREFIX, key::REPOSITORY_FORMAT] {
            parameters.remove(of_the_folder);
        }
        Self { parameters, credential_secret: described.credential_secret.clone() }
    }
}

impl Silent {
    /// Notes the store of that description, where that is what is the matter with it.
    pub fn note(&mut self, described: &BackupRepository, problem: &Problem) {
        if problem.reason == Reason::StoreUnreachable && !self.knows(described) {
            self.0.push(Store::of(described));
        }
    }

    /// Whether the store of that description did not answer.
    pub fn knows(&self, described: &BackupRepository) -> bool {
        self.position(described).is_some()
    }

    /// Which of those that were noted it is, counted from 0.
    pub fn position(&self, described: &BackupRepository) -> Option<usize> {
        let store = Store::of(described);
        self.0.iter().position(|known| *known == store)
    }
}

/// How messages call a repository.
pub fn called(described: &BackupRepository, namespace: &str) -> String {
    format!("{} (namespace {namespace})", described.name_any())
}

/// Why what is called so was not asked; `None` where all were.
pub fn not_asked(act: &str, who: &[String]) -> Option<Problem> {
    let named: Vec<&str> = who.iter().take(NAMED).map(String::as_str).collect();
    let more = who.len().saturating_sub(named.len());
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let cause = || format!("{act}: the store did not answer a moment ago: {}{more}", named.join(", "));
    (!named.is_empty()).then(|| Problem::passing(Reason::StoreUnreachable, cause()))
}

/// Every repository that the cluster knows, once each, with its restore points.
#[derive(Debug, Default)]
pub struct AllListed {
    /// Those that could be looked at.
    pub listed: Vec<Listed>,
    /// Why others could not.
    pub problems: Vec<Problem>,
    /// Those that were not asked, as their store did not answer who asked before.
    pub unasked: Option<Problem>,
}

/// Looks at every repository. Of a store that is `silent`, or becomes so, no other one is asked.
///
/// # Errors
/// When the BackupRepositories cannot be listed.
pub async fn restore_points(client: &Client, opens: &Repositories, mut silent: Silent) -> Result<AllListed, Problem> {
    let (mut listed, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut left_out = Vec::new();
    for described in
        all::<BackupRepository>(client).await?.into_iter().filter(|r| r.repository_driver == REPOSITORY_DRIVER)
    {
        for namespace in described.namespaces() {
            let name = called(&described, namespace);
            let named = |problem: Problem| Problem { cause: format!("{name}: {}", problem.cause), ..problem };
            if silent.knows(&described) {
                left_out.push(name);
                continue;
            }
            let repository = match opens.open(&described, namespace).await {
                Ok(repository) => repository,
                Err(problem) if problem.reason == Reason::RepositoryMissing => continue, // nothing was ever backed up
                Err(problem) => {
                    silent.note(&described, &problem);
                    problems.push(named(problem));
                    continue;
                }
            };
            if !seen.insert((repository.place(), repository.id().to_owned())) {
                continue;
            }
            match repository.restore_points().await {
                Ok(points) => {
                    let points = points.iter().map(point).collect();
                    listed.push(Listed { repository, described: described.clone(), points });
                }
                // its store did answer: the next repository in it is asked
                Err(error) => problems.push(named(from_repository("list restore points", &error))),
            }
        }
    }
    Ok(AllListed { listed, problems, unasked: not_asked("list restore points", &left_out) })
}

fn point(point: &repository::RestorePoint) -> Point {
    let tag = |name: &str| point.tags.get(name).filter(|text| !text.is_empty()).cloned();
    let backup = tag("backup").map(|name| BackupOf { name, uid: tag("backup-uid") });
    Point {
        id: point.id.to_string(),
        cluster: point.host.clone(),
        time: point.time,
        path: point.path.clone(),
        backup,
        disk_snapshot: point.identity(),
    }
}

/// Everybody who may own a restore point: to be asked after they were listed. `None` where there is no Velero: then nobody can say
/// that a backup is gone.
///
/// # Errors
/// When one of the kinds cannot be listed: then nobody may say that something is owned by nobody.
pub async fn owners(client: &Client, velero_namespace: &str) -> Result<Option<Owners>, Problem> {
    let Some((backups, locations)) = backups_and_locations(client, velero_namespace).await? else { return Ok(None) };
    let (snapshots, clones) = (all::<Snapshot>(client).await?, all::<CloneFromSnapshot>(client).await?);
    let deletes = all::<DeleteSnapshot>(client).await?;
    let (uploads, downloads) = (all::<Upload>(client).await?, all::<Download>(client).await?);
    let owners = Owners::default().with_backups(&backups).with_locations(&locations, &backups);
    let owners = owners.with_requests(&snapshots, &clones, &deletes);
    Ok(Some(owners.with_transfers(&uploads, &downloads)))
}

/// Velero's backups and storage locations; `None` where there is no Velero.
async fn backups_and_locations(
    client: &Client,
    velero_namespace: &str,
) -> Result<Option<(Vec<Backup>, Vec<BackupStorageLocation>)>, Problem> {
    let backups: Api<Backup> = Api::namespaced(client.clone(), velero_namespace);
    let backups = match backups.list(&ListParams::default()).await {
        Ok(backups) => backups,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(from_kube("list Velero's backups", &error)),
    };
    let locations: Api<BackupStorageLocation> = Api::namespaced(client.clone(), velero_namespace);
    let locations = locations.list(&ListParams::default()).await;
    let locations = locations.map_err(|e| from_kube("list Velero's storage locations", &e))?;
    Ok(Some((backups.items, locations.items)))
}

/// Velero's snapshot locations; none where it does not know the kind.
async fn snapshot_locations(client: &Client, velero_namespace: &str) -> Result<Vec<VolumeSnapshotLocation>, Problem> {
    let locations: Api<VolumeSnapshotLocation> = Api::namespaced(client.clone(), velero_namespace);
    match locations.list(&ListParams::default()).await {
        Ok(locations) => Ok(locations.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(from_kube("list Velero's snapshot locations", &error)),
    }
}

/// Those of a repository's points that nobody owns.
pub fn unowned(listed: &Listed, owners: &Owners, cluster: &str, settings: &Settings, now: Timestamp) -> Vec<Point> {
    points::unowned(listed.points.clone(), owners, cluster, settings, now)
}

/// BackupRepositories whose claim is gone, and that nobody names.
///
/// # Errors
/// When the API server does not answer or does not allow it.
pub async fn without_claim(
    client: &Client,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<BackupRepository>, Problem> {
    let described = all::<BackupRepository>(client).await?;
    if described.is_empty() {
        return Ok(described);
    }
    // of all namespaces: another Velero may have its claims in its own
    let claims = all::<BackupRepositoryClaim>(client).await?;
    let used = repositories_in_use(client).await?;
    let left = repositories::without_claim(&described, &claims, &used, settings, now);
    Ok(left.into_iter().cloned().collect())
}

/// BackupRepositoryClaims that no location of Velero asks for, of backups or of snapshots, and whose BackupRepositories nobody names.
/// None where there is no Velero: then nobody can say what it would ask for.
///
/// # Errors
/// When the API server does not answer or does not allow it.
pub async fn unasked_claims(
    client: &Client,
    velero_namespace: &str,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<BackupRepositoryClaim>, Problem> {
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(client.clone(), velero_namespace);
    let claims = claims.list(&ListParams::default()).await;
    let claims = claims.map_err(|e| from_kube("list BackupRepositoryClaims", &e))?.items;
    if claims.is_empty() {
        return Ok(claims);
    }
    let Some((backups, locations)) = backups_and_locations(client, velero_namespace).await? else {
        return Ok(Vec::new());
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), velero_namespace);
    let default = secrets.get_opt(names::CLOUD_CREDENTIALS_SECRET).await;
    let default = default.map_err(|e| from_kube(&format!("read Secret {}", names::CLOUD_CREDENTIALS_SECRET), &e))?;
    let default = DefaultCredentials::of(default);
    let snapshot_locations = snapshot_locations(client, velero_namespace).await?;
    let used = repositories_in_use(client).await?;
    let asking =
        Asking { locations: &locations, snapshot_locations: &snapshot_locations, backups: &backups, default: &default };
    Ok(unasked(&claims, asking, &used, settings, now).into_iter().cloned().collect())
}

/// Downloads whose disk Velero took, and that no volume has.
///
/// # Errors
/// When the API server does not answer or does not allow it: then nobody may say that no volume has a disk.
pub async fn unused_new_disks(
    client: &Client,
    velero_namespace: &str,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<Download>, Problem> {
    let downloads: Api<Download> = Api::namespaced(client.clone(), velero_namespace);
    let downloads = downloads.list(&ListParams::default()).await.map_err(|e| from_kube("list Downloads", &e))?;
    let taken: Vec<_> = downloads.items.into_iter().filter(new_disks::is_taken).collect();
    if taken.is_empty() {
        return Ok(taken);
    }
    let disks = disks_in_use(client).await?;
    Ok(new_disks::unused(taken, |disk| disks.contains_key(disk), settings, now))
}

/// The names of BackupRepositories that requests and transfers hold.
async fn repositories_in_use(client: &Client) -> Result<HashSet<String>, Problem> {
    let mut used = HashSet::new();
    used.extend(all::<Snapshot>(client).await?.into_iter().map(|s| s.spec.backup_repository));
    used.extend(all::<CloneFromSnapshot>(client).await?.into_iter().map(|c| c.spec.backup_repository));
    used.extend(all::<DeleteSnapshot>(client).await?.into_iter().map(|d| d.spec.backup_repository));
    used.extend(all::<Upload>(client).await?.into_iter().filter_map(|u| u.spec.backup_repository));
    used.extend(all::<Download>(client).await?.into_iter().filter_map(|d| d.spec.backup_repository_name));
    Ok(used)
}

/// One description for each folder of repositories: several BackupRepositories may be in one.
pub fn folders(described: Vec<BackupRepository>) -> Vec<BackupRepository> {
    let mut seen = HashSet::new();
    let place = |r: &BackupRepository| {
        let secret = r.credential_secret.as_ref().map(|s| (s.namespace.clone(), s.name.clone(), s.key.clone()));
        (r.repository_parameters.clone(), secret)
    };
    let ours = described.into_iter().filter(|r| r.repository_driver == REPOSITORY_DRIVER);
    ours.filter(|r| seen.insert(place(r))).collect()
}

async fn all<K>(client: &Client) -> Result<Vec<K>, Problem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    Ok(listed.map_err(|e| from_kube(&format!("list {}", K::plural(&())), &e))?.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_did_not_answer_is_not_waited_for_once_a_repository_and_another_one_is() {
        let described = |name: &str, prefix: &str, url: &str, keys: Option<&str>| {
            let mut described = BackupRepository::new(name);
            let map = [(key::BUCKET, "b"), (key::STORAGE_PREFIX, prefix), (key::S3_URL, url)];
            described.repository_parameters = map.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let named = |keys: &str| CredentialSecret { name: keys.to_owned(), ..CredentialSecret::default() };
            described.credential_secret = keys.map(named);
            described
        };
        let (dead, other) = ("http://dead:9000", "http://other:9000");
        let (refused, mute) = (Reason::StoreAccessDenied, Reason::StoreUnreachable);
        let mut silent = Silent::default();
        let asked = described("br-1", "shop", dead, None);
        silent.note(&asked, &Problem::passing(refused, "list it: access denied"));
        assert!(!silent.knows(&asked), "a refusal is an answer");
        silent.note(&asked, &Problem::passing(mute, "list it: no answer"));
        let cases = [
            ("the same", described("br-1", "shop", dead, None), true),
            ("another folder of it", described("br-2", "bank", dead, None), true),
            ("another server", described("br-3", "shop", other, None), false),
            ("other keys, as where there were none to sign with", described("br-4", "shop", dead, Some("keys")), false),
        ];
        for (situation, described, is_silent) in cases {
            assert_eq!(silent.knows(&described), is_silent, "{situation}");
        }
    }

    #[test]
    fn who_was_not_asked_is_named_and_never_floods_the_screen() {
        assert_eq!(not_asked("list restore points", &[]), None);
        let who: Vec<_> = (0..7).map(|n| called(&BackupRepository::new(&format!("br-{n}")), "shop")).collect();
        let told = not_asked("list restore points", &who).map(|problem| (problem.reason, problem.cause));
        let (reason, cause) = told.unwrap_or_else(|| unreachable!("seven of them"));
        assert_eq!(reason, Reason::StoreUnreachable);
        assert!(cause.contains("br-0 (namespace shop), br-1") && cause.ends_with(", and 2 more"), "{cause}");
    }

    #[test]
    fn one_bucket_is_looked_through_once_however_many_namespaces_lie_in_it() {
        let described = |namespace: &str, bucket: &str| {
            let mut described = BackupRepository::new(namespace);
            described.allowed_namespaces = vec![namespace.to_owned()];
            described.repository_parameters.insert("bucket".to_owned(), bucket.to_owned());
            described
        };
        let all = vec![described("a", "one"), described("b", "one"), described("c", "two")];
        let names: Vec<_> = folders(all).iter().map(|r| r.name_any()).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
