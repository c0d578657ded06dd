//! Leases: who may work on something. A dead holder is followed, and a holder that cannot renew stops in time.
//!
//! Nobody's clock is trusted but our own: a lease counts as free when *we* have watched it unchanged for as long as it
//! lasts. A holder counts itself out after two thirds of that, measured from before its last renewal was sent, so the
//! old holder has stopped when the new one starts. A released lease is deleted.
//!
//! Who looks at many leases watches them ([`Leases::watched`]) instead of asking for each. What a watch shows may be old;
//! so nothing is taken on its word: a lease that seems not to be there is created, which fails when it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{Timestamp, labels};
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::{Lease as Record, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::client::watching;
use crate::error::{chain, is_code};
use crate::{Error, Metrics, Watches};

/// How long a leader's lease lasts.
const LEADER: Duration = Duration::from_secs(15);
/// How long a transfer's lease lasts, as the original's.
const TRANSFER: Duration = Duration::from_secs(60);
/// How long a lease that somebody else created just before us counts as held, until the watch shows it.
const JUST_LOST: Duration = Duration::from_secs(1);

/// Takes leases in one namespace for one holder. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    api: Api<Record>,
    holder: String,
    lasts: Duration,
    seen: Arc<Mutex<HashMap<String, Sighting>>>,
    shown: Option<Store<Record>>,
    lost: Arc<Mutex<HashMap<String, Instant>>>,
}

/// A record as we first saw it in this shape.
struct Sighting {
    version: String,
    since: Instant,
}

/// What became of an attempt to take a lease.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made once per transfer; a box would only make it harder to use")]
pub enum Taken {
    /// It is ours.
    Ours(Lease),
    /// Somebody else has it.
    Busy {
        /// Who.
        holder: String,
        /// How long until it is free if it is not renewed.
        free_in: Duration,
    },
}

impl Leases {
    /// Leases for the one active process of a kind: 15 s.
    pub fn leader(client: Client, namespace: &str, holder: &str) -> Self {
        Self::new(client, namespace, holder, LEADER)
    }

    /// Leases for transfers: 60 s.
    pub fn transfers(client: Client, namespace: &str, holder: &str) -> Self {
        Self::new(client, namespace, holder, TRANSFER)
    }

