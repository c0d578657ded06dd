//! Objects of a kind as one watch shows them to all who look at them. A look at them asks the API server for nothing, and
//! whoever is told of a change finds it in the store.
//!
//! A kind that several controllers look at is read and kept once: users keep thousands of backups. Only `clones` watches Downloads
//! besides, as its kube `Controller` follows no watch but its own; it keeps none of them. kube shares a watch
//! between its `Controller`s too, behind a feature that it calls unstable and that tells of no deletions; here is no more than its
//! stable `reflector` and `applier`, of which its `Controller` is made as well.
//!
//! What a watch shows may be older than what we have written ourselves; [`Written`] knows.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, applier, watcher};
use kube::{Api, Resource, ResourceExt};
use operator::{Metrics, Watches};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::Error;

/// How long a write is remembered; by then the watch has shown it, or has begun anew.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The objects of a kind, watched once. Cheap to clone; clones show the same.
#[derive(Clone)]
pub struct Shown<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    objects: Store<K>,
    followers: Arc<Mutex<Vec<mpsc::UnboundedSender<Change<K>>>>>,
    touched: watch::Sender<()>,
}

/// What a watch tells of an object.
#[derive(Debug, Clone)]
pub(crate) enum Change<K> {
    /// It is new or another one than before; or the watch has begun anew and it is there.
    There(Arc<K>),
    /// It was deleted. What is deleted before a watch begins anew is not told.
    Gone(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is, or was last.
    pub(crate) fn object(&self) -> &Arc<K> {
        match self {
            Self::There(object) | Self::Gone(object) => object,
        }
    }
}

impl<K> Shown<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// And the watch that shows them as long as it is polled, for ever.
    pub(crate) fn new(objects: Api<K>, metrics: &Metrics) -> (Self, BoxFuture<'static, Infallible>) {
        let (store, writer) = reflector::store();
        let shown = Self::of(store);
        let (telling, mut watches) = (shown.clone(), Watches::of::<K>(metrics));
        let watching = async move {
            let seen = reflector::reflector(writer, watcher(objects, operator::client::watching())).default_backoff();
            let mut seen = pin!(seen);
            loop {
                let event = seen.next().await.expect("a watch goes on for ever, and its pauses too");
                watches.saw(&event);
                if let Ok(event) = event {
                    telling.tell(event);
                }
            }
        };
        (shown, watching.boxed())
    }

    fn of(objects: Store<K>) -> Self {
        Self { objects, followers: Arc::default(), touched: watch::Sender::default() }
    }

    /// Those that there are. Nothing until the watch has begun.
    pub(crate) fn objects(&self) -> &Store<K> {
        &self.objects
    }

    /// What is there, and each change from now on. What is not taken is kept, so it is for who takes it at once.
    pub(crate) fn changes(&self) -> impl Stream<Item = Change<K>> + Send + 'static {
        let (follower, mut told) = mpsc::unbounded_channel();
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.objects.state() {
            let _ = follower.send(Change::There(object)); // it is at hand below
        }
        followers.push(follower);
        stream::poll_fn(move |cx| told.poll_recv(cx))
    }

    /// Tells, for who may be busy for long, that there was some change, however many there were; and that the watch has begun. The
    /// first is told at once.
    pub(crate) fn touched(&self) -> watch::Receiver<()> {
        let mut touched = self.touched.subscribe();
        touched.mark_changed();
        touched
    }

    /// Tells the followers what the store shows already.
    fn tell(&self, event: Event<K>) {
        let changes = match event {
            // what the store keeps, so that it is there once
            Event::Apply(object) => {
                self.objects.get(&ObjectRef::from_obj(&object)).map(Change::There).into_iter().collect()
            }
            Event::Delete(object) => vec![Change::Gone(Arc::new(object))],
            Event::InitDone => self.objects.state().into_iter().map(Change::There).collect(),
            Event::Init | Event::InitApply(_) => return, // not in the store yet
        };
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            followers.retain(|follower| follower.send(change.clone()).is_ok());
        }
        drop(followers);
        self.touched.send_replace(());
    }
}

/// Which object a change tells of.
pub(crate) fn named<K: Resource<DynamicType = ()>>(change: &Change<K>) -> ObjectRef<K> {
    ObjectRef::from_obj(&**change.object())
}

