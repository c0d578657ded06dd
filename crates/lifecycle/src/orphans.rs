//! The mark on disk snapshots in vSphere that says whose they are, so that a repeated step finds the first one's.

/// Every token of ours begins with it.
const PREFIX: &str = "velero-plugin-for-vsphere";

/// The description of the disk snapshot taken for the Snapshot with this uid, in this cluster.
pub fn token(cluster: &str, snapshot_uid: &str) -> String {
    format!("{PREFIX}/{cluster}/{snapshot_uid}")
}

/// The Snapshot's uid, when the description is a token of this cluster.
pub fn snapshot_uid<'d>(description: &'d str, cluster: &str) -> Option<&'d str> {
    description.strip_prefix(PREFIX)?.strip_prefix('/')?.strip_prefix(cluster)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_snapshot_of_another_cluster_or_program_is_not_ours() {
        assert_eq!(snapshot_uid(&token("c1", "u1"), "c1"), Some("u1"));
        for foreign in [token("c2", "u1"), "AstrolabeSnapshot".to_owned(), String::new(), token("c11", "u")] {
            assert_eq!(snapshot_uid(&foreign, "c1"), None, "{foreign}");
        }
    }
}
