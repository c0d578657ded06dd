//! Writes a status, and tells the same in event, metric and log. Writes only what changed, and nothing when nothing did.

use api::conditions::{self, READY};
use api::{Condition, Reason, Weight};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Map, Value, json};

use crate::{Error, Metrics, Reported, StatusPlace};

/// Longest note of an event, in bytes: the API server refuses longer ones.
const LONGEST_NOTE: usize = 1000;

/// Whether a write is refused when the object changed since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Refused: the decision was made on what was read.
    Unchanged,
    /// Written all the same: a merge patch of our own fields, as the original does for transfers.
    Merge,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The word; the same as in the condition.
    pub reason: Reason,
    /// Cause and fix, or what was done.
    pub message: String,
    /// Whether a person should look.
    pub warning: bool,
}

/// Writes statuses and events. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
}

impl Publisher {
    /// A publisher that signs events as `component` on `instance` (pod or node).
    pub fn new(client: Client, component: &str, instance: &str, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: component.to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client.clone(), reporter), client, metrics }
    }

    /// The metrics that it tells in, for what no status has.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Makes `object` say `status`: a merge patch of what differs, then tells what is new in it in
    /// metric and log, and where it is more than an ordinary step, in an event. Gives
    /// the object as it is now; `None` when nothing had to be written.
    pub async fn publish<K: Reported>(&self, object: &K, status: &K::Status, guard: Guard) -> Result<Option<K>, Error> {
        let name = object.name_any();
        let before = object.status().cloned().unwrap_or_default();
        let had_status = object.status().is_some();
        let old = if had_status { serde_json::to_value(&before)? } else { Value::Object(Map::new()) };
        let Some(difference) = merge_patch(&old, &serde_json::to_value(status)?) else {
            return Ok(None);
        };
        let mut patch = json!({ "status": difference });
        if guard == Guard::Unchanged {
            patch["metadata"] = json!({ "resourceVersion": object.resource_version() });
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let written = match K::PLACE {
            StatusPlace::Subresource => api.patch_status(&name, &params, &patch).await,
            StatusPlace::Object => api.patch(&name, &params, &patch).await,
        };
        let written = written.map_err(|e| Error::api(format!("write the status of {} {name}", K::kind(&())), e))?;
        self.tell::<K>(object, &before, status).await;
        Ok(Some(written))
    }

    /// Says something about an object without changing it. Failing to say it is logged, no more: an event is no duty.
    pub async fn note<K: Resource<DynamicType = ()>>(&self, object: &K, note: &Note) {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.as_str().to_owned(),
            note: Some(shorten(&note.message)),
            action: note.reason.as_str().to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(
                error = crate::error::chain(&error),
                object = object.name_any(),
                "an event could not be written"
            );
        }
    }

    /// Event, metric and log, when phase or reason of the Ready condition changed.
    async fn tell<K: Reported>(&self, object: &K, before: &K::Status, after: &K::Status) {
        let ready = |status: &K::Status| conditions::get(K::conditions_of(status), READY).cloned();
        let (was, is) = (ready(before), ready(after));
        let Some((is, reason)) = is.and_then(|c| Reason::from_word(&c.reason).map(|reason| (c, reason))) else {
            return;
        };
        let phase = K::phase_of(after);
        let same = K::phase_of(before) == phase
            && was.as_ref().is_some_and(|was| (&was.reason, &was.message) == (&is.reason, &is.message));
        if same {
            return;
        }
        let kind = K::kind(&());
        self.metrics.transition(&kind, phase, reason);
        let message = is.message;
        let warning = reason.weight() == api::Weight::Trouble;
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if warning {
            tracing::warn!(%kind, %namespace, %name, phase, %reason, message, "not as asked for");
        } else {
            tracing::info!(%kind, %namespace, %name, phase, %reason, "moved on");
        }
        let is_ready = is.status == "True";
        if !deserves_an_event(was.as_ref(), reason, is_ready || K::has_ended(after)) {
            return;
        }
        let message = if message.is_empty() { reason.meaning().to_owned() } else { message };
        self.note(object, &Note { reason, message, warning }).await;
    }
}

/// Trouble and waits have an event, what follows them, and the end. Ordinary steps on the way have none: the condition
/// shows them, and a backup of a hundred claims would write hundreds that nobody reads.
fn deserves_an_event(was: Option<&Condition>, is: Reason, at_the_end: bool) -> bool {
    let ordinary = |reason: Reason| reason.weight() == Weight::Step;
    let was_ordinary = was.and_then(|c| Reason::from_word(&c.reason)).is_none_or(ordinary);
    at_the_end || !ordinary(is) || !was_ordinary
}

fn shorten(text: &str) -> String {
    if text.len() <= LONGEST_NOTE {
        return text.to_owned();
    }
    let end = (0..=LONGEST_NOTE - 4).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{} …", &text[..end])
}

/// The merge patch that turns `old` into `new`; `None` when they are equal. Lists are replaced, as the format wants.
fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let gone = before.keys().filter(|k| !after.contains_key(*k)).map(|k| (k.clone(), Value::Null));
    let changed = after.iter().filter_map(|(k, v)| match before.get(k) {
        Some(was) => merge_patch(was, v).map(|v| (k.clone(), v)),
        None => Some((k.clone(), v.clone())),
    });
    Some(Value::Object(gone.chain(changed).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::conditions::Status;

    #[test]
    fn only_what_changed_is_written() {
        let old =
            json!({"phase": "New", "retryCount": 2, "progress": {"totalBytes": 9, "bytesDone": 3}, "conditions": [1]});
        let new = json!({"phase": "New", "progress": {"totalBytes": 9, "bytesDone": 4}, "conditions": [1]});
        let want = json!({"retryCount": null, "progress": {"bytesDone": 4}});
        assert_eq!(merge_patch(&old, &new), Some(want));
        assert_eq!(merge_patch(&old, &old), None, "nothing changed, nothing is written");
    }

    #[test]
    fn trouble_its_end_and_the_end_have_an_event_and_ordinary_steps_have_none() {
        let condition = |reason: Reason| {
            let mut all = Vec::new();
            conditions::set(&mut all, READY, Status::False, reason, "", api::Timestamp::UNIX_EPOCH);
            all.remove(0)
        };
        let cases = [
            (None, Reason::Snapshotting, false, false),
            (Some(Reason::Queued), Reason::Uploading, false, false),
            (Some(Reason::Uploading), Reason::StoreUnreachable, false, true),
            (Some(Reason::StoreUnreachable), Reason::Uploading, false, true),
            (Some(Reason::Uploading), Reason::TakenOver, false, true),
            (Some(Reason::Uploading), Reason::Uploaded, true, true),
            (Some(Reason::Canceling), Reason::Canceled, true, true),
        ];
        for (was, is, at_the_end, wanted) in cases {
            assert_eq!(deserves_an_event(was.map(condition).as_ref(), is, at_the_end), wanted, "{was:?} {is}");
        }
    }

    #[test]
    fn a_long_message_still_makes_an_event() {
        let note = shorten(&"ä".repeat(2000));
        assert!(note.len() <= LONGEST_NOTE && note.ends_with('…'));
    }
}
