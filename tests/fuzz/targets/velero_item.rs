//! An object of a backup, as Velero hands it over: anybody's, and changed in place.
#![no_main]

#[path = "../../../crates/velero-plugin/src/item/mod.rs"]
#[allow(dead_code, reason = "the plugin itself would bring its clients and its server")]
mod item;

use api::velero::{Backup, Restore};
use item::Item;
use libfuzzer_sys::fuzz_target;
use lifecycle::velero::blocked::Blocked;
use lifecycle::velero::{backup, delete, item as of, policy, restore};
use serde_json::{Value, json};

fn decided(item: &Value) {
    let named =
        json!({"metadata": {"name": "nightly", "namespace": "velero", "uid": "u"}, "spec": {"backupName": "nightly"}});
    let ours: Backup = serde_json::from_value(named.clone()).expect("a backup");
    let back: Restore = serde_json::from_value(named).expect("a restore");
    let blocked = Blocked::by_default();
    let _ = (of::said(item), of::claim(item), of::without_our_marks(item), blocked.refuses(item));
    if backup::before_reading(&ours, item, &blocked).is_none() {
        let facts = backup::Facts {
            backup: &ours,
            item,
            blocked: &blocked,
            settings: lifecycle::velero::Settings::default(),
            policies: None::<&policy::Policies>,
            volume: None,
            pods: &[],
        };
        let _ = backup::decide(&facts);
    }
    let _ = delete::decide(&ours, item, false);
    let _ = (restore::left(item), restore::decide_volume(&back, item));
    if restore::before_reading(&back, item, &blocked).is_none() {
        let facts = restore::Facts {
            restore: &back,
            item,
            item_from_backup: item,
            blocked: &blocked,
            existing: None,
            mappings: &[],
            classes: &[],
        };
        if let restore::Decision::Take(take) = restore::decide(&facts) {
            let _ = restore::taken(item, &take, "uid");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(item) = Item::parse(bytes) else { return };
    let _ = (item.resource(), item.namespace().len(), item.name().len());
    decided(item.tree());
    let key = "example.com/seen";
    let mut changed = item.clone();
    if changed.set(&["metadata", "annotations", key], "yes").is_ok() {
        assert_eq!(changed.annotation(key), Some("yes"), "what was set is there");
        changed.remove(&["metadata", "annotations", key]).expect("what was set can go");
        assert_eq!(changed.annotation(key), None, "what was taken away is gone");
    }
    let text = std::str::from_utf8(bytes).expect("JSON is text");
    assert_eq!(String::from_utf8(item.into_bytes()).expect("JSON is text"), text.trim(), "what nobody changed stays");
});
