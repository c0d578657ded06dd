//! What every controller of the driver needs, made once.

use std::sync::Arc;
use std::time::Duration;

use api::{Download, Timestamp, Upload};
use connections::{Migrations, Repositories, Vcenters};
use kube::runtime::controller::Action;
use kube::{Client, Resource, ResourceExt};
use lifecycle::age::{self, SaysWhen};
use lifecycle::new_disk;
use lifecycle::orphans::Installation;
use lifecycle::{Problem, retry};
use operator::{Guard, Leases, Metrics, Pace, Publisher, Reported};
use tokio::sync::{Notify, Semaphore};

use crate::Error;
use crate::lasting::Lasting;
use crate::pauses::Pauses;
use crate::shown::{Shown, Written};

/// How long a look waits after it met a change: the change itself comes as an event.
const AFTER_CONFLICT: Duration = Duration::from_millis(300);

/// Shared by all controllers.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The Velero namespace.
    pub namespace: String,
    /// The cluster: uid of namespace kube-system.
    pub cluster: String,
    /// Writes statuses and events.
    pub publisher: Publisher,
    /// vCenter.
    pub vcenters: Vcenters,
    /// Repositories.
    pub repositories: Repositories,
    /// Which disks volumes of the old in-tree driver have.
    pub migrations: Migrations,
    /// Who works on which transfer; the driver takes none of these.
    pub transfers: Leases,
    /// Counters.
    pub metrics: Metrics,
    /// Errors in a row, per object.
    pub pace: Arc<Pace>,
    /// When failed attempts are due again.
    pub pauses: Arc<Pauses>,
    /// How long Downloads that named no volume have been as they are.
    pub new_disks: Arc<Lasting<new_disk::State>>,
    /// The Uploads of the Velero namespace.
    pub uploads: Shown<Upload>,
    /// Its Downloads.
    pub downloads: Shown<Download>,
    /// What we have written, so that a watch that lags behind does not make us decide twice.
    pub written: Arc<Written>,
    /// A CloneFromSnapshot was deleted: what it has left is to be removed now.
    pub clone_gone: Arc<Notify>,
    /// Restores that have ended and whose locks are looked for, so many at a time.
    pub unlocking: Arc<Semaphore>,
    /// Objects of one kind that are worked on at a time.
    pub workers: u16,
}

impl Context {
    /// Who we are in the marks on disk snapshots.
    #[must_use]
    pub fn installation(&self) -> Installation<'_> {
        Installation { cluster: &self.cluster, namespace: &self.namespace }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Writes a status if it differs, refused when the object changed since it was read; gives the object as it is now.
    pub async fn publish<K: Reported>(&self, object: &K, status: &K::Status) -> Result<K, Error> {
        let written = self.publisher.publish(object, status, Guard::Unchanged).await?;
        if let Some(written) = &written {
            self.written.note(written);
        }
        Ok(written.unwrap_or_else(|| object.clone()))
    }

    /// Writes when an object ended whose status says that it has and not when: the day for which it is kept begins. It comes back
    /// with that change.
    pub async fn say_when<K: Reported>(&self, object: &K) -> Result<Action, Error>
    where
        K::Status: SaysWhen,
    {
        let before = object.status().cloned().unwrap_or_default();
        self.publish(object, &age::said_when(&before, self.now())).await?;
        Ok(Action::await_change())
    }

    /// Looks again at that time.
    #[must_use]
    pub fn wake_at(&self, at: Timestamp) -> Action {
        Action::requeue(retry::wake(at, self.now()))
    }

    /// What follows a look at an object that ended early: another one, later with each error in a row.
    pub fn after_error<K: Resource<DynamicType = ()>>(&self, object: &K, error: &Error) -> Action {
        if error.is_conflict() {
            return Action::requeue(AFTER_CONFLICT);
        }
        let kind = K::kind(&());
        let pause = self.pace.after_error(&object.uid().unwrap_or_default(), retry::controller_pause);
        self.metrics.error(&kind);
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let error = Problem::chain(error);
        tracing::warn!(%kind, %namespace, %name, %error, again_in = ?pause, "looking again later");
        Action::requeue(pause)
    }
}
