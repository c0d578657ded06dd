//! Changes of one field deep in a JSON text; only the objects on the way to it are written anew. Of a key that is there twice the last one
//! counts, as it does to who reads the text.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::ItemError;

/// The fields of one object in the order they came, values unread.
#[derive(Default)]
struct Fields(Vec<(String, Box<RawValue>)>);

/// `text` with `value` at `path`.
pub(super) fn set(text: &RawValue, path: &[&str], value: Box<RawValue>) -> Result<Box<RawValue>, ItemError> {
    set_below(text, path, 0, value)
}

fn set_below(text: &RawValue, path: &[&str], depth: usize, value: Box<RawValue>) -> Result<Box<RawValue>, ItemError> {
    let Some(key) = path.get(depth) else { return Ok(value) };
    let mut fields = read(text, path, depth)?;
    match fields.0.iter_mut().rfind(|(name, _)| name == key) {
        Some((_, old)) => *old = set_below(old, path, depth + 1, value)?,
        None => fields.0.push(((*key).to_owned(), set_below(RawValue::NULL, path, depth + 1, value)?)),
    }
    write(&fields, path)
}

/// `text` without the field at `path`; `None` when it has no such field.
pub(super) fn remove(text: &RawValue, path: &[&str]) -> Result<Option<Box<RawValue>>, ItemError> {
    remove_below(text, path, 0)
}

fn remove_below(text: &RawValue, path: &[&str], depth: usize) -> Result<Option<Box<RawValue>>, ItemError> {
    let Some(key) = path.get(depth) else { return Ok(None) };
    let mut fields = read(text, path, depth)?;
    let Some(at) = fields.0.iter().rposition(|(name, _)| name == key) else { return Ok(None) };
    if depth + 1 == path.len() {
        fields.0.retain(|(name, _)| name != key);
    } else {
        let Some(rest) = remove_below(&fields.0[at].1, path, depth + 1)? else { return Ok(None) };
        fields.0[at].1 = rest;
    }
    write(&fields, path).map(Some)
}

/// The fields of the object `depth` steps down `path`; null has none.
fn read(text: &RawValue, path: &[&str], depth: usize) -> Result<Fields, ItemError> {
    if text.get() == "null" {
        return Ok(Fields::default());
    }
    serde_json::from_str(text.get())
        .map_err(|_| ItemError::NotOnTheWay { path: path.join("."), at: path[..depth].join(".") })
}

fn write(fields: &Fields, path: &[&str]) -> Result<Box<RawValue>, ItemError> {
    serde_json::value::to_raw_value(fields).map_err(|source| ItemError::Unwritable { path: path.join("."), source })
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(field) = map.next_entry()? {
            fields.0.push(field);
        }
        Ok(fields)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
