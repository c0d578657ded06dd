//! Which volumes Velero's file-system backup copies: chosen per volume, by the backup's setting and the annotations of
//! the pods that mount it.

use api::velero::Backup;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodSpec, PodStatus, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Annotation on a pod: names of volumes that are copied, where the backup does not copy all.
pub const INCLUDED: &str = "backup.velero.io/backup-volumes";
/// Annotation on a pod: names of volumes that are not copied, where the backup copies all.
pub const EXCLUDED: &str = "backup.velero.io/backup-volumes-excludes";
/// Volumes whose name begins so hold the token of a service account and are never copied.
const TOKENS: &str = "default-token";

/// The pod and its volume through which Velero copies a claim's files, if it does.
///
/// A pod that does not run does not count: Velero's node agent cannot reach its volumes and leaves them out with a
/// warning, so nobody else would take them. Nor does one that ran only after the backup had begun: Velero lists the pods
/// then, and treats them all along as they were.
pub fn taken_by<'p>(backup: &Backup, pods: &'p [Pod], claim: &str) -> Option<(&'p str, &'p str)> {
    let mounts = |pod: &'p Pod| pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    pods.iter().filter(|pod| ran_in_time(backup, pod)).find_map(|pod| {
        let taken = mounts(pod).find(|volume| is_of(volume, claim) && is_selected(backup, pod, &volume.name))?;
        Some((pod.metadata.name.as_deref().unwrap_or_default(), taken.name.as_str()))
    })
}

/// A pod that mounts claims, with no more of it than [`taken_by`] looks at; `None` for other pods.
pub fn mounts_claims(pod: Pod) -> Option<Pod> {
    let mut volumes = pod.spec?.volumes?;
    volumes.retain(|volume| volume.persistent_volume_claim.is_some());
    if volumes.is_empty() {
        return None;
    }
    let mut annotations = pod.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| key == INCLUDED || key == EXCLUDED);
    let metadata = ObjectMeta { name: pod.metadata.name, annotations: Some(annotations), ..ObjectMeta::default() };
    let spec = PodSpec { volumes: Some(volumes), ..PodSpec::default() };
    let running = |container: ContainerStatus| {
        let running = container.state.and_then(|state| state.running);
        ContainerStatus {
            state: Some(ContainerState { running, ..ContainerState::default() }),
            ..ContainerStatus::default()
        }
    };
    let status = pod.status.unwrap_or_default();
    let containers = status.container_statuses.map(|all| all.into_iter().map(running).collect());
    let status = PodStatus { phase: status.phase, container_statuses: containers, ..PodStatus::default() };
    Some(Pod { metadata, spec: Some(spec), status: Some(status) })
}

/// Whether Velero's rules select a volume of a pod. Names are compared as Velero does: exactly, spaces included.
fn is_selected(backup: &Backup, pod: &Pod, volume: &str) -> bool {
    if volume.starts_with(TOKENS) {
        return false;
    }
    let named = |annotation: &str| {
        let value = pod.metadata.annotations.as_ref().and_then(|a| a.get(annotation));
        value.is_some_and(|names| names.split(',').any(|name| name == volume))
    };
    if backup.volumes_default_to_fs_backup() { !named(EXCLUDED) } else { named(INCLUDED) }
}

fn is_of(volume: &Volume, claim: &str) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim)
}

