//! What the driver's sweeps would remove. Only told.

use std::time::Duration;

use api::{BackupRepository, DownloadPhase, Reason, Upload, UploadPhase, names};
use connections::leftovers::AllListed;
use connections::{Repositories, Vcenters, from_kube, from_repository, leftovers};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::SignedDuration;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::doctor::leftovers::{Left, judge};
use lifecycle::doctor::{Finding, Matter};
use lifecycle::orphans::leases::{Transfer, goes, made};
use lifecycle::orphans::{Installation, Kind};

use repository::store::Store as _;

use super::{AT_ONCE, Doctor};

/// A bucket may take so long to say what is open in it.
const A_BUCKET: Duration = Duration::from_secs(40);

impl Doctor {
    pub(super) async fn look_for_leftovers(&mut self, centers: &Vcenters, opens: &Repositories) -> Result<(), Problem> {
        let cluster = self.cluster_id().await?;
        let snapshots = self.left_disk_snapshots(centers, &cluster).await;
        self.tell(Left::DiskSnapshot, snapshots);
        let leases = self.left_leases().await;
        self.tell(Left::Lease, leases);
        let settings = self.settings.orphans();
        let now = self.cluster_time();
        let described = leftovers::without_claim(&self.client, &settings, now).await;
        self.tell(Left::Repository, described.map(|left| left.iter().map(|r| r.name_any()).collect()));
        let claims = leftovers::unasked_claims(&self.client, &self.velero_namespace, &settings, now).await;
        self.tell(Left::RepositoryClaim, claims.map(|left| left.iter().map(|claim| claim.name_any()).collect()));
        let disks = leftovers::unused_new_disks(&self.client, &self.velero_namespace, &settings, now).await;
        let named = |download: &api::Download| {
            let disk = download.spec.protected_entity_id.as_deref().unwrap_or_default();
            format!("{} of Download {}", disk.trim_start_matches("ivd:"), download.name_any())
        };
        self.tell(Left::NewDisk, disks.map(|left| left.iter().map(named).collect()));
        let open = self.left_open_uploads(opens).await;
        self.tell(Left::OpenUpload, open);
        let points = self.left_restore_points(opens, &cluster).await;
        let removed = self.settings.orphans().remove_restore_points;
        self.tell(Left::RestorePoint { removed }, points);
        Ok(())
    }

    fn tell(&mut self, left: Left, found: Result<Vec<String>, Problem>) {
        match found {
            // of those that could not be looked for nobody knows whether there are none
            Ok(found) if found.is_empty() && self.unlooked.contains(&left.kind()) => {}
            Ok(found) => self.find(judge(left, &found)),
            // why it could not be looked at has a finding of its own: it was asked before
            Err(problem) => {
                self.unlooked.push(left.kind());
                let seen = format!("leftovers of kind {} could not be looked for: {problem}", left.kind().as_str());
                let fix = "Mend the problem, then run doctor again.";
                self.find(Finding::warning(Matter::Leftovers, seen, "There may be some.", fix).because(problem.reason));
            }
        }
    }

    async fn left_disk_snapshots(&mut self, centers: &Vcenters, cluster: &str) -> Result<Vec<String>, Problem> {
        let disks = leftovers::disks(&self.client).await?;
        if disks.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(trouble) = &self.vcenter_trouble {
            return Err(trouble.clone());
        }
        let centers = centers.centers().await?;
        let of = Installation { cluster, namespace: &self.velero_namespace };
        let (found, problems) = leftovers::disk_snapshots(&self.client, &centers, &disks, of).await?;
        for problem in problems {
            self.tell(Left::DiskSnapshot, Err(problem));
        }
        Ok(found.iter().map(|taken| taken.disk_snapshot.to_string()).collect())
    }

