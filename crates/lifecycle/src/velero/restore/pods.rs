//! Pods that ran as virtual machines of a Supervisor: their metadata names a machine that is gone.

use serde_json::{Map, Value};

use crate::velero::item;

/// Annotation of a pod that runs as a virtual machine.
const MACHINE: &str = "vmware-system-vm-uuid";

/// Annotations that describe the machine and its network.
const OF_THE_MACHINE: [&str; 10] = [
    "kubernetes.io/psp",
    "mac",
    "vlan",
    "vmware-system-ephemeral-disk-uuid",
    "vmware-system-image-references",
    "vmware-system-vm-moid",
    MACHINE,
    "vmware-system-network",
    "nsx.vmware.com/attachment",
    "nsx.vmware.com/mac",
];

/// The pod with name, namespace, labels and the annotations that are its own; `None` for ordinary pods.
pub(super) fn without_its_machine(pod: &Value) -> Option<Value> {
    item::annotation(pod, MACHINE)?;
    let mut changed = pod.clone();
    item::remove_annotations(&mut changed, &OF_THE_MACHINE);
    let metadata: Map<String, Value> = item::object(&mut changed["metadata"])
        .iter()
        .filter(|(key, _)| matches!(key.as_str(), "name" | "namespace" | "labels" | "annotations"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    changed["metadata"] = Value::Object(metadata);
    Some(changed)
}