/// Whether the pod ran when the backup began, as far as it says. Of a pod whose containers were all started anew since then
/// nobody knows; its claim is rather taken twice than not at all.
fn ran_in_time(backup: &Backup, pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    if status.and_then(|s| s.phase.as_deref()).is_some_and(|phase| phase != "Running") {
        return false;
    }
    let containers = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ran_since = containers.filter_map(|c| c.state.as_ref()?.running.as_ref()?.started_at.as_ref()).min();
    match (ran_since, &backup.status.start_timestamp) {
        (Some(since), Some(begun)) => since <= begun,
        (None, _) | (_, None) => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn backup(spec: serde_json::Value) -> Backup {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn pod(annotation: (&str, &str), volume: &str, phase: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-0", "annotations": {annotation.0: annotation.1}},
            "spec": {"containers": [], "volumes": [
                {"name": "config", "configMap": {"name": "c"}},
                {"name": volume, "persistentVolumeClaim": {"claimName": "data-0"}},
                {"name": "logs", "persistentVolumeClaim": {"claimName": "logs-0"}}]},
            "status": {"phase": phase}
        }))
        .unwrap()
    }

    #[test]
    fn both_kinds_of_volume_in_one_backup_chosen_per_volume() {
        let (some, all) = (backup(json!({})), backup(json!({"defaultVolumesToFsBackup": true})));
        let older = backup(json!({"defaultVolumesToRestic": true}));
        let newer_wins = backup(json!({"defaultVolumesToRestic": true, "defaultVolumesToFsBackup": false}));
        let none = ("", "");
        let cases = [
            ("opted in", &some, pod((INCLUDED, "logs,data"), "data", Some("Running")), true),
            ("the other volume is opted in", &some, pod((INCLUDED, "logs"), "data", Some("Running")), false),
            ("nothing said", &some, pod(none, "data", Some("Running")), false),
            (
                "a name with a space is another name, as for Velero",
                &some,
                pod((INCLUDED, "logs, data"), "data", Some("Running")),
                false,
            ),
            ("all", &all, pod(none, "data", Some("Running")), true),
            ("all, by the older name", &older, pod(none, "data", Some("Running")), true),
            ("the newer name wins", &newer_wins, pod(none, "data", Some("Running")), false),
            ("all but this one", &all, pod((EXCLUDED, "data"), "data", Some("Running")), false),
            ("all but the other one", &all, pod((EXCLUDED, "logs"), "data", Some("Running")), true),
            (
                "opting in means nothing where all are taken",
                &all,
                pod((INCLUDED, "logs"), "data", Some("Running")),
                true,
            ),
            ("a token's volume", &all, pod(none, "default-token-x", Some("Running")), false),
            ("a pod that has ended cannot be copied from", &all, pod(none, "data", Some("Succeeded")), false),
            ("a pod that has not begun", &all, pod(none, "data", Some("Pending")), false),
            ("a pod without status", &all, pod(none, "data", None), true),
        ];
        for (situation, backup, pod, want) in cases {
            assert_eq!(taken_by(backup, std::slice::from_ref(&pod), "data-0").is_some(), want, "{situation}");
            let kept = mounts_claims(pod).expect("it mounts claims");
            assert_eq!(taken_by(backup, &[kept], "data-0").is_some(), want, "{situation}, as it is remembered");
        }
        let without = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        assert_eq!(mounts_claims(without), None, "a pod without claims is not remembered");
        assert_eq!(taken_by(&all, &[], "data-0"), None, "nobody mounts it");
    }

    #[test]
    fn a_pod_that_runs_only_since_the_backup_began_is_unknown_to_velero() {
        let begun: Backup = serde_json::from_value(json!({
            "spec": {"defaultVolumesToFsBackup": true},
            "status": {"startTimestamp": "2026-11-21T10:00:00Z"},
        }))
        .unwrap();
        let since = |started: &[&str]| -> Pod {
            let running = |at: &&str| json!({"name": "c", "image": "i", "state": {"running": {"startedAt": at}}});
            let mut pod = serde_json::to_value(pod(("", ""), "data", Some("Running"))).unwrap();
            pod["status"]["containerStatuses"] = started.iter().map(running).collect();
            serde_json::from_value(pod).unwrap()
        };
        let (before, after) = ("2026-11-21T09:59:59Z", "2026-11-21T10:00:01Z");
        let cases = [
            ("before", since(&[before]), true),
            ("one container was started anew", since(&[after, before]), true),
            ("after Velero's list", since(&[after]), false),
            ("nothing is said", since(&[]), true),
        ];
        for (situation, pod, want) in cases {
            let kept = mounts_claims(pod.clone()).expect("it mounts claims");
            for (pod, how) in [(pod, "as it came"), (kept, "as it is remembered")] {
                assert_eq!(taken_by(&begun, &[pod], "data-0").is_some(), want, "{situation}, {how}");
            }
        }
    }

    #[test]
    fn any_of_several_pods_may_give_it_to_fs_backup() {
        let pods = [pod(("", ""), "data", Some("Running")), pod((INCLUDED, "data"), "data", Some("Running"))];
        assert_eq!(taken_by(&backup(json!({})), &pods, "data-0"), Some(("web-0", "data")));
    }
}
