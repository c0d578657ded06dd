//! `velero.io/vsphere-pvc-deleter`: the data of a claim goes with the backup. The DeleteSnapshot carries the duty: Velero
//! drops the backup half a second later, whatever we answer (V-09).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{DeleteSnapshot, Reason};
use async_trait::async_trait;
use kube::Api;
use kube::api::PostParams;
use lifecycle::Problem;
use lifecycle::velero::delete::{self, Decision, Delete};
use serde_json::Value;
use uuid::Uuid;

use super::patience::Patience;
use super::reads::{self, Reads};
use super::{deletion, failed, refused, say, waits};
use crate::Item;
use crate::protocol::kinds::{ActionError, DeleteItemAction, Selector};

/// How long Velero's deletion waits for ours. Whatever takes longer goes on by itself.
const WATCHED_FOR: Duration = Duration::from_secs(30);

/// The same once a deletion of this run took longer: Velero asks for one claim after the other, and a hundred claims would
/// keep it for an hour.
const WATCHED_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// How long the storage location's repository is looked for. The duty must be written down before Velero loses patience.
const LOOKED_FOR: Duration = Duration::from_secs(20);

/// How long an API server that is away is asked again: Velero forgets the backup whatever we answer (V-09), and the duty
/// with it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// How long an API server that has just started may refuse us, because it has not read its accounts and roles yet.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct ClaimDelete {
    pub(super) reads: Arc<Reads>,
    /// With the deletion itself.
    pub(super) patience: Patience,
    /// How long the repository is looked for.
    pub(super) looked_for: Duration,
    /// How long 401 and 403 may be those of an API server that starts.
    pub(super) starts_within: Duration,
    /// When this run met the first of them in a row: a refusal that lasts keeps Velero once, not for every claim.
    pub(super) refused_since: Mutex<Option<Instant>>,
}

#[async_trait]
impl DeleteItemAction for ClaimDelete {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources(["persistentvolumeclaims"]))
    }

    async fn execute(&self, item: Item, backup: &Value) -> Result<(), ActionError> {
        let backup = reads::backup(backup)?;
        let settings = waits::insist(WRITTEN_WITHIN, |_| false, || self.reads.settings()).await?;
        match delete::decide(&backup, item.tree(), settings.local_mode) {
            Decision::Nothing(note) => {
                say(&note);
                Ok(())
            }
            Decision::Refuse(problem) => Err(refused(&problem)),
            Decision::Delete(wanted) => self.delete(&backup, &wanted).await,
        }
    }
}

impl ClaimDelete {
    pub(super) fn new(reads: Arc<Reads>) -> Self {
        Self {
            reads,
            patience: Patience::new(WATCHED_FOR, WATCHED_AFTER_SILENCE),
            looked_for: LOOKED_FOR,
            starts_within: STARTS_WITHIN,
            refused_since: Mutex::default(),
        }
    }

    /// The storage location's repository; the one that the backup was made with where that cannot be had now, as when the
    /// location was edited and nobody is there to make a repository of it. The driver finds out whether it will do.
    async fn repository(&self, backup: &api::velero::Backup, wanted: &Delete) -> Result<String, ActionError> {
        let looking = self.reads.repository_at(backup.spec.storage_location.as_deref(), &wanted.source_namespace);
        let why = match tokio::time::timeout(self.looked_for, looking).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => {
                self.reads.patience.ran_out(); // the next claim of this run need not look as long
                let within = self.looked_for.as_secs();
                let cause = format!("find the repository of the backup: no answer within {within} s");
                refused(&Problem::passing(Reason::DriverSilent, cause))
            }
        };
        let Some(recorded) = wanted.recorded_repository.clone() else { return Err(why) };
        tracing::info!(
            repository = recorded,
            why = why.message(),
            "deleting from the repository of the backup's record"
        );
        Ok(recorded)
    }

    fn refused_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the API server has looked at the request and will not have it; another try would change nothing.
    fn is_final(&self, error: &kube::Error) -> bool {
        let kube::Error::Api(status) = error else { return false };
        match status.code {
            401 | 403 => self.refused_since().get_or_insert_with(Instant::now).elapsed() >= self.starts_within,
            code => (400..500).contains(&code) && code != 429,
        }
    }

    async fn delete(&self, backup: &api::velero::Backup, wanted: &Delete) -> Result<(), ActionError> {
        let repository = match wanted.local {
            true => String::new(),
            false => self.repository(backup, wanted).await?,
        };
        let name = api::names::delete_snapshot(Uuid::new_v4());
        let request = wanted.request(backup, self.reads.velero(), &repository, &name);
        let deletes: Api<DeleteSnapshot> = Api::namespaced(self.reads.client().await?, self.reads.velero());
        waits::insist(WRITTEN_WITHIN, |error| self.is_final(error), || written_down(&deletes, &request))
            .await
            .map_err(failed("make a DeleteSnapshot for the claim"))?;
        *self.refused_since() = None; // another server of a control plane may start later
        let act = "watch the DeleteSnapshot";
        let waited = waits::until(deletes, &name, self.patience.lasts(), act, deletion::is_over).await;
        deletion::told(&name, waited, &self.patience)
    }
}

/// Makes it. One that is there was made by an earlier try whose answer got lost: its name is ours alone.
async fn written_down(deletes: &Api<DeleteSnapshot>, request: &DeleteSnapshot) -> kube::Result<()> {
    match deletes.create(&PostParams::default(), request).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        made => made.map(drop),
    }
}
