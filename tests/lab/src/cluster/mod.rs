//! The Kubernetes side of a lab: the control plane's processes, the objects every lab has, and our own programs as the
//! manifests describe them.

pub(crate) mod accounts;
pub(crate) mod control_plane;
pub(crate) mod objects;
pub(crate) mod pod;
pub(crate) mod velero;
pub(crate) mod workloads;
