//! Snapshots that were asked for and that nobody has come to: they say that they wait. A thousand may be asked for at once,
//! and a few are begun at a time; whoever is begun soon is not written to, as that costs a request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::Snapshot;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kube::ResourceExt as _;
use lifecycle::Problem;
use lifecycle::snapshot::status;
use tokio::time::MissedTickBehavior;

use crate::Context;

/// How long a Snapshot may wait before it says so.
const PATIENCE: Duration = Duration::from_millis(200);
/// Pause between two looks for those that have waited so long.
const LOOK: Duration = Duration::from_millis(50);
/// How many are written at a time.
const AT_A_TIME: usize = 32;

/// Those that say nothing yet, by uid, and since when we know of them.
#[derive(Default)]
pub(super) struct Unheard(Mutex<HashMap<String, (Arc<Snapshot>, Instant)>>);

impl Unheard {
    fn all(&self) -> MutexGuard<'_, HashMap<String, (Arc<Snapshot>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch shows a Snapshot.
    pub(super) fn shown(&self, snapshot: &Arc<Snapshot>) {
        let Some(uid) = snapshot.uid() else { return };
        let mut all = self.all();
        if status::is_unheard(snapshot) {
            let since = all.get(&uid).map_or_else(Instant::now, |(_, since)| *since);
            all.insert(uid, (snapshot.clone(), since));
        } else {
            all.remove(&uid);
        }
    }

    /// Somebody looks at it now, and will write what comes of it; or it is gone.
    pub(super) fn looked_at(&self, snapshot: &Snapshot) {
        self.all().remove(&snapshot.uid().unwrap_or_default());
    }

    /// Takes out those that have waited long enough, so many at most, the longest waiting first.
    fn take_due(&self, most: usize) -> Vec<Arc<Snapshot>> {
        let mut all = self.all();
        let mut due: Vec<(Instant, String)> = all
            .iter()
            .filter(|(_, (_, since))| since.elapsed() >= PATIENCE)
            .map(|(uid, (_, since))| (*since, uid.clone()))
            .collect();
        due.sort_unstable();
        due.truncate(most);
        due.into_iter().filter_map(|(_, uid)| all.remove(&uid)).map(|(snapshot, _)| snapshot).collect()
    }

    /// Lets them say so, for ever. What cannot be written is left: the look at the Snapshot will tell.
    pub(super) async fn tell(&self, ctx: &Context) -> Infallible {
        let tell = |snapshot: Arc<Snapshot>| async move {
            let before = snapshot.status.clone().unwrap_or_default();
            if let Err(error) = ctx.publish(&*snapshot, &status::queued(&before, ctx.now())).await {
                let error = Problem::chain(&error);
                tracing::debug!(name = snapshot.name_any(), error, "could not say that it waits");
            }
        };
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut telling = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                Some(()) = telling.next() => {}
            }
            telling.extend(self.take_due(AT_A_TIME - telling.len()).into_iter().map(tell));
        }
    }
}
