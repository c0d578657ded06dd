//! Carries a decision's changes over into an item, so that every byte it did not change stays as it came.

use serde_json::Value;

use crate::{Item, ItemError};

/// Makes `item` say what `changed` says, which was made from its tree.
pub(super) fn apply(item: &mut Item, changed: &Value) -> Result<(), ItemError> {
    let before = item.tree().clone();
    apply_below(item, &mut Vec::new(), &before, changed)
}

fn apply_below(item: &mut Item, path: &mut Vec<String>, before: &Value, after: &Value) -> Result<(), ItemError> {
    if before == after {
        return Ok(());
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        return item.set(&path, after);
    };
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        path.push(key.clone());
        let gone: Vec<&str> = path.iter().map(String::as_str).collect();
        item.remove(&gone)?;
        path.pop();
    }
    for (key, value) in new {
        path.push(key.clone());
        apply_below(item, path, old.get(key).unwrap_or(&Value::Null), value)?;
        path.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_a_decision_did_not_touch_stays_as_it_came() {
        let text = br#"{"kind":"PersistentVolumeClaim","apiVersion":"v1","x": 12345678901234567890123,"metadata":{"name":"a","annotations":{"z":"1","b.c/d":"2"}},"spec":{"volumeName":"pv"}}"#;
        let mut item = Item::parse(text).unwrap();
        let mut changed = item.tree().clone();
        changed["metadata"]["annotations"].as_object_mut().unwrap().remove("b.c/d");
        changed["metadata"]["annotations"]["new"] = "3".into();
        changed["spec"].as_object_mut().unwrap().remove("volumeName");
        apply(&mut item, &changed).unwrap();
        let after = String::from_utf8(item.into_bytes()).unwrap();
        let want = r#"{"kind":"PersistentVolumeClaim","apiVersion":"v1","x":12345678901234567890123,"metadata":{"name":"a","annotations":{"z":"1","new":"3"}},"spec":{}}"#;
        assert_eq!(after, want);
    }
}
