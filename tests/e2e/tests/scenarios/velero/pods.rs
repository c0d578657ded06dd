//! Pods that mount a claim and name no node: the scheduler decides when they may run.

use anyhow::{Context as _, Result, ensure};
use e2e::{DEADLINE, World, wait_until};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

fn api(world: &World, namespace: &str) -> Api<Pod> {
    Api::namespaced(world.client(), namespace)
}

/// Makes a pod of that name that mounts the claim of that name.
pub(super) async fn mount(world: &World, namespace: &str, claim: &str) -> Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": claim},
        "spec": {
            "containers": [{"name": "app", "image": "app", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }))?;
    api(world, namespace).create(&PostParams::default(), &pod).await?;
    Ok(())
}

/// What the scheduler says, if that is its word.
fn condition<'p>(pod: &'p Pod, word: &str) -> Option<&'p PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == word)
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Waits until the scheduler has said that the pod cannot run yet.
pub(super) async fn is_refused(world: &World, namespace: &str, name: &str) -> Result<()> {
    let refused = |pod: Option<&Pod>| pod.and_then(|pod| condition(pod, "False")).is_some();
    let pod = wait_until(&api(world, namespace), name, DEADLINE, "is not scheduled", refused).await?;
    ensure!(pod.as_ref().and_then(node).is_none(), "pod {name} has a node");
    Ok(())
}

/// The pod is there and runs nowhere. For a class that waits for a first consumer the scheduler says nothing at all.
pub(super) async fn waits(world: &World, namespace: &str, name: &str) -> Result<()> {
    let pod = wait_until(&api(world, namespace), name, DEADLINE, "is there", |pod| pod.is_some()).await?;
    let pod = pod.context("a pod")?;
    ensure!(
        node(&pod).is_none() && condition(&pod, "True").is_none(),
        "pod {name} runs: {:?} {:?}",
        pod.spec,
        pod.status
    );
    Ok(())
}

/// Waits until the pod has its node, which it got no earlier than `since`.
pub(super) async fn runs(world: &World, namespace: &str, name: &str, since: &Time) -> Result<()> {
    let runs = |pod: Option<&Pod>| pod.is_some_and(|pod| node(pod).is_some() && condition(pod, "True").is_some());
    let pod = wait_until(&api(world, namespace), name, DEADLINE, "is scheduled", runs).await?;
    let when = pod.as_ref().and_then(|pod| condition(pod, "True")?.last_transition_time.as_ref());
    let (when, since) = (when.map(|time| time.0.as_second()), since.0.as_second()); // a condition has no fractions
    ensure!(when >= Some(since), "pod {name} was scheduled at {when:?}; its data was there at {since:?}");
    Ok(())
}
