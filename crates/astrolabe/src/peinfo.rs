//! The object whose existence makes a backup: which streams there are, under which name. Does no I/O.

use serde::{Deserialize, Serialize};

use crate::keys::Keys;

/// The object as it is read; what we do not know is ignored, as the original does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peinfo {
    #[serde(default, deserialize_with = "or_empty")]
    combined_transports: Vec<Transport>,
    #[serde(default, deserialize_with = "or_empty")]
    component_specs: Vec<serde_json::Value>,
    #[serde(default, deserialize_with = "or_empty")]
    data_transports: Vec<Transport>,
    /// `ivd:<disk>:<disk snapshot>`.
    pub id: String,
    #[serde(default, deserialize_with = "or_empty")]
    metadata_transports: Vec<Transport>,
    /// Name of the disk in vSphere.
    pub name: String,
}

/// Where a stream lies. The original's readers ask only whether there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transport {
    #[serde(default)]
    params: Params,
    #[serde(default)]
    transport_type: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Params {
    #[serde(default)]
    bucket: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    url: String,
}

/// Go writes an empty list as `null`, too.
fn or_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Peinfo {
    /// That of a backup in `bucket`. `host` is the address of the server as somebody configured it, perhaps empty; `name` is the disk's.
    pub fn new(keys: &Keys, bucket: &str, host: &str, name: &str) -> Self {
        let transport = |key: &str| Transport {
            params: Params {
                bucket: bucket.to_owned(),
                host: host.to_owned(),
                key: key.to_owned(),
                url: format!("http://{host}/{bucket}/{key}"), // two schemes, as the original writes it
            },
            transport_type: "s3".to_owned(),
        };
        Self {
            combined_transports: Vec::new(),
            component_specs: Vec::new(),
            data_transports: vec![transport(keys.data())],
            id: keys.id().to_owned(),
            metadata_transports: vec![transport(keys.description())],
            name: name.to_owned(),
        }
    }

    /// Reads the object.
    ///
    /// # Errors
    /// It is not JSON, or lacks id or name.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The object, byte for byte as the original writes it.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("lists and texts are JSON")
    }

    /// Whether it says that data and description were stored.
    pub fn is_whole(&self) -> bool {
        !self.data_transports.is_empty() && !self.metadata_transports.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const EXAMPLE: &str = include_str!("../testdata/worked-example.peinfo.json");

    fn keys() -> Keys {
        let snapshot = "2b6d0f5e-1c3a-4e57-9d1b-0a8c6f3e7d42:c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06";
        Keys::new("plugins/vsphere-astrolabe-repo", &snapshot.parse().unwrap())
    }

    #[test]
    fn the_worked_example_is_written_byte_for_byte() {
        let name = "pvc-7d0e8f1a-33c4-4a0e-9a52-6f1d2c8be417";
        let peinfo = Peinfo::new(&keys(), "k8s-backups", "https://s3.lab.example:9000", name);
        assert_eq!(String::from_utf8(peinfo.write()).unwrap(), EXAMPLE);
        assert_eq!(peinfo.write().len(), 1020);
        assert_eq!(Peinfo::read(EXAMPLE.as_bytes()).unwrap(), peinfo);
        assert!(peinfo.is_whole());
    }

    #[test]
    fn what_a_reader_of_the_original_would_take_is_taken() {
        let more = r#"{"id":"ivd:d:s","name":"n","size":7,"dataTransports":[{"transportType":"s3"}],
            "metadataTransports":[{"params":{"x":"y"}}],"componentSpecs":null,"new":{}}"#;
        assert!(Peinfo::read(more.as_bytes()).unwrap().is_whole());
        assert!(!Peinfo::read(br#"{"id":"ivd:d:s","name":"n","dataTransports":[]}"#).unwrap().is_whole());
        for garbage in ["", "{}", "[]", r#"{"id":7}"#] {
            assert!(Peinfo::read(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
