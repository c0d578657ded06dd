//! What the objects of one backup are called. Does no I/O.
//!
//! The original lists by the beginning of a key, so nothing else may ever stand under these names.

use disk::DiskSnapshot;

/// Names of the objects of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    id: String,
    peinfo: String,
    data: String,
    description: String,
}

impl Keys {
    /// Those of the backup of `snapshot` below `prefix`, which may end in `/` or not.
    pub fn new(prefix: &str, snapshot: &DiskSnapshot) -> Self {
        let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        let id = format!("ivd:{snapshot}");
        let below = |folder: &str, ending: &str| format!("{prefix}{slash}ivd/{folder}/{id}{ending}");
        Self { peinfo: below("peinfo", ""), data: below("data", ".data"), description: below("md", ".md"), id }
    }

    /// `ivd:<disk>:<disk snapshot>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The object that makes it a backup.
    pub fn peinfo(&self) -> &str {
        &self.peinfo
    }

    /// The stream of the disk's bytes; its segments lie below it.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The stream of the disk's description; its segments lie below it.
    pub fn description(&self) -> &str {
        &self.description
    }
}

/// Name of the segment of `stream` with that number, which begins at byte `offset` of the stream.
pub(crate) fn segment(stream: &str, number: u64, offset: u64) -> String {
    format!("{stream}/{number:06}-{offset:016}")
}

/// Number and offset of the segment of that name; `None` when it is not the name of one.
pub(crate) fn parse_segment(stream: &str, key: &str) -> Option<(u64, u64)> {
    let name = key.strip_prefix(stream)?.strip_prefix('/')?;
    let (number, offset) = name.split_once('-')?;
    let digits = |text: &str, least: usize| {
        (text.len() >= least && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
    };
    Some((digits(number, 6)?, digits(offset, 16)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_segment_is_found_by_the_name_that_the_original_gives_it() {
        let keys = Keys::new("plugins/vsphere-astrolabe-repo", &"d:s".parse().unwrap());
        assert_eq!(keys.peinfo(), "plugins/vsphere-astrolabe-repo/ivd/peinfo/ivd:d:s");
        assert_eq!(Keys::new("plugins/vsphere-astrolabe-repo/", &"d:s".parse().unwrap()), keys, "with its slash");
        let second = segment(keys.data(), 1, 104_857_600_000);
        assert_eq!(second, "plugins/vsphere-astrolabe-repo/ivd/data/ivd:d:s.data/000001-0000104857600000");
        assert_eq!(parse_segment(keys.data(), &second), Some((1, 104_857_600_000)));
    }

    #[test]
    fn nothing_else_is_taken_for_a_segment() {
        for name in
            ["", "000001", "1-2", "000001-0000104857600000.part", "000001--000104857600000", "+00001-0000000000000000"]
        {
            assert_eq!(parse_segment("s", &format!("s/{name}")), None, "{name}");
        }
        assert_eq!(parse_segment("s", "s2/000001-0000104857600000"), None, "of another stream");
    }
}
