use serde_json::json;

use super::{Item, ItemError};

const CLAIM: &str = r#" {"kind":"PersistentVolumeClaim","apiVersion":"v1",
  "metadata": {"name":"data","namespace":"app","annotations":{"z":"1","a":"2"}},
  "spec": {"big": 123456789012345678901234567890, "exact":1.10, "volumeName":"pv-1"}, "status":null} "#;

fn claim() -> Item {
    Item::parse(CLAIM.as_bytes()).unwrap()
}

fn text(item: Item) -> String {
    String::from_utf8(item.into_bytes()).unwrap()
}

#[test]
fn an_untouched_item_goes_back_byte_for_byte() {
    // white space around the object is not part of it, as Velero's own encoder leaves none
    assert_eq!(text(claim()), CLAIM.trim());
}

#[test]
fn a_change_leaves_order_and_numbers_of_all_else_alone() {
    let mut item = claim();
    item.set(&["metadata", "annotations", "example.io/x.y"], &"new").unwrap();
    item.remove(&["spec", "volumeName"]).unwrap();
    assert_eq!(
        text(item),
        r#"{"kind":"PersistentVolumeClaim","apiVersion":"v1","metadata":{"name":"data","namespace":"app","annotations":{"z":"1","a":"2","example.io/x.y":"new"}},"spec":{"big":123456789012345678901234567890,"exact":1.10},"status":null}"#
    );
}

#[test]
fn missing_and_null_objects_on_the_way_are_made() {
    let mut item = claim();
    item.set(&["spec", "selector"], &json!({"matchLabels": {"k": "v"}})).unwrap();
    item.set(&["status", "phase"], &"Bound").unwrap();
    assert_eq!(item.tree()["spec"]["selector"]["matchLabels"]["k"], "v");
    assert_eq!(item.tree()["status"]["phase"], "Bound");
    item.set(&["status", "phase"], &"Lost").unwrap();
    assert_eq!(item.tree()["status"]["phase"], "Lost");
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let mut item = claim();
    item.remove(&["spec", "selector", "matchLabels"]).unwrap();
    item.remove(&["status", "phase"]).unwrap();
    assert_eq!(text(item), CLAIM.trim());
}

#[test]
fn a_text_on_the_way_is_an_error_that_says_where() {
    let error = claim().set(&["metadata", "name", "deeper"], &1).unwrap_err();
    assert_eq!(error.to_string(), "set `metadata.name.deeper` of the item: `metadata.name` is not an object");
}

/// P-10: what the server could not take back is never built.
#[test]
fn p10_an_item_without_kind_or_version_is_refused() {
    let refused = |text: &str| Item::parse(text.as_bytes()).unwrap_err();
    assert!(matches!(refused(""), ItemError::NotAnObject(_)));
    assert!(matches!(refused("[]"), ItemError::NotAnObject(_)));
    assert!(matches!(refused(r#"{"apiVersion":"v1"}"#), ItemError::Without("kind")));
    assert!(matches!(refused(r#"{"kind":"Pod","apiVersion":""}"#), ItemError::Without("apiVersion")));
    assert!(matches!(claim().remove(&["kind"]).unwrap_err(), ItemError::Without("kind")));
}

#[test]
fn the_resource_of_a_kind_is_its_lower_case_plural() {
    let cases = [
        ("PersistentVolumeClaim", "persistentvolumeclaims"),
        ("StorageClass", "storageclasses"),
        ("NetworkPolicy", "networkpolicies"),
    ];
    for (kind, want) in cases {
        let item = Item::parse(format!(r#"{{"apiVersion":"v1","kind":"{kind}"}}"#).as_bytes()).unwrap();
        assert_eq!(item.resource(), want);
    }
    assert_eq!((claim().name(), claim().namespace(), claim().annotation("z")), ("data", "app", Some("1")));
    assert_eq!(claim().label("z"), None);
}

#[test]
fn of_a_key_that_is_there_twice_the_last_one_is_changed_as_everybody_reads_it() {
    let twice = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"1"},"labels":{"a":"2","a":"3"}}}"#;
    let mut item = Item::parse(twice.as_bytes()).unwrap();
    item.set(&["metadata", "labels", "a"], "4").unwrap();
    assert_eq!(item.label("a"), Some("4"));
    item.remove(&["metadata", "labels", "a"]).unwrap();
    assert_eq!(item.label("a"), None, "no other one takes its place");
}
