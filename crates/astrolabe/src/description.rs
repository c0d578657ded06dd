//! What the disk was when it was backed up, as the original notes it in XML. Does no I/O.
//!
//! A restore needs one number of it, the size: without it nobody could say that the last segment is missing.

use quick_xml::events::Event;
use quick_xml::reader::NsReader;

/// Deeper than any description is nested.
const DEEPEST: usize = 64;
/// Where the size stands.
const CAPACITY: [&str; 4] = ["metadata", "virtualStorageObject", "config", "capacityInMB"];
/// Bytes of what vSphere calls a MB.
const MIB: u64 = 1 << 20;

/// A disk as vSphere's catalog has it. What is `None` or empty is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, as vSphere writes times.
    pub create_time: String,
    /// Whether it stays when its virtual machine goes.
    pub keep_after_delete_vm: Option<bool>,
    /// Whether it may not be moved.
    pub relocation_disabled: Option<bool>,
    /// Whether the datastore makes its snapshots.
    pub native_snapshot_supported: Option<bool>,
    /// Whether its changes are tracked.
    pub changed_block_tracking_enabled: Option<bool>,
    /// The type of what is behind it, such as `BaseConfigInfoDiskFileBackingInfo`.
    pub backing_type: String,
    /// Managed object id of its datastore.
    pub datastore: String,
    /// Where it lies there.
    pub file_path: String,
    /// Id of the object behind the file.
    pub backing_object_id: Option<String>,
    /// Such as `thin`.
    pub provisioning_type: String,
    /// Size in MiB.
    pub capacity_mib: u64,
    /// Such as `disk`.
    pub consumption_types: Vec<String>,
    /// Virtual machines that use it.
    pub consumers: Vec<String>,
    /// Its keys and values in the catalog.
    pub extended_metadata: Vec<(String, String)>,
}

impl Description {
    /// The object, byte for byte as the original writes it.
    pub fn write(&self) -> String {
        let mut xml = Xml { text: String::new(), depth: 0 };
        xml.element("metadata", "", |xml| {
            xml.element("virtualStorageObject", "", |xml| xml.element("config", "", |xml| self.config(xml)));
            xml.leaf("datastore", " type=\"Datastore\"", &self.datastore);
            for (key, value) in &self.extended_metadata {
                xml.element("extendedMetadata", "", |xml| {
                    xml.leaf("key", "", key);
                    xml.leaf("value", "", value);
                });
            }
        });
        xml.text.pop(); // no line end after the last one
        xml.text
    }

    fn config(&self, xml: &mut Xml) {
        xml.element("id", "", |xml| xml.leaf("id", "", &self.id));
        xml.leaf("name", "", &self.name);
        xml.leaf("createTime", "", &self.create_time);
        for (name, flag) in [
            ("keepAfterDeleteVm", self.keep_after_delete_vm),
            ("relocationDisabled", self.relocation_disabled),
            ("nativeSnapshotSupported", self.native_snapshot_supported),
            ("changedBlockTrackingEnabled", self.changed_block_tracking_enabled),
        ] {
            flag.into_iter().for_each(|flag| xml.leaf(name, "", if flag { "true" } else { "false" }));
        }
        let backing = format!(
            " xmlns:XMLSchema-instance=\"http://www.w3.org/2001/XMLSchema-instance\" XMLSchema-instance:type=\"{}\"",
            escaped(&self.backing_type)
        );
        xml.element("backing", &backing, |xml| {
            xml.leaf("datastore", " type=\"Datastore\"", &self.datastore);
            xml.leaf("filePath", "", &self.file_path);
            self.backing_object_id.iter().for_each(|id| xml.leaf("backingObjectId", "", id));
            xml.leaf("provisioningType", "", &self.provisioning_type);
        });
        xml.leaf("capacityInMB", "", &self.capacity_mib.to_string());
        self.consumption_types.iter().for_each(|kind| xml.leaf("consumptionType", "", kind));
        self.consumers.iter().for_each(|id| xml.element("consumerId", "", |xml| xml.leaf("id", "", id)));
    }

