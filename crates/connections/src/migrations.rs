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
use lifecycle::snapshot::{Backing, Migrated, Migration, backing};
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

/// A list, or why there is none, and when it was begun and over.
struct Listed {
    begun: Instant,
    ended: Instant,
    records: Result<Records, Problem>,
}

impl Listed {
    /// What it says to who has asked then; `None`: a new one must be made. One that was begun later answers in any case. Who waited while
    /// it failed is told so, and need not wait for another failure; of an older one only what it has is taken, since a record may have
    /// come.
    fn answers(&self, migrated: &Migrated, asked: Instant) -> Option<Result<DiskId, Problem>> {
        match &self.records {
            Err(problem) => (self.ended >= asked).then(|| Err(problem.clone())),
            Ok(records) => {
                let disk = migrated.disk(records.as_deref());
                (self.begun >= asked || (self.ended.elapsed() < FRESH && disk.is_ok())).then_some(disk)
            }
        }
    }
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
        if let Some(answer) = listed.as_ref().and_then(|listed| listed.answers(migrated, asked)) {
            return answer;
        }
        let begun = Instant::now();
        let late = |_| {
            let cause = format!("list cnsvspherevolumemigrations: not all listed within {} s", LISTED_WITHIN.as_secs());
            Problem::passing(Reason::ClusterUnreachable, cause)
        };
        let records = tokio::time::timeout(LISTED_WITHIN, list(&self.client)).await.map_err(late).flatten();
        let disk = records.as_ref().map_err(Problem::clone).and_then(|records| migrated.disk(records.as_deref()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const PATH: &str = "[ds] kubevols/data.vmdk";

    fn listed(begun: Instant, records: Result<Records, Problem>) -> Listed {
        Listed { begun, ended: begun + Duration::from_secs(2), records }
    }

    #[test]
    fn who_waits_while_the_records_cannot_be_listed_is_told_so_with_the_others_and_does_not_wait_in_a_row() {
        let begun = Instant::now();
        let migrated = Migrated { volume: "pv-1".to_owned(), path: PATH.to_owned() };
        let has = || Ok(Some(vec![Migration { path: PATH.to_owned(), disk: "disk-1".to_owned() }]));
        let away = || Err(Problem::passing(Reason::ClusterUnreachable, "list: away"));
        let (before, meanwhile, after) = (begun, begun + Duration::from_secs(1), begun + Duration::from_secs(3));
        let unknown = Some(Err(Reason::MigrationUnknown));
        let failed = Some(Err(Reason::ClusterUnreachable));
        let cases = [
            ("listed since", before, has(), Some(Ok(()))),
            ("listed since, and it is not there", before, Ok(None), unknown),
            ("listed a moment ago", after, has(), Some(Ok(()))),
            ("listed a moment ago, and it may have come since", after, Ok(None), None),
            ("it has failed since", before, away(), failed),
            ("it failed while others waited", meanwhile, away(), failed),
            ("it had failed before", after, away(), None),
        ];
        for (situation, asked, records, want) in cases {
            let answer = listed(begun, records).answers(&migrated, asked);
            let told = answer.map(|answer| answer.map(drop).map_err(|problem| problem.reason));
            assert_eq!(told, want, "{situation}");
        }
    }
}
