//! Objects of a kind as a watch shows them, and which of them changed. A look at them asks the API server for nothing, and
//! whoever is told of a change finds it in the store.
//!
//! What a watch shows may be older than what we have written ourselves; [`Written`] knows.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt};
use lifecycle::Problem;
use serde::de::DeserializeOwned;

/// How long a write is remembered; by then the watch has shown it, or has begun anew.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A store, and the stream that fills it: with each object that changed, was deleted, or is there when the watch begins
/// anew. It has to be polled.
pub(crate) fn shown<K>(objects: Api<K>) -> (Store<K>, impl Stream<Item = Arc<K>> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let seen = reflector::reflector(writer, watcher(objects, watcher::Config::default())).default_backoff();
    let all = store.clone();
    let changed = seen.flat_map(move |event| {
        stream::iter(match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => vec![Arc::new(object)],
            Ok(Event::InitDone) => all.state(),
            Ok(Event::Init | Event::InitApply(_)) => Vec::new(), // not in the store yet
            Err(error) => {
                let error = Problem::chain(&error);
                tracing::debug!(kind = %K::kind(&()), error, "not shown at the moment; trying again");
                Vec::new()
            }
        })
    });
    (store, changed)
}

/// In which version we have written objects last.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, (String, Instant)>>);

impl Written {
    /// We have written it.
    pub(crate) fn note<K: Resource>(&self, object: &K) {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        all.insert(uid, (version, Instant::now()));
    }

    /// Whether an object is older than what we have written: then it will come again.
    pub(crate) fn is_newer_than<K: Resource>(&self, object: &K) -> bool {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else { return false };
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&uid).is_some_and(|(written, _)| number(written) > number(&version))
    }
}

/// Versions count up. Kubernetes promises it since 1.35 and has always done so.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Snapshot, SnapshotSpec};

    fn in_version(version: &str) -> Snapshot {
        let mut snapshot = Snapshot::new("s", SnapshotSpec::default());
        snapshot.metadata.uid = Some("u".to_owned());
        snapshot.metadata.resource_version = Some(version.to_owned());
        snapshot
    }

    #[test]
    fn nothing_is_decided_on_what_was_there_before_our_own_last_write() {
        let written = Written::default();
        assert!(!written.is_newer_than(&in_version("99")), "another driver wrote it");
        written.note(&in_version("100"));
        assert!(written.is_newer_than(&in_version("99")));
        assert!(!written.is_newer_than(&in_version("100")));
        assert!(!written.is_newer_than(&in_version("101")), "somebody else has written since");
    }
}
