//! Objects that every transfer needs and hardly anybody ever changes: settings, Secrets, descriptions of repositories. Each
//! is watched from its first read on; while the watch is silent, what it told first is the truth.
//!
//! A watch that ends, for whatever reason, ends the knowledge: the next read begins anew. An object that may be read but not
//! watched is read each time.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

/// How long an object is watched at most before it is read again; those that nobody reads any more are forgotten so.
const WATCHED_FOR: Duration = Duration::from_secs(600);

/// What is known of the cluster. Cheap to clone; clones know the same.
#[derive(Clone)]
pub(crate) struct Known {
    client: Client,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

/// One object; the lock makes a hundred first reads one.
type Slot = Arc<Mutex<Option<Kept>>>;

/// An object as it was read, or that there was none.
struct Kept {
    object: Box<dyn Any + Send + Sync>,
    /// Whether the object is another one by now, or may be.
    over: Arc<AtomicBool>,
    watch: JoinHandle<()>,
}

impl Known {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, slots: Arc::default() }
    }

    /// The client, for what is not to be kept.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The object of that name; `None` when there is none.
    pub(crate) async fn get<K>(&self, objects: &Api<K>, name: &str) -> Result<Option<K>, kube::Error>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let slot = self.slots.lock().await.entry(format!("{}/{name}", objects.resource_url())).or_default().clone();
        let place = Arc::downgrade(&slot);
        let mut slot = slot.lock().await;
        if let Some(found) = slot.as_ref().and_then(Kept::object) {
            return Ok(found);
        }
        let (tell, told) = oneshot::channel();
        let over = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(forgotten_when_changed(objects.clone(), name.to_owned(), tell, over.clone(), place));
        let Ok(found) = told.await else { return objects.get_opt(name).await }; // it says why
        *slot = Some(Kept { object: Box::new(found.clone()), over, watch });
        Ok(found)
    }
}

impl Kept {
    /// The object, as long as nothing speaks against it.
    fn object<K: Clone + 'static>(&self) -> Option<Option<K>> {
        if self.over.load(Ordering::Acquire) { None } else { self.object.downcast_ref::<Option<K>>().cloned() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Says that a watch is over, however it ends.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Watches an object, and takes it out of its slot at the end: a Secret that nobody reads any more is not kept.
async fn forgotten_when_changed<K>(
    objects: Api<K>,
    name: String,
    tell: oneshot::Sender<Option<K>>,
    over: Arc<AtomicBool>,
    slot: Weak<Mutex<Option<Kept>>>,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let ending = Ending(over.clone());
    until_changed(objects, name, tell).await;
    drop(ending);
    let Some(slot) = slot.upgrade() else { return };
    let mut slot = slot.lock().await;
    if slot.as_ref().is_some_and(|kept| Arc::ptr_eq(&kept.over, &over)) {
        *slot = None;
    }
}

/// Tells how the object is, and ends when it is otherwise, cannot be watched, or was watched long enough.
async fn until_changed<K>(objects: Api<K>, name: String, tell: oneshot::Sender<Option<K>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let first = std::sync::Mutex::new(Some(tell));
    let changed = move |now: Option<&K>| match first.lock().expect("no panic while it is held").take() {
        // whoever asked may be gone; then it is kept for nobody, and the next one asks anew
        Some(tell) => tell.send(now.cloned()).is_err(),
        None => true,
    };
    let _ = tokio::time::timeout(WATCHED_FOR, await_condition(objects, &name, changed)).await;
}
