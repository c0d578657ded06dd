//! By which ways the library may move a disk's data.

use std::fmt;
use std::str::FromStr;

/// What the library knows for disks of a vCenter. `file` is for disks on its own machine.
const KNOWN: [&str; 4] = ["nbdssl", "nbd", "hotadd", "san"];

/// Transport modes in order of preference; at least one, none twice.
///
/// `nbdssl` and `nbd` go over the network to the ESXi host, with and without TLS. `hotadd` attaches the disk to the virtual
/// machine in which this process runs, `san` reads the LUN: neither is for a pod that nobody prepared a node for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportModes(String);

/// Why a text is no list of transport modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no list of transport modes: {cause}; such a list is `nbdssl:nbd`, and the modes are {}", KNOWN.join(", "))]
pub struct BadTransportModes {
    text: String,
    cause: String,
}

impl TransportModes {
    /// As the library takes them: joined by colons.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TransportModes {
    fn default() -> Self {
        Self("nbdssl:nbd".to_owned())
    }
}

impl FromStr for TransportModes {
    type Err = BadTransportModes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |cause: String| BadTransportModes { text: text.to_owned(), cause };
        let modes: Vec<&str> = text.split(':').map(str::trim).collect();
        for (at, mode) in modes.iter().enumerate() {
            if !KNOWN.contains(mode) {
                return Err(bad(if mode.is_empty() {
                    "a name is missing".to_owned()
                } else {
                    format!("`{mode}` is none")
                }));
            }
            if modes[..at].contains(mode) {
                return Err(bad(format!("`{mode}` stands there twice")));
            }
        }
        Ok(Self(modes.join(":")))
    }
}

impl fmt::Display for TransportModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_preference_is_kept_and_a_mistake_is_named() {
        for text in ["nbdssl:nbd", "nbd", "san:hotadd:nbdssl:nbd"] {
            assert_eq!(text.parse::<TransportModes>().unwrap().to_string(), text);
        }
        assert_eq!("nbd : nbdssl".parse::<TransportModes>().unwrap().as_str(), "nbd:nbdssl");
        for (text, cause) in [
            ("", "missing"),
            ("nbdssl:", "missing"),
            ("nbdssl,nbd", "`nbdssl,nbd` is none"),
            ("file", "`file` is none"),
            ("nbd:nbd", "twice"),
        ] {
            let error = text.parse::<TransportModes>().unwrap_err().to_string();
            assert!(error.contains(cause) && error.contains("nbdssl, nbd, hotadd, san"), "{error}");
        }
    }
}
