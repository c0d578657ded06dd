//! One object of a backup, as JSON: read as a tree, changed in place, and every byte that no one changed kept as it came.
//!
//! A tree of `serde_json` would sort the keys and round large numbers, unless two features were switched on for every
//! crate of the workspace. So an [`Item`] keeps the text and rewrites only the objects on the way to what is set.

mod edit;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Why bytes are no item, or an item cannot be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// The bytes are not JSON, or not an object.
    #[error("read the item")]
    NotAnObject(#[source] serde_json::Error),
    /// What every object of Kubernetes has is missing.
    #[error("the item has no `{0}`")]
    Without(&'static str),
    /// There is something on the way to the field that holds no fields.
    #[error("set `{path}` of the item: `{at}` is not an object")]
    NotOnTheWay {
        /// The field that was to be changed.
        path: String,
        /// The part of the way that is no object.
        at: String,
    },
    /// The new value cannot be written as JSON.
    #[error("write `{path}` of the item")]
    Unwritable {
        /// The field that was to be changed.
        path: String,
        /// What is wrong with the value.
        source: serde_json::Error,
    },
}

/// An object of Kubernetes as Velero handed it over.
///
/// ```
/// use velero_plugin::Item;
///
/// let bytes = br#"{"kind":"Pod","apiVersion":"v1","spec":{"uid": 12345678901234567890123}}"#;
/// let mut item = Item::parse(bytes)?;
/// item.set(&["metadata", "labels", "seen"], &"yes")?;
/// let text = String::from_utf8(item.into_bytes())?;
/// assert!(text.contains(r#""spec":{"uid": 12345678901234567890123}"#), "{text}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Item {
    text: Box<RawValue>,
    head: Head,
    tree: OnceLock<Value>,
}

/// What names an object; read once, without the rest.
#[derive(Debug, Clone, Default, Deserialize)]
struct Head {
    #[serde(rename = "apiVersion", default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<Names>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Names {
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

impl Item {
    /// The item in `bytes`.
    ///
    /// # Errors
    /// Unless it is an object with `apiVersion` and `kind`, without which the server cannot take it back.
    pub fn parse(bytes: &[u8]) -> Result<Self, ItemError> {
        Self::of(serde_json::from_slice(bytes).map_err(ItemError::NotAnObject)?)
    }

    fn of(text: Box<RawValue>) -> Result<Self, ItemError> {
        // a struct would also be read from a list
        if !text.get().starts_with('{') {
            return Err(ItemError::NotAnObject(serde::de::Error::custom("it is no JSON object")));
        }
        let head: Head = serde_json::from_str(text.get()).map_err(ItemError::NotAnObject)?;
        let given = |field: &Option<String>| field.as_ref().is_some_and(|f| !f.is_empty());
        if !given(&head.api_version) {
            return Err(ItemError::Without("apiVersion"));
        }
        if !given(&head.kind) {
            return Err(ItemError::Without("kind"));
        }
        Ok(Self { text, head, tree: OnceLock::new() })
    }

    /// `apiVersion`, such as `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.head.api_version.as_deref().unwrap_or_default()
    }

    /// `kind`, such as `PersistentVolumeClaim`.
    pub fn kind(&self) -> &str {
        self.head.kind.as_deref().unwrap_or_default()
    }

    /// The namespace; empty for an object of the cluster.
    pub fn namespace(&self) -> &str {
        self.head.metadata.as_ref().and_then(|m| m.namespace.as_deref()).unwrap_or_default()
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        self.head.metadata.as_ref().and_then(|m| m.name.as_deref()).unwrap_or_default()
    }

    /// The lower-case plural of the kind, by the rules of Kubernetes' own guess: `persistentvolumeclaims`.
    pub fn resource(&self) -> String {
        let kind = self.kind().to_ascii_lowercase();
        match kind.chars().last() {
            Some('s' | 'x') => format!("{kind}es"),
            Some('y') => format!("{}ies", &kind[..kind.len() - 1]),
            _ => format!("{kind}s"),
        }
    }

    /// The whole object, to read. Numbers that fit neither 64 bits nor a float are rounded here, and only here.
    pub fn tree(&self) -> &Value {
        self.tree.get_or_init(|| serde_json::from_str(self.text.get()).unwrap_or_default())
    }

    /// The object as a type of Kubernetes, to read. Never write such a type back: it forgets unknown fields.
    ///
    /// # Errors
    /// When a field is not of that type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ItemError> {
        serde_json::from_str(self.text.get()).map_err(ItemError::NotAnObject)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.tree()["metadata"]["annotations"].get(key)?.as_str()
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.tree()["metadata"]["labels"].get(key)?.as_str()
    }

    /// Puts `value` at `path`; objects that are missing or null on the way are made. The last part is a whole key, dots
    /// and slashes included.
    ///
    /// # Errors
    /// When something on the way is no object, or the item would be none of Kubernetes any more.
    pub fn set<V: Serialize + ?Sized>(&mut self, path: &[&str], value: &V) -> Result<(), ItemError> {
        let value = serde_json::value::to_raw_value(value)
            .map_err(|source| ItemError::Unwritable { path: path.join("."), source })?;
        *self = Self::of(edit::set(&self.text, path, value)?)?;
        Ok(())
    }

    /// Takes the field at `path` away; nothing happens when there is none.
    ///
    /// # Errors
    /// As [`Item::set`].
    pub fn remove(&mut self, path: &[&str]) -> Result<(), ItemError> {
        if let Some(text) = edit::remove(&self.text, path)? {
            *self = Self::of(text)?;
        }
        Ok(())
    }

    /// The text, to hand back: the very bytes that came when nothing was changed.
    pub fn into_bytes(self) -> Vec<u8> {
        Box::<str>::from(self.text).into_string().into_bytes()
    }
}

#[cfg(test)]
mod tests;
