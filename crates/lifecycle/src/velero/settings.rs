//! The user's ConfigMaps, as far as the plugin asks them.

use std::collections::BTreeMap;

/// Settings of the plugin. A missing ConfigMap or key, or a value that is no flag, means the default, which is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// `local-mode` in `velero-vsphere-plugin-feature-states`: disk snapshots only, nothing is uploaded.
    pub local_mode: bool,
    /// `complete_after_snapshot` in `velero-vsphere-plugin-config`: Velero's operation is done once the disk snapshot
    /// exists, as with the original; the upload goes on by itself.
    pub complete_after_snapshot: bool,
}

impl Settings {
    /// Key in `velero-vsphere-plugin-config`.
    pub const COMPLETE_AFTER_SNAPSHOT: &'static str = "complete_after_snapshot";
    /// Key in `velero-vsphere-plugin-feature-states`.
    pub const LOCAL_MODE: &'static str = "local-mode";

    /// Reads the data of both ConfigMaps; an absent one is empty.
    pub fn read(config: &BTreeMap<String, String>, features: &BTreeMap<String, String>) -> Self {
        Self {
            local_mode: flag(features, Self::LOCAL_MODE),
            complete_after_snapshot: flag(config, Self::COMPLETE_AFTER_SNAPSHOT),
        }
    }
}

/// Go's words for true.
fn flag(map: &BTreeMap<String, String>, key: &str) -> bool {
    map.get(key).is_some_and(|text| matches!(text.trim(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_no_flag_leaves_the_default() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let none = BTreeMap::new();
        assert_eq!(Settings::read(&none, &none), Settings::default());
        for (value, want) in
            [("true", true), ("1", true), (" T\n", true), ("false", false), ("yes", false), ("", false)]
        {
            assert_eq!(Settings::read(&none, &map("local-mode", value)).local_mode, want, "{value}");
            let read = Settings::read(&map("complete_after_snapshot", value), &none);
            assert_eq!(read.complete_after_snapshot, want, "{value}");
        }
    }
}