/// Looks at the objects that `queue` names, each for itself and so many at a time as `config` says, until `stop`; looks under way
/// come to their end.
pub(crate) async fn look_at<K, S, F>(
    objects: Store<K>,
    queue: impl Stream<Item = ObjectRef<K>> + Send,
    look: impl Fn(Arc<K>, Arc<S>) -> F,
    after_error: impl Fn(Arc<K>, &Error, Arc<S>) -> Action,
    shared: Arc<S>,
    config: Config,
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    // each look is a task of its own: opening a repository keeps a processor busy
    let look = |object, shared| {
        let looking = AbortOnDropHandle::new(tokio::spawn(look(object, shared).in_current_span()));
        Box::pin(async {
            looking.await.unwrap_or_else(|e| match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(Action::await_change()), // the process is about to end
            })
        })
    };
    let queue = queue.map(Ok::<_, Infallible>).take_until(stop.cancelled_owned());
    let looking = applier(look, after_error, shared, objects, Box::pin(queue), config);
    looking.for_each(|_| std::future::ready(())).await; // errors are told by `after_error`
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
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{Snapshot, SnapshotSpec};
    use kube::runtime::reflector::store::Writer;

    fn in_version(version: &str) -> Snapshot {
        let mut snapshot = Snapshot::new("s", SnapshotSpec::default());
        snapshot.metadata.uid = Some("u".to_owned());
        snapshot.metadata.resource_version = Some(version.to_owned());
        snapshot
    }

    /// What a watch tells, in the store first.
    fn tell(writer: &mut Writer<Snapshot>, shown: &Shown<Snapshot>, event: Event<Snapshot>) {
        writer.apply_watcher_event(&event);
        shown.tell(event);
    }

    /// What a follower has been told since the last time, by name.
    fn told(changes: &mut (impl Stream<Item = Change<Snapshot>> + Unpin)) -> Vec<String> {
        let next = std::iter::from_fn(|| changes.next().now_or_never().flatten());
        let said = |change: Change<Snapshot>| match change {
            Change::There(object) => object.name_any(),
            Change::Gone(object) => format!("{} is gone", object.name_any()),
        };
        let mut all: Vec<_> = next.map(said).collect();
        all.sort();
        all
    }

    fn named(name: &str) -> Snapshot {
        Snapshot::new(name, SnapshotSpec::default())
    }

    #[test]
    fn who_looks_later_than_others_is_told_of_all_there_is_and_nothing_is_kept_twice() {
        let (store, mut writer) = reflector::store();
        let shown = Shown::of(store);
        let (mut early, leaving, mut busy) = (pin!(shown.changes()), shown.changes(), shown.touched());
        assert!(busy.has_changed().unwrap(), "the first is told at once");
        busy.mark_unchanged();
        for event in [Event::Init, Event::InitApply(named("a")), Event::InitApply(named("b"))] {
            tell(&mut writer, &shown, event);
        }
        assert_eq!((told(&mut early), busy.has_changed().unwrap()), (vec![], false), "the list may not be whole");
        tell(&mut writer, &shown, Event::InitDone);
        assert_eq!((told(&mut early), busy.has_changed().unwrap()), (vec!["a".to_owned(), "b".to_owned()], true));
        let mut late = pin!(shown.changes());
        assert_eq!(told(&mut late), ["a", "b"]);
        drop(leaving);
        tell(&mut writer, &shown, Event::Apply(named("c")));
        assert_eq!(shown.followers.lock().unwrap().len(), 2, "one has left");
        let held = shown.objects().get(&ObjectRef::from_obj(&named("c"))).unwrap();
        let Some(Some(Change::There(object))) = late.next().now_or_never() else { panic!("it is told") };
        assert!(Arc::ptr_eq(&held, &object), "what is told is what is kept");
        tell(&mut writer, &shown, Event::Delete(named("a")));
        assert_eq!(
            (told(&mut early), told(&mut late)),
            (vec!["a is gone".to_owned(), "c".to_owned()], vec!["a is gone".to_owned()])
        );
    }

    #[test]
    fn a_watch_that_begins_anew_tells_of_all_that_is_there_once_and_keeps_nothing_that_vanished_meanwhile() {
        let (store, mut writer) = reflector::store::<Snapshot>();
        let shown = Shown::of(store);
        let mut changes = pin!(shown.changes());
        let kept = || {
            let mut names: Vec<_> = shown.objects().state().iter().map(|object| object.name_any()).collect();
            names.sort();
            names
        };
        let lists = [["a", "b"], ["b", "c"], ["b", "c"]];
        for list in lists {
            tell(&mut writer, &shown, Event::Init);
            for name in list {
                tell(&mut writer, &shown, Event::InitApply(named(name)));
            }
            assert_eq!(told(&mut changes), Vec::<String>::new(), "the list may not be whole");
            tell(&mut writer, &shown, Event::InitDone);
            assert_eq!(
                (told(&mut changes), kept()),
                (list.map(str::to_owned).to_vec(), list.map(str::to_owned).to_vec())
            );
        }
        let Some(held) = shown.objects().get(&ObjectRef::from_obj(&named("b"))) else { panic!("it is kept") };
        assert_eq!(Arc::strong_count(&held), 2, "by the store, and here");
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