    /// Leases that last `lasts` after each renewal.
    pub fn new(client: Client, namespace: &str, holder: &str, lasts: Duration) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, holder: holder.to_owned(), lasts, seen: Arc::default(), shown: None, lost: Arc::default() }
    }

    /// The same leases, and the watch that shows them while it is polled: looks ask the API server for nothing then. It has
    /// an item for each lease that was given back, whoever had it. The driver's own lease is left out: it is renewed every
    /// few seconds.
    pub fn watched(self, metrics: &Metrics) -> (Self, impl Stream<Item = ()> + Send + use<>) {
        let (shown, writer) = reflector::store();
        let config = watching().fields(&format!("metadata.name!={}", api::names::DRIVER_LEASE));
        let seen = reflector::reflector(writer, watcher(self.api.clone(), config)).default_backoff();
        let mut watches = Watches::of::<Record>(metrics);
        let given_back = seen.filter_map(move |event| {
            watches.saw(&event);
            std::future::ready(matches!(event, Ok(watcher::Event::Delete(_))).then_some(()))
        });
        (Self { shown: Some(shown), ..self }, given_back)
    }

    /// Who holds a lease, without taking it: `None` when it is free or ours.
    pub async fn held_by_another(&self, name: &str) -> Result<Option<(String, Duration)>, Error> {
        if let Some(free_in) = self.just_lost(name) {
            return Ok(Some(("another".to_owned(), free_in)));
        }
        let record = match self.shown(name) {
            Some(shown) => shown,
            None => self.read(name).await?,
        };
        Ok(record.and_then(|r| self.busy(&r)))
    }

    async fn read(&self, name: &str) -> Result<Option<Record>, Error> {
        self.api.get_opt(name).await.map_err(|e| Error::api(format!("read lease {name}"), e))
    }

    /// What the watch shows of a lease; the outer `None`: it shows nothing yet, or there is no watch.
    fn shown(&self, name: &str) -> Option<Option<Record>> {
        let store = self.shown.as_ref()?;
        store.wait_until_ready().now_or_never()?.ok()?;
        let within = self.api.namespace().unwrap_or_default();
        Some(store.get(&ObjectRef::new(name).within(within)).map(|record| record.as_ref().clone()))
    }

    /// For how long a lease that we have just lost to somebody counts as held.
    fn just_lost(&self, name: &str) -> Option<Duration> {
        let mut lost = self.lost.lock().expect("no panic while it is held");
        lost.retain(|_, since| since.elapsed() < JUST_LOST);
        lost.get(name).map(|since| JUST_LOST.saturating_sub(since.elapsed()))
    }

    /// Takes a lease that is free, expired or already ours (we restarted). The lease renews itself until dropped or
    /// released.
    pub async fn take(&self, name: &str) -> Result<Taken, Error> {
        let started = Instant::now();
        let present = match self.shown(name) {
            Some(None) => None,
            Some(Some(_)) | None => self.read(name).await?,
        };
        let written = match present {
            None => self.api.create(&PostParams::default(), &self.record(name, None)).await,
            Some(record) => match self.busy(&record) {
                Some((holder, free_in)) => return Ok(Taken::Busy { holder, free_in }),
                None => self.api.replace(name, &PostParams::default(), &self.record(name, Some(&record))).await,
            },
        };
        match written {
            Ok(record) => Ok(Taken::Ours(Lease::keep(self.clone(), record, started))),
            // somebody was faster; whoever it is, the next look shows
            Err(e) if is_code(&e, 409) => {
                self.lost.lock().expect("no panic while it is held").insert(name.to_owned(), Instant::now());
                Ok(Taken::Busy { holder: "another".to_owned(), free_in: self.lasts })
            }
            Err(e) => Err(Error::api(format!("take lease {name}"), e)),
        }
    }

    /// Takes a lease as soon as it can be had.
    pub async fn wait_for(&self, name: &str, stop: &CancellationToken) -> Result<Lease, Error> {
        let mut told = String::new();
        loop {
            let pause = match self.take(name).await {
                Ok(Taken::Ours(lease)) => return Ok(lease),
                Ok(Taken::Busy { holder, free_in }) => {
                    if told != holder {
                        tracing::info!(lease = name, holder, "waiting for the lease");
                        told = holder;
                    }
                    free_in.min(self.lasts / 5)
                }
                Err(error) => {
                    tracing::warn!(lease = name, error = chain(&error), "the lease cannot be read; trying again");
                    self.lasts / 5
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(pause.max(Duration::from_millis(100))) => {}
            }
        }
    }

    /// The other holder and how long its lease may still last; `None` when we may take it.
    fn busy(&self, record: &Record) -> Option<(String, Duration)> {
        let spec = record.spec.as_ref()?;
        let holder = spec.holder_identity.clone().filter(|h| !h.is_empty())?;
        if holder == self.holder {
            return None;
        }
        let lasts =
            spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map_or(self.lasts, Duration::from_secs);
        let unchanged_for = self.unchanged_for(record);
        (unchanged_for < lasts).then(|| (holder, lasts - unchanged_for))
    }

    /// For how long we have seen this record as it is.
    fn unchanged_for(&self, record: &Record) -> Duration {
        let version = record.resource_version().unwrap_or_default();
        let mut seen = self.seen.lock().expect("no panic while it is held");
        seen.retain(|_, s| s.since.elapsed() < Duration::from_secs(3600)); // deleted ones need no memory
        let sighting = seen
            .entry(record.name_any())
            .and_modify(|s| {
                if s.version != version {
                    *s = Sighting { version: version.clone(), since: Instant::now() };
                }
            })
            .or_insert_with(|| Sighting { version: version.clone(), since: Instant::now() });
        sighting.since.elapsed()
    }

    fn record(&self, name: &str, before: Option<&Record>) -> Record {
        let now = MicroTime(Timestamp::now());
        let old = before.and_then(|r| r.spec.clone()).unwrap_or_default();
        let same = old.holder_identity.as_deref() == Some(self.holder.as_str());
        let transitions = old.lease_transitions.unwrap_or(0) + i32::from(before.is_some() && !same);
        Record {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: self.api.namespace().map(str::to_owned),
                resource_version: before.and_then(ResourceExt::resource_version),
                labels: Some(labels::ours()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: i32::try_from(self.lasts.as_secs().max(1)).ok(),
                acquire_time: old.acquire_time.filter(|_| same).or(Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// A lease that is ours. Renewed in the background; dropping it stops renewing and lets it expire.
#[derive(Debug)]
pub struct Lease {
    name: String,
    api: Api<Record>,
    lost: CancellationToken,
    renewing: tokio::task::JoinHandle<Record>,
    quit: CancellationToken,
}

impl Lease {
    fn keep(leases: Leases, record: Record, renewed: Instant) -> Self {
        let (lost, quit) = (CancellationToken::new(), CancellationToken::new());
        let (name, api) = (record.name_any(), leases.api.clone());
        let renewing = tokio::spawn(renew(leases, record, renewed, lost.clone(), quit.clone()));
        Self { name, api, lost, renewing, quit }
    }

    /// Cancelled before the lease ends when it could not be renewed, or at once when somebody else has it. Work under
    /// the lease must have stopped writing within the third of the lease that is left then.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives the lease back: the record is deleted, unless somebody else has it by now.
    pub async fn release(mut self) {
        self.quit.cancel();
        let Ok(record) = (&mut self.renewing).await else { return };
        if self.lost.is_cancelled() {
            return;
        }
        let ours = Preconditions { uid: record.uid(), resource_version: record.resource_version() };
        let deleted =
            self.api.delete(&self.name, &DeleteParams { preconditions: Some(ours), ..DeleteParams::default() }).await;
        if let Err(error) = deleted {
            tracing::warn!(
                lease = self.name,
                error = chain(&error),
                "the lease could not be given back; it will expire"
            );
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.quit.cancel();
    }
}

/// Renews every sixth of the lease, and reports it lost after two thirds without success.
async fn renew(
    leases: Leases,
    mut record: Record,
    mut renewed: Instant,
    lost: CancellationToken,
    quit: CancellationToken,
) -> Record {
    let name = record.name_any();
    let (every, last) = (leases.lasts / 6, leases.lasts * 2 / 3);
    loop {
        tokio::select! {
            () = quit.cancelled() => return record,
            () = tokio::time::sleep(every) => {}
        }
        let started = Instant::now();
        let left = last.saturating_sub(renewed.elapsed());
        let next = leases.record(&name, Some(&record));
        let params = PostParams::default();
        let answer = tokio::time::timeout(left, leases.api.replace(&name, &params, &next)).await;
        match answer {
            Ok(Ok(written)) => (record, renewed) = (written, started),
            Ok(Err(e)) if is_code(&e, 409) || is_code(&e, 404) => match refresh(&leases, &name).await {
                Refreshed::Ours(fresh) => record = *fresh, // our own write whose answer was lost
                Refreshed::NotOurs => {
                    tracing::warn!(lease = name, "somebody else has the lease");
                    lost.cancel();
                    return record;
                }
                Refreshed::Unknown => {}
            },
            Ok(Err(error)) => {
                tracing::warn!(lease = name, error = chain(&error), "the lease could not be renewed; trying again");
            }
            Err(_) => {}
        }
        if renewed.elapsed() >= last {
            tracing::warn!(lease = name, "the lease could not be renewed in time; stopping what it covers");
            lost.cancel();
            return record;
        }
    }
}

enum Refreshed {
    Ours(Box<Record>),
    NotOurs,
    Unknown,
}

async fn refresh(leases: &Leases, name: &str) -> Refreshed {
    match tokio::time::timeout(leases.lasts / 6, leases.api.get_opt(name)).await {
        Ok(Ok(Some(record))) => {
            let holder = record.spec.as_ref().and_then(|s| s.holder_identity.as_deref());
            if holder == Some(leases.holder.as_str()) { Refreshed::Ours(Box::new(record)) } else { Refreshed::NotOurs }
        }
        Ok(Ok(None)) => Refreshed::NotOurs,
        Ok(Err(_)) | Err(_) => Refreshed::Unknown,
    }
}