    /// The size of the disk in bytes that a description names.
    ///
    /// # Errors
    /// It is not XML, or names none; in words.
    pub fn capacity(bytes: &[u8]) -> Result<u64, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut reader = NsReader::from_str(text);
        let (mut open, mut found) = (Vec::<String>::new(), String::new());
        loop {
            match reader.read_event().map_err(|cause| format!("it is not XML: {cause}"))? {
                Event::Start(start) if open.len() < DEEPEST => open.push(start.local_name().as_ref().to_owned()),
                Event::Start(_) => return Err("its elements are nested too deep".to_owned()),
                Event::End(_) if open == CAPACITY => break,
                Event::End(_) => drop(open.pop()),
                Event::Text(text) if open == CAPACITY => found.push_str(&text.xml10_content()),
                Event::Eof => return Err(format!("it has no {}", CAPACITY.join("/"))),
                _ => {}
            }
        }
        let size = found.trim().parse::<u64>().ok().and_then(|size| size.checked_mul(MIB));
        size.ok_or_else(|| format!("its {} is `{}`", CAPACITY.join("/"), found.trim()))
    }
}

/// Lines as the original's: two blanks before each, four for each level.
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn line(&mut self, line: &str) {
        self.text.push_str(&" ".repeat(2 + 4 * self.depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn element(&mut self, name: &str, attributes: &str, inner: impl FnOnce(&mut Self)) {
        self.line(&format!("<{name}{attributes}>"));
        self.depth += 1;
        inner(self);
        self.depth -= 1;
        self.line(&format!("</{name}>"));
    }

    fn leaf(&mut self, name: &str, attributes: &str, text: &str) {
        self.line(&format!("<{name}{attributes}>{}</{name}>", escaped(text)));
    }
}

/// As Go's encoder escapes; what XML cannot hold becomes the replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const EXAMPLE: &str = include_str!("../testdata/worked-example.md.xml");

    #[test]
    fn the_worked_example_is_written_byte_for_byte() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let disk = Description {
            id: "2b6d0f5e-1c3a-4e57-9d1b-0a8c6f3e7d42".to_owned(),
            name: "pvc-7d0e8f1a-33c4-4a0e-9a52-6f1d2c8be417".to_owned(),
            create_time: "2024-03-05T09:15:27.123456Z".to_owned(),
            keep_after_delete_vm: Some(true),
            relocation_disabled: Some(false),
            native_snapshot_supported: Some(false),
            changed_block_tracking_enabled: Some(false),
            backing_type: "BaseConfigInfoDiskFileBackingInfo".to_owned(),
            datastore: "datastore-21".to_owned(),
            file_path: "[lab-vsan] fcd/0f3c.vmdk".to_owned(),
            backing_object_id: Some("0f3c".to_owned()),
            provisioning_type: "thin".to_owned(),
            capacity_mib: 3072,
            consumption_types: vec!["disk".to_owned()],
            consumers: Vec::new(),
            extended_metadata: vec![pair("cns.containerCluster.clusterId", "lab-cluster"), pair("cns.version", "3")],
        };
        assert_eq!(disk.write(), EXAMPLE);
        assert_eq!(Description::capacity(EXAMPLE.as_bytes()), Ok(3 << 30));
    }

    #[test]
    fn what_a_name_holds_cannot_become_an_element() {
        let odd = Description { name: "<a>&\"'\t".to_owned(), capacity_mib: 7, ..Description::default() };
        let xml = odd.write();
        assert!(xml.contains("<name>&lt;a&gt;&amp;&#34;&#39;&#x9;</name>"), "{xml}");
        assert_eq!(Description::capacity(xml.as_bytes()), Ok(7 << 20));
    }

    #[test]
    fn a_description_without_a_size_says_so() {
        let size = |inner: &str| {
            let xml =
                format!("<metadata><virtualStorageObject><config>{inner}</config></virtualStorageObject></metadata>");
            Description::capacity(xml.as_bytes())
        };
        assert_eq!(size("<name>x</name><capacityInMB> 3072 </capacityInMB>"), Ok(3 << 30));
        for (inner, why) in [
            ("", "it has no metadata/virtualStorageObject/config/capacityInMB"),
            ("<backing><capacityInMB>1</capacityInMB></backing>", "it has no"),
            ("<capacityInMB>many</capacityInMB>", "is `many`"),
            ("<capacityInMB>17592186044416</capacityInMB>", "is `17592186044416`"),
            ("<capacityInMB>", "it is not XML"),
        ] {
            let said = size(inner).unwrap_err();
            assert!(said.contains(why), "{inner}: {said}");
        }
        for garbage in [&b""[..], b"\xff\xff", b"{}"] {
            assert!(Description::capacity(garbage).is_err());
        }
    }
}
