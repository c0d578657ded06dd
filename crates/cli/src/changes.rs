//! A list of what changed on a disk, as other programs write it: read from a file, checked against the disk. Decides nothing.
//!
//! The form is that of `nbdinfo --map=qemu:dirty-bitmap:NAME --json`: `offset` and `length` in bytes, `type` 1 for changed, 0
//! for unchanged. Other maps look alike and mean other things (`type` 0 of a plain `nbdinfo --map` is data), so whatever is not
//! clearly of this form is refused.

use std::path::Path;

use anyhow::{Context as _, Result};
use disk::{ByteRange, Ranges};
use serde::Deserialize;

use crate::failure::Refused;

/// One entry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    /// Bytes.
    offset: u64,
    /// Bytes.
    length: u64,
    #[serde(default, rename = "type")]
    kind: Option<u64>,
    #[serde(default)]
    description: Option<String>,
}

impl Area {
    /// Whether its bytes changed; `Err` says why that is not clear.
    fn is_changed(&self) -> Result<bool, String> {
        match (self.kind, self.description.as_deref()) {
            (None | Some(1), None | Some("dirty")) => Ok(true),
            (Some(0), None | Some("clean")) => Ok(false),
            (kind, described) => {
                let (kind, described) = (kind.unwrap_or(1), described.unwrap_or_default());
                Err(format!("type {kind} `{described}` is of another map than one of changes"))
            }
        }
    }
}

/// The areas that the file calls changed. Entries may be in any order and may overlap.
pub(crate) fn read(file: &Path, disk_bytes: u64) -> Result<Ranges> {
    let act = || format!("read the list of changes {}", file.display());
    let text = std::fs::read(file).with_context(act)?;
    let invalid = |cause: String| {
        let fix = "give what `nbdinfo --map=qemu:dirty-bitmap:NAME --json` writes, or a list of {\"offset\": bytes, \"length\": bytes}";
        anyhow::Error::from(Refused::new(cause, fix)).context(act())
    };
    let areas: Vec<Area> = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let mut changed = Ranges::new();
    for area in &areas {
        if area.offset.checked_add(area.length).is_none_or(|end| end > disk_bytes) {
            let (length, offset) = (area.length, area.offset);
            return Err(invalid(format!("{length} bytes at {offset} are beyond the disk of {disk_bytes} bytes")));
        }
        if area.is_changed().map_err(&invalid)? {
            changed.insert(ByteRange::new(area.offset, area.length));
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    fn read_text(text: &str) -> Result<Ranges> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), 1000)
    }

    #[test]
    fn lists_of_other_programs_are_understood_in_any_order() {
        let nbdinfo = r#"[{"offset": 0, "length": 100, "type": 0, "description": "clean"},
                          {"offset": 100, "length": 50, "type": 1, "description": "dirty"}]"#;
        let plain = r#"[{"offset": 140, "length": 10}, {"offset": 100, "length": 45}, {"offset": 3, "length": 0}]"#;
        let want = Ranges::from_iter([ByteRange::new(100, 50)]);
        for text in [nbdinfo, plain] {
            assert_eq!(read_text(text).unwrap(), want, "{text}");
        }
        assert!(read_text("[]").unwrap().is_empty());
    }

    #[test]
    fn a_list_that_is_none_or_of_another_disk_is_refused() {
        for (text, word) in [
            ("", "EOF"),
            ("{}", "sequence"),
            (r#"[{"length": 1}]"#, "missing field `offset`"),
            (r#"[{"offset": 0, "length": 1, "type": 0, "description": "data"}]"#, "another map"),
            (r#"[{"offset": 0, "length": 1, "type": 3, "description": "hole,zero"}]"#, "another map"),
            (r#"[{"start": 0, "length": 1, "depth": 0, "data": false}]"#, "unknown field"),
            (r#"[{"offset": -1, "length": 1}]"#, "-1"),
            (r#"[{"offset": 999, "length": 2}]"#, "beyond the disk of 1000 bytes"),
            (r#"[{"offset": 18446744073709551615, "length": 2}]"#, "beyond the disk"),
        ] {
            let said = format!("{:#}", read_text(text).unwrap_err());
            assert!(said.contains(word), "{text}: {said}");
        }
    }
}
