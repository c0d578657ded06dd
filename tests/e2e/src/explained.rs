//! What an object says about its trouble, and whether the event says the same.

use anyhow::{Result, bail, ensure};
use api::conditions::{self, READY};
use api::{Condition, Reason};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use crate::World;
use crate::world::LOOK;

/// How long an event may take after the status that it belongs to.
const EVENT: std::time::Duration = std::time::Duration::from_secs(30);

/// The Ready condition carries that reason, its message has each of `words` (cause and fix), and a warning event on the
/// object has the same reason and words.
///
/// # Errors
/// When one of them is missing; the message shows what is there.
pub async fn explained(
    world: &World,
    namespace: &str,
    name: &str,
    conditions: &[Condition],
    reason: Reason,
    words: &[&str],
) -> Result<()> {
    let Some(ready) = conditions::get(conditions, READY) else {
        bail!("{name} has no Ready condition: {conditions:?}")
    };
    ensure!(ready.reason == reason.as_str(), "{name} should say {reason}; it says {}: {}", ready.reason, ready.message);
    ensure!(ready.status == "False", "{name} is not ready: {ready:?}");
    for word in words {
        ensure!(ready.message.contains(word), "{name} does not say `{word}`: {}", ready.message);
    }
    warned(world, namespace, name, reason, words).await
}

/// Waits for a warning event on the object with that reason, whose message has each of `words`.
///
/// # Errors
/// When there is none in time, or a word is missing.
pub async fn warned(world: &World, namespace: &str, name: &str, reason: Reason, words: &[&str]) -> Result<()> {
    let event = event_with(world, namespace, name, reason, "Warning").await?;
    let told = event.message.unwrap_or_default();
    for word in words {
        ensure!(told.contains(word), "the event on {name} does not say `{word}`: {told}");
    }
    Ok(())
}

/// Waits for an event on the object with that reason and type: it is written after the status that it belongs to, never
/// together with it.
pub(crate) async fn event_with(
    world: &World,
    namespace: &str,
    name: &str,
    reason: Reason,
    kind: &str,
) -> Result<Event> {
    let told = |e: &Event| e.reason.as_deref() == Some(reason.as_str()) && e.type_.as_deref() == Some(kind);
    let looking = async {
        loop {
            if let Some(event) = events(world, namespace, name).await?.into_iter().find(told) {
                return anyhow::Ok(event);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if let Ok(found) = tokio::time::timeout(EVENT, looking).await {
        return found;
    }
    let reasons: Vec<_> = events(world, namespace, name).await?.into_iter().filter_map(|e| e.reason).collect();
    bail!("no {kind} event {reason} on {namespace}/{name} within {} s; there are {reasons:?}", EVENT.as_secs());
}

async fn events(world: &World, namespace: &str, name: &str) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(world.client(), namespace);
    Ok(events.list(&ListParams::default().fields(&format!("involvedObject.name={name}"))).await?.items)
}
