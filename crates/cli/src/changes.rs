//! A list of what changed on a disk, as other programs write it: read from a file, checked against the disk. Decides nothing.
//!
//! The form is that of `nbdinfo --map=qemu:dirty-bitmap:NAME --json` (`offset`, `length`, `type` 1 for changed) and of
//! `qemu-img map --output=json` (`start`, `length`, `data`).

use std::path::Path;

use anyhow::{Context as _, Result};
use disk::{ByteRange, Ranges};
use serde::Deserialize;

use crate::failure::Refused;

/// One entry; bytes. Where there is a `start`, `offset` is a place in a file behind the disk.
#[derive(Deserialize)]
struct Area {
    #[serde(default)]
    start: Option<u64>,
    #[serde(default)]
    offset: Option<u64>,
    length: u64,
    /// 0 is unchanged.
    #[serde(default, rename = "type")]
    kind: Option<u64>,
    /// `false` is unchanged.
    #[serde(default)]
    data: Option<bool>,
}

impl Area {
    /// First byte; without one the entry is none.
    fn first(&self) -> Result<u64, String> {
        self.start.or(self.offset).ok_or_else(|| "an entry has neither `offset` nor `start`".to_owned())
    }
}

/// The areas that the file calls changed. Entries may be in any order and may overlap.
pub(crate) fn read(file: &Path, disk_bytes: u64) -> Result<Ranges> {
    let act = || format!("read the list of changes {}", file.display());
    let text = std::fs::read(file).with_context(act)?;
    let invalid = |cause: String| {
        let fix = "give a JSON list of {\"offset\": bytes, \"length\": bytes}, as `nbdinfo --map --json` writes it";
        anyhow::Error::from(Refused::new(cause, fix)).context(act())
    };
    let areas: Vec<Area> = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let mut changed = Ranges::new();
    for area in areas.iter().filter(|area| area.kind != Some(0) && area.data != Some(false)) {
        let first = area.first().map_err(&invalid)?;
        if first.checked_add(area.length).is_none_or(|end| end > disk_bytes) {
            let cause = format!("{} bytes at {first} are beyond the disk of {disk_bytes} bytes", area.length);
            return Err(invalid(cause));
        }
        changed.insert(ByteRange::new(first, area.length));
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
        let qemu_img = r#"[{"start": 120, "length": 30, "depth": 0, "zero": false, "data": true, "offset": 5},
                           {"start": 100, "length": 20, "data": true}, {"start": 150, "length": 850, "data": false}]"#;
        let plain = r#"[{"offset": 140, "length": 10}, {"offset": 100, "length": 45}, {"offset": 3, "length": 0}]"#;
        let want = Ranges::from_iter([ByteRange::new(100, 50)]);
        for text in [nbdinfo, qemu_img, plain] {
            assert_eq!(read_text(text).unwrap(), want, "{text}");
        }
        assert!(read_text("[]").unwrap().is_empty());
    }

    #[test]
    fn a_list_that_is_none_or_of_another_disk_is_refused() {
        for (text, word) in [
            ("", "EOF"),
            ("{}", "sequence"),
            (r#"[{"length": 1}]"#, "neither `offset` nor `start`"),
            (r#"[{"offset": -1, "length": 1}]"#, "-1"),
            (r#"[{"offset": 999, "length": 2}]"#, "beyond the disk of 1000 bytes"),
            (r#"[{"offset": 18446744073709551615, "length": 2}]"#, "beyond the disk"),
        ] {
            let said = format!("{:#}", read_text(text).unwrap_err());
            assert!(said.contains(word), "{text}: {said}");
        }
    }
}
