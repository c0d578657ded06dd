//! Identifiers of disks and of what vSphere derives from them. Text becomes a value here, once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text is empty, or holds a character that would change its meaning where ids are joined by `:` or `/`.
    #[error("`{0}` is not an id: ids are not empty and hold neither `:`, `/` nor blanks")]
    NotAnId(String),
    /// A disk snapshot is written `<disk>:<snapshot>`.
    #[error("`{0}` is not `<disk>:<snapshot>`")]
    NotADiskSnapshot(String),
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as vSphere spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                let joins = |c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control();
                if text.is_empty() || text.contains(joins) {
                    return Err(ParseIdError::NotAnId(text));
                }
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

text_id! {
    /// A first-class disk of vSphere, equal to the CNS volume id and to `spec.csi.volumeHandle` of its PV.
    DiskId
}

text_id! {
    /// A snapshot of one disk. Only unique together with its [`DiskId`].
    DiskSnapshotId
}

/// One disk at one moment, held by vSphere. Written `<disk>:<snapshot>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskSnapshot {
    /// The disk.
    pub disk: DiskId,
    /// Its snapshot.
    pub snapshot: DiskSnapshotId,
}

impl fmt::Display for DiskSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.disk, self.snapshot)
    }
}

impl FromStr for DiskSnapshot {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (disk, snapshot) = text.split_once(':').ok_or_else(|| ParseIdError::NotADiskSnapshot(text.to_owned()))?;
        Ok(Self { disk: disk.parse()?, snapshot: snapshot.parse()? })
    }
}

/// A point in a disk's change tracking, opaque text of the server (`<uuid>/<epoch>`, with blanks inside).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChangeId(String);

impl ChangeId {
    /// Takes the server's text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The server's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tracking that counts, and how far it has counted; `None` where the text is not as servers write it: 16 bytes in
    /// hex with blanks and one dash, a slash, a number (`52 05 a2 ce 6d 6d c9 59-d3 2e ad 19 e3 96 73 6d/5`).
    pub fn parts(&self) -> Option<(&str, u64)> {
        let (uuid, epoch) = self.0.split_once('/')?;
        let is_byte = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_half = |half: &str| half.split(' ').count() == 8 && half.split(' ').all(is_byte);
        let (first, second) = uuid.split_once('-')?;
        let is_number = !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit());
        (is_half(first) && is_half(second) && is_number).then_some(())?;
        Some((uuid, epoch.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_split_differently_elsewhere_is_refused() {
        for bad in ["", "a:b", "a/b", "a b", "a\n"] {
            assert!(bad.parse::<DiskId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_change_id_is_a_tracking_and_a_count_or_it_is_none() {
        let uuid = "52 05 a2 ce 6d 6d c9 59-d3 2e ad 19 e3 96 73 6d";
        assert_eq!(ChangeId::new(format!("{uuid}/5")).parts(), Some((uuid, 5)));
        let upper = format!("{}/5", uuid.to_uppercase());
        for none in ["*", "", "5", uuid, &format!("{uuid}/"), &format!("{uuid}/+5"), &format!("{uuid}/x"), &upper] {
            assert_eq!(ChangeId::new(none).parts(), None, "{none}");
        }
        let short = ChangeId::new("52 05-d3 2e/5");
        assert_eq!(short.parts(), None);
    }

    #[test]
    fn a_disk_snapshot_reads_back_as_it_was_written() -> Result<(), ParseIdError> {
        let written: DiskSnapshot = "2b6d0f5e-1c3a:c9f1d7aa-60b2".parse()?;
        assert_eq!(written.to_string().parse::<DiskSnapshot>()?, written);
        assert!("only-a-disk".parse::<DiskSnapshot>().is_err());
        assert!("a:b:c".parse::<DiskSnapshot>().is_err(), "three parts are some other id");
        Ok(())
    }
}
