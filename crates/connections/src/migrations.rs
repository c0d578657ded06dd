//! The records by which the vSphere CSI driver knows the disks of volumes that the in-tree driver made:
//! `cnsvspherevolumemigrations` of group `cns.vmware.com`. `lifecycle::snapshot` decides which one is meant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Reason;
use disk::DiskId;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use lifecycle::Problem;
use lifecycle::snapshot::{Backing, Migration, backing};
use tokio::sync::Mutex;

use crate::from_kube;

/// Longest time for all records.
const LISTED_WITHIN: Duration = Duration::from_secs(30);
/// How long a list is good for: the claims of a backup come in a row, and a cluster may have thousands of records.
const FRESH: Duration = Duration::from_secs(5);
/// Records that are listed at a time.
const PAGE: u32 = 500;

/// All records; `None` where the cluster has no definition of them.
type Records = Option<Vec<Migration>>;

/// The records of one cluster. Cheap to clone; clones share what was listed.
#[derive(Clone)]
pub struct Migrations {
    client: Client,
    listed: Arc<Mutex<Option<Listed>>>,
}

/// A list, and when it was begun and there.
struct Listed {
    begun: Instant,
    ended: Instant,
    records: Records,
}

impl Migrations {
    /// The records of that API server's cluster.
    pub fn new(client: Client) -> Self {
        Self { client, listed: Arc::default() }
    }

    /// The disk behind a volume, whether the CSI driver made it or took it over.
    ///
    /// # Errors
    /// `ForeignDriver` for a volume of neither kind; else as [`Migrations::disk`].
    pub async fn disk_of(&self, volume: &PersistentVolume) -> Result<DiskId, Problem> {
        self.disk(&backing(volume)?).await
    }

    /// The disk that a volume says it has. Records are listed for those alone that do not say it themselves.
    ///
    /// # Errors
    /// `MigrationUnknown`, or what the API server says.
    pub async fn disk(&self, backing: &Backing) -> Result<DiskId, Problem> {
        self.disk_since(backing, Instant::now()).await
    }

    /// As [`Migrations::disk`], for one of many volumes: a list that was begun after `asked` answers for all of them, also that there is
    /// no record. From an older one only what it has is taken, since a record may have come.
    pub(crate) async fn disk_since(&self, backing: &Backing, asked: Instant) -> Result<DiskId, Problem> {
        let migrated = match backing {
            Backing::Disk(disk) => return Ok(disk.clone()),
            Backing::Migrated(migrated) => migrated,
        };
        let mut listed = self.listed.lock().await; // one list at a time: whoever waits for it shares it
        if let Some(listed) = listed.as_ref() {
            let disk = migrated.disk(listed.records.as_deref());
            if listed.begun >= asked || (listed.ended.elapsed() < FRESH && disk.is_ok()) {
                return disk;
            }
        }
        let begun = Instant::now();
        let late = |_| {
            let cause = format!("list cnsvspherevolumemigrations: not all listed within {} s", LISTED_WITHIN.as_secs());
            Problem::passing(Reason::ClusterUnreachable, cause)
        };
        let records = tokio::time::timeout(LISTED_WITHIN, list(&self.client)).await.map_err(late)??;
        let disk = migrated.disk(records.as_deref());
        *listed = Some(Listed { begun, ended: Instant::now(), records });
        disk
    }
}

async fn list(client: &Client) -> Result<Records, Problem> {
    let kind = GroupVersionKind::gvk("cns.vmware.com", "v1alpha1", "CnsVSphereVolumeMigration");
    let resource = ApiResource::from_gvk_with_plural(&kind, "cnsvspherevolumemigrations");
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let (mut records, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let listed = match all.list(&page).await {
            Ok(listed) => listed,
            // no volume was ever migrated here: there is not even the definition
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(from_kube("list cnsvspherevolumemigrations", &error)),
        };
        let more = listed.metadata.continue_.clone().filter(|token| !token.is_empty());
        records.extend(listed.items.iter().map(record));
        match more {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(Some(records)),
        }
    }
}

/// What is missing or no text reads as empty, which is no disk's path and no disk's id.
fn record(object: &DynamicObject) -> Migration {
    let text = |field: &str| object.data["spec"][field].as_str().unwrap_or_default().to_owned();
    Migration { path: text("volumepath"), disk: text("volumeid") }
}