    /// Leases whose transfer has ended and that have run out, and those that the original has left.
    async fn left_leases(&self) -> Result<Vec<String>, Problem> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let leases = leases.list(&ListParams::default()).await;
        let leases = leases.map_err(|e| from_kube("list leases of transfers", &e))?.items;
        let now = self.cluster_time();
        if leases.iter().all(|lease| made(lease, now).is_none()) {
            return Ok(Vec::new());
        }
        let (uploads, downloads) = (self.all::<Upload>().await?, self.all::<api::Download>().await?);
        let of_upload = |name: &str| {
            let found = uploads.iter().find(|upload| upload.name_any() == name);
            Transfer::of(found.map(|upload| upload.phase().is_some_and(UploadPhase::is_terminal)))
        };
        let of_download = |name: &str| {
            let found = downloads.iter().find(|download| download.name_any() == name);
            Transfer::of(found.map(|download| download.phase().is_some_and(DownloadPhase::is_terminal)))
        };
        let is_left = |lease: &&Lease| {
            let Some(made) = made(lease, now) else { return false };
            let name = lease.name_any();
            let transfer =
                match (name.strip_prefix(&names::upload_lease("")), name.strip_prefix(&names::download_lease(""))) {
                    (Some(upload), _) => of_upload(upload),
                    (None, Some(download)) => of_download(download),
                    (None, None) => return false,
                };
            goes(made, transfer, self.is_held(lease))
        };
        Ok(leases.iter().filter(is_left).map(|lease| lease.name_any()).collect())
    }

    fn is_held(&self, lease: &Lease) -> bool {
        let Some(spec) = &lease.spec else { return false };
        if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
            return false;
        }
        let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or_default().into());
        let until = spec.renew_time.as_ref().and_then(|renewed| renewed.0.checked_add(lasts).ok());
        until.is_some_and(|until| until >= self.cluster_time())
    }

    /// In every bucket that answers; of the others it is told that nobody knows.
    async fn left_open_uploads(&mut self, opens: &Repositories) -> Result<Vec<String>, Problem> {
        let folders = leftovers::folders(self.all().await?);
        let (silent, asked): (Vec<_>, Vec<_>) = folders.into_iter().partition(|described| self.silent.knows(described));
        let this: &Self = self;
        let looks = stream::iter(&asked).map(|described| this.left_open_in(described, opens));
        let looked: Vec<_> = looks.buffered(AT_ONCE).collect().await;
        let mut found = Vec::new();
        for looked in looked {
            match looked {
                Ok(open) => found.extend(open),
                // that a store is slow in this says nothing of the rest of it
                Err(problem) => self.tell(Left::OpenUpload, Err(problem)),
            }
        }
        let silent: Vec<_> = silent.iter().map(|described| described.name_any()).collect();
        if let Some(problem) = leftovers::not_asked("look for uploads in parts", &silent) {
            self.tell(Left::OpenUpload, Err(problem));
        }
        Ok(found)
    }

    async fn left_open_in(&self, described: &BackupRepository, opens: &Repositories) -> Result<Vec<String>, Problem> {
        let store = opens.store(described).await?;
        let settings = self.settings.orphans();
        let look = leftovers::open_uploads(&store, &settings, self.cluster_time());
        let open = tokio::time::timeout(A_BUCKET, look).await.map_err(|_| {
            let cause =
                format!("look for uploads in parts: {} did not say within {} s", store.place(), A_BUCKET.as_secs());
            Problem::passing(Reason::StoreUnreachable, cause)
        })?;
        let open = open.map_err(|source| {
            let act = "look for uploads in parts".to_owned();
            from_repository("look at the bucket", &repository::Error::Store { act, source })
        })?;
        Ok(open.into_iter().map(|open| open.upload.key).collect())
    }

    /// Restore points without an owner; what keeps a repository from being opened is told as it is met.
    async fn left_restore_points(&mut self, opens: &Repositories, cluster: &str) -> Result<Vec<String>, Problem> {
        let AllListed { listed, problems, unasked } =
            leftovers::restore_points(&self.client, opens, self.silent.clone()).await?;
        for problem in &problems {
            self.find(Finding::of(Matter::Storage, problem));
            self.unlooked.push(Kind::RestorePoint);
        }
        let is_whole = problems.is_empty() && unasked.is_none();
        if let Some(problem) = unasked {
            let removed = self.settings.orphans().remove_restore_points;
            self.tell(Left::RestorePoint { removed }, Err(problem));
        }
        let count: usize = listed.iter().map(|listed| listed.points.len()).sum();
        if is_whole {
            let seen = format!("{} repositories can be opened; they hold {count} restore points", listed.len());
            self.find(Finding::ok(Matter::Storage, seen));
        }
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        // without Velero nobody can say that a backup is gone
        let Some(owners) = leftovers::owners(&self.client, &self.velero_namespace).await? else {
            return Ok(Vec::new());
        };
        let (settings, now) = (self.settings.orphans(), self.cluster_time());
        let left = listed.iter().flat_map(|listed| leftovers::unowned(listed, &owners, cluster, &settings, now));
        Ok(left.map(|point| format!("{} of {}", &point.id[..8], point.path)).collect())
    }
}
