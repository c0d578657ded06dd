//! Which volumes Velero's file-system backup copies: chosen per volume, by the backup's setting and the annotations of
//! the pods that mount it.

use api::velero::Backup;
use k8s_openapi::api::core::v1::{Pod, Volume};

/// Annotation on a pod: names of volumes that are copied, where the backup does not copy all.
pub const INCLUDED: &str = "backup.velero.io/backup-volumes";
/// Annotation on a pod: names of volumes that are not copied, where the backup copies all.
pub const EXCLUDED: &str = "backup.velero.io/backup-volumes-excludes";
/// Volumes whose name begins so hold the token of a service account and are never copied.
const TOKENS: &str = "default-token";

/// The pod and its volume through which Velero copies a claim's files, if it does.
///
/// A pod that does not run does not count: Velero's node agent cannot reach its volumes and leaves them out with a
/// warning, so nobody else would take them.
pub fn taken_by<'p>(backup: &Backup, pods: &'p [Pod], claim: &str) -> Option<(&'p str, &'p str)> {
    let mounts = |pod: &'p Pod| pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    pods.iter().filter(|pod| may_run(pod)).find_map(|pod| {
        let taken = mounts(pod).find(|volume| is_of(volume, claim) && is_selected(backup, pod, &volume.name))?;
        Some((pod.metadata.name.as_deref().unwrap_or_default(), taken.name.as_str()))
    })
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

/// Whether the pod runs, or says nothing about it.
fn may_run(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.is_none_or(|phase| phase == "Running")
}
