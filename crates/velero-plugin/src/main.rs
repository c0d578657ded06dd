//! `velero-plugin-for-vsphere`: the executable in Velero's plugin folder.

fn main() {}
