//! Says of objects that lie in the wrong namespace that nobody will look at them. Snapshots and clones lie with their
//! claims; the other kinds are read in the Velero namespace alone.
//!
//! One condition an object, with one warning event, and no more: it is not looked at again. Where the status is somebody else's, or the API
//! server refuses it, the event alone says it, once more after a restart of the driver. Where the API server does not answer, it is tried
//! again every minute: the watch may go on and never show the object again.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::{BackupRepositoryClaim, DeleteSnapshot, Download, Upload};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt};
use lifecycle::Problem;
use lifecycle::elsewhere::{self, OfOnePlace};
use operator::{Guard, Note, Reported, Watches};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::Context;

/// After what time it is tried again, where the API server did not answer.
const AGAIN: Duration = Duration::from_secs(60);

/// Watches for them until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let watching = async {
        tokio::join!(
            watch::<Upload>(&ctx),
            watch::<Download>(&ctx),
            watch::<DeleteSnapshot>(&ctx),
            watch::<BackupRepositoryClaim>(&ctx),
        )
    };
    tokio::select! {
        _ = watching => {}
        () = stop.cancelled() => {}
    }
}

/// Tells of each object of a kind once. The API server leaves out the Velero namespace; who works on those that lie there tells of that
/// watch, and this one may fail alone, where the right to all namespaces is lacking.
async fn watch<K>(ctx: &Context)
where
    K: Reported<Status = <K as OfOnePlace>::Status> + OfOnePlace + Send + Sync + 'static,
{
    let objects: Api<K> = Api::all(ctx.client.clone());
    let outside = operator::client::watching().fields(&format!("metadata.namespace!={}", ctx.namespace));
    let mut watches = Watches::of::<K>(&ctx.metrics).in_other_namespaces();
    let events = watcher(objects, outside).default_backoff().inspect(|event| watches.saw(event));
    let mut seen = pin!(events.touched_objects());
    let mut known = Known::new();
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let shown = tokio::select! {
            shown = seen.next() => shown,
            _ = again.tick() => {
                tell_again(&mut known, ctx).await;
                continue;
            }
        };
        match shown {
            Some(Ok(object)) => {
                let is_new = known.shows(&object);
                if is_new {
                    let said = tell(&object, ctx).await;
                    known.note(object, said);
                }
            }
            Some(Err(_)) => {} // told by `watches`; the watch begins anew
            None => return,
        }
    }
}

/// What became of telling of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It is told, or it is gone.
    Done,
    /// The object has changed meanwhile: the watch shows it again.
    ShownAgain,
    /// The API server did not answer.
    Unanswered,
}

/// The objects of a kind that were shown.
struct Known<K> {
    /// The uids of those that are told of.
    told: HashSet<Option<String>>,
    /// Those that are to be told of, by uid, as they were shown last.
    untold: HashMap<Option<String>, K>,
}

impl<K: Resource> Known<K> {
    fn new() -> Self {
        Self { told: HashSet::new(), untold: HashMap::new() }
    }

    /// The watch shows an object: whether it is to be told of now. What was kept of it is of an earlier time.
    fn shows(&mut self, object: &K) -> bool {
        let uid = object.uid();
        self.untold.remove(&uid);
        object.meta().deletion_timestamp.is_none() && !self.told.contains(&uid)
    }

    fn note(&mut self, object: K, said: Said) {
        match said {
            Said::Done => {
                self.told.insert(object.uid());
            }
            Said::ShownAgain => {}
            Said::Unanswered => {
                self.untold.insert(object.uid(), object);
            }
        }
    }
}

/// Tells of those of which nobody could be told. One that gets no answer again ends the round: the others would wait as long each.
async fn tell_again<K>(known: &mut Known<K>, ctx: &Context)
where
    K: Reported<Status = <K as OfOnePlace>::Status> + OfOnePlace + Send + Sync,
{
    let mut is_away = false;
    for object in std::mem::take(&mut known.untold).into_values() {
        let said = if is_away { Said::Unanswered } else { tell(&object, ctx).await };
        is_away = said == Said::Unanswered;
        known.note(object, said);
    }
}

/// What an error means that came instead of a written status; `None`: the API server refuses it.
fn unwritten(error: &operator::Error) -> Option<Said> {
    if error.is_not_found() {
        return Some(Said::Done); // deleted meanwhile
    }
    if error.is_conflict() {
        return Some(Said::ShownAgain);
    }
    error.answer().is_none().then_some(Said::Unanswered)
}

async fn tell<K>(object: &K, ctx: &Context) -> Said
where
    K: Reported<Status = <K as OfOnePlace>::Status> + OfOnePlace + Sync,
{
    let (kind, namespace) = (K::kind(&()), object.namespace().unwrap_or_default());
    let problem = elsewhere::problem(&kind, &namespace, &ctx.namespace);
    if let Some(status) = elsewhere::status(object, &problem, ctx.now()) {
        match ctx.publisher.publish(object, &status, Guard::Unchanged).await {
            Ok(_) => return Said::Done, // with its event; without one where it said so already
            Err(error) => {
                let said = unwritten(&error);
                let (name, error) = (object.name_any(), Problem::chain(&error));
                if let Some(said) = said {
                    tracing::debug!(%kind, namespace, name, error, ?said, "that nobody reads this object is not written");
                    return said;
                }
                tracing::warn!(%kind, namespace, name, error, "that nobody reads this object cannot be written into it");
            }
        }
    }
    tracing::warn!(%kind, namespace, name = object.name_any(), %problem, "nobody will look at this object");
    ctx.publisher.note(object, &Note { reason: problem.reason, message: problem.message(), warning: true }).await;
    Said::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Time, Timestamp, UploadSpec};
    use kube::core::Status;

    fn upload(uid: &str) -> Upload {
        let mut upload = Upload::new("u", UploadSpec::default());
        upload.metadata.uid = Some(uid.to_owned());
        upload
    }

    #[test]
    fn an_object_of_which_nobody_could_be_told_is_tried_again_until_somebody_is() {
        let mut known = Known::new();
        assert!(known.shows(&upload("a")));
        known.note(upload("a"), Said::Unanswered);
        assert_eq!(known.untold.len(), 1, "the watch may never show it again");
        assert!(known.shows(&upload("a")), "it was shown again all the same");
        assert!(known.untold.is_empty(), "what was kept would be refused as out of date");
        known.note(upload("a"), Said::ShownAgain);
        assert!(known.shows(&upload("a")) && known.untold.is_empty());
        known.note(upload("a"), Said::Done);
        assert!(!known.shows(&upload("a")), "once is enough");
        assert!(known.shows(&upload("b")), "another one");
    }

    #[test]
    fn an_object_that_is_being_deleted_is_not_told_of_nor_tried_again() {
        let mut known = Known::new();
        known.note(upload("a"), Said::Unanswered);
        let mut going = upload("a");
        going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(!known.shows(&going));
        assert!(known.untold.is_empty());
    }

    #[test]
    fn only_a_refusal_is_told_by_an_event_alone() {
        let answer = |code| kube::Error::Api(Status::failure("no", "test").with_code(code).boxed());
        let cases = [
            ("deleted between the watch and the patch", answer(404), Some(Said::Done)),
            ("changed meanwhile", answer(409), Some(Said::ShownAgain)),
            ("no answer", kube::Error::Service("hangs".into()), Some(Said::Unanswered)),
            ("no right to", answer(403), None),
            ("a definition without that condition", answer(422), None),
        ];
        for (situation, error, want) in cases {
            assert_eq!(unwritten(&operator::Error::api("write the status", error)), want, "{situation}");
        }
    }
}
