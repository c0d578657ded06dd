//! The user's ConfigMaps, as far as the plugin asks them.

use std::collections::BTreeMap;

use crate::flag;

/// Settings of the plugin. A missing ConfigMap or key, or a value that is no flag, means the default, which is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// `local-mode` in `velero-vsphere-plugin-feature-states`, or `EnableLocalMode` among Velero's own features: disk
    /// snapshots only, nothing is uploaded.
    pub local_mode: bool,
    /// `complete_after_snapshot` in `velero-vsphere-plugin-config`: Velero's operation is done once the disk snapshot
    /// exists, as with the original; the upload goes on by itself.
    pub complete_after_snapshot: bool,
    /// `csi-migrated-volume-support` in `velero-vsphere-plugin-feature-states`: volumes of the old in-tree driver that the
    /// vSphere CSI driver has taken over are backed up too.
    pub migrated_volumes: bool,
}

impl Settings {
    /// Key in `velero-vsphere-plugin-config`.
    pub const COMPLETE_AFTER_SNAPSHOT: &'static str = "complete_after_snapshot";
    /// Key in `velero-vsphere-plugin-feature-states`.
    pub const LOCAL_MODE: &'static str = "local-mode";
    /// Key in `velero-vsphere-plugin-feature-states`.
    pub const MIGRATED_VOLUMES: &'static str = "csi-migrated-volume-support";

    /// Among the words of Velero's `--features`. The original's installer looks for it and then sets [`Self::LOCAL_MODE`],
    /// whatever stood there before.
    pub const ENABLE_LOCAL_MODE: &'static str = "EnableLocalMode";

    /// Whether it is the key of one of them.
    pub fn is_read(key: &str) -> bool {
        [Self::COMPLETE_AFTER_SNAPSHOT, Self::LOCAL_MODE, Self::MIGRATED_VOLUMES].contains(&key)
    }

    /// Reads the data of both ConfigMaps, an absent one being empty, and the features that Velero was started with.
    pub fn read(config: &BTreeMap<String, String>, features: &BTreeMap<String, String>, of_velero: &[String]) -> Self {
        Self {
            local_mode: flag::set(features, Self::LOCAL_MODE, false)
                || of_velero.iter().any(|f| f == Self::ENABLE_LOCAL_MODE),
            complete_after_snapshot: flag::set(config, Self::COMPLETE_AFTER_SNAPSHOT, false),
            migrated_volumes: flag::set(features, Self::MIGRATED_VOLUMES, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_no_flag_leaves_the_default() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let (none, read) = (BTreeMap::new(), |config: &_, features: &_| Settings::read(config, features, &[]));
        assert_eq!(read(&none, &none), Settings::default());
        for (value, want) in
            [("true", true), ("1", true), (" T\n", true), ("false", false), ("yes", false), ("", false)]
        {
            assert_eq!(read(&none, &map("local-mode", value)).local_mode, want, "{value}");
            let migrated = read(&none, &map("csi-migrated-volume-support", value));
            assert_eq!(migrated.migrated_volumes, want, "{value}");
            let early = read(&map("complete_after_snapshot", value), &none);
            assert_eq!(early.complete_after_snapshot, want, "{value}");
        }
    }

    #[test]
    fn a_feature_of_velero_turns_local_mode_on_whatever_the_config_map_says() {
        let off = BTreeMap::from([("local-mode".to_owned(), "false".to_owned())]);
        let with = |features: &[&str]| {
            let features: Vec<_> = features.iter().map(|f| (*f).to_owned()).collect();
            Settings::read(&BTreeMap::new(), &off, &features).local_mode
        };
        assert!(with(&["EnableCSI", "EnableLocalMode"]));
        assert!(!with(&["EnableCSI"]) && !with(&["EnableLocalModes"]) && !with(&[]));
    }
}
