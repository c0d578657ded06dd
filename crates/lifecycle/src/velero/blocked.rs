//! The list of resources that are refused in backups and restores: ConfigMap
//! `velero-vsphere-plugin-blocked-resources-list`, one entry `<plural>.<group>` each.

use std::collections::{BTreeMap, BTreeSet};

use api::Reason;
use serde_json::Value;

use super::item;
use crate::Problem;

/// The entries that the original's installer writes, one a line.
const DEFAULT: &str = include_str!("blocked.txt");

/// The resources that are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocked {
    entries: BTreeSet<String>,
}

impl Blocked {
    /// Reads the ConfigMap's data: where there is one it is the whole list, and where there is none the
    /// [default](Self::by_default) counts. So nobody has to make the ConfigMap, and no upgrade touches a user's. An entry that
    /// is set to `"false"` is neither refused nor selected (the original still selected it, W-35).
    pub fn read(data: Option<&BTreeMap<String, String>>) -> Self {
        let Some(data) = data else { return Self::by_default() };
        let entries = data.iter().filter(|(key, value)| !key.is_empty() && !is_false(value));
        Self { entries: entries.map(|(key, _)| key.clone()).collect() }
    }

    /// The list that the original's installer writes into a ConfigMap, again at each start of Velero where it was deleted.
    pub fn by_default() -> Self {
        Self { entries: DEFAULT.lines().map(str::to_owned).collect() }
    }

    /// Every entry, as `AppliesTo` names them beside the action's own resources.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(String::as_str)
    }

    /// The entry that an item falls under.
    ///
    /// Velero tells a plugin the kind and never the plural, and no rule makes every plural of a kind. So it is turned
    /// round: the entries of the item's own group are looked through for one that could be its plural.
    pub fn entry_for(&self, item: &Value) -> Option<&str> {
        let (kind, group) = (item::kind(item).to_lowercase(), item::group(item));
        if kind.is_empty() {
            return None;
        }
        self.entries().find(|entry| {
            let (plural, entry_group) = entry.split_once('.').unwrap_or((entry, ""));
            entry_group == group && is_plural(plural, &kind)
        })
    }

    /// Why an item is refused, if it is.
    pub fn refuses(&self, item: &Value) -> Option<Problem> {
        let entry = self.entry_for(item)?;
        let cause = format!("{} is refused: `{entry}` is on the list of blocked resources", item::said(item));
        Some(Problem::lasting(Reason::ResourceBlocked, cause))
    }
}

/// Whether a word could be the plural of a kind in lower case: as it is, with `s`, with `es`, or with `ies` for `y`.
fn is_plural(plural: &str, kind: &str) -> bool {
    let Some(ending) = plural.strip_prefix(kind) else {
        return kind.strip_suffix('y').and_then(|stem| plural.strip_prefix(stem)) == Some("ies");
    };
    matches!(ending, "" | "s" | "es")
}

/// Go's words for false.
fn is_false(value: &str) -> bool {
    matches!(value.trim(), "0" | "f" | "F" | "false" | "FALSE" | "False")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry_for(version: &str, kind: &str) -> Option<String> {
        let item = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
        Blocked::by_default().entry_for(&item).map(str::to_owned)
    }

    #[test]
    fn the_default_list_is_the_originals() {
        let blocked = Blocked::by_default();
        assert_eq!(blocked.entries().count(), 123);
        for entry in blocked.entries() {
            let (plural, group) = entry.split_once('.').expect("plural and group");
            assert!(!plural.is_empty() && group.contains('.'), "{entry}");
        }
    }

    #[test]
    fn w35_every_kind_is_recognised_by_its_real_plural() {
        let cases = [
            ("networking.x-k8s.io/v1alpha1", "GatewayClass", Some("gatewayclasses.networking.x-k8s.io")),
            ("networking.x-k8s.io/v1alpha1", "Gateway", Some("gateways.networking.x-k8s.io")),
            (
                "psp.wcp.vmware.com/v1beta1",
                "PersistenceInstanceInfo",
                Some("persistenceinstanceinfoes.psp.wcp.vmware.com"),
            ),
            ("psp.wcp.vmware.com/v1beta1", "StoragePolicy", Some("storagepolicies.psp.wcp.vmware.com")),
            ("cns.vmware.com/v1alpha1", "CnsCsiSvFeatureStates", Some("cnscsisvfeaturestates.cns.vmware.com")),
            ("run.tanzu.vmware.com/v1", "Compatibility", Some("compatibilities.run.tanzu.vmware.com")),
            ("backupdriver.cnsdp.vmware.com/v1alpha1", "Snapshot", Some("snapshots.backupdriver.cnsdp.vmware.com")),
            ("gateway.networking.k8s.io/v1", "Gateway", None),
            ("v1", "PersistentVolumeClaim", None),
            ("cluster.x-k8s.io/v1beta1", "", None),
            ("cluster.x-k8s.io/v1beta1", "Machi", None),
        ];
        for (version, kind, want) in cases {
            assert_eq!(entry_for(version, kind).as_deref(), want, "{version} {kind}");
        }
    }

    #[test]
    fn w35_an_entry_set_to_false_is_neither_refused_nor_asked_for() {
        let data = BTreeMap::from([
            ("widgets.shop.example".to_owned(), "true".to_owned()),
            ("orders.shop.example".to_owned(), "false".to_owned()),
            ("secrets".to_owned(), String::new()),
        ]);
        let blocked = Blocked::read(Some(&data));
        assert_eq!(blocked.entries().collect::<Vec<_>>(), ["secrets", "widgets.shop.example"]);
        let item = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind});
        assert!(blocked.refuses(&item("shop.example/v1", "Widget")).is_some_and(|p| p.message().contains("\"false\"")));
        assert!(blocked.refuses(&item("shop.example/v1", "Order")).is_none());
        assert!(blocked.refuses(&item("v1", "Secret")).is_some(), "the core group has no group");
    }

    #[test]
    fn a_new_installation_blocks_what_the_originals_does_until_its_user_says_otherwise() {
        assert_eq!(Blocked::read(None), Blocked::by_default());
        assert_eq!(Blocked::read(Some(&BTreeMap::new())), Blocked::default(), "an empty ConfigMap blocks nothing");
        let own = BTreeMap::from([("widgets.shop.example".to_owned(), "true".to_owned())]);
        assert_eq!(
            Blocked::read(Some(&own)).entries().collect::<Vec<_>>(),
            ["widgets.shop.example"],
            "nothing is added"
        );
    }
}
