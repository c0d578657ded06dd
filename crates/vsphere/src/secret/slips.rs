//! Names that the parser passes over and that are a slip of the pen away from one that it reads.
//!
//! The CSI driver and the cloud provider have sections and variables of their own in the same file, more of them with every version. So
//! only what is near a known name is told, and never a value.

use std::fmt;

use super::lines::{self, Line};
use super::{VARIABLES, Within, enter};

/// Sections that the CSI driver or the cloud provider know.
const SECTIONS: [&str; 12] = [
    "Global",
    "VirtualCenter",
    "NetPermissions",
    "Snapshot",
    "Labels",
    "TopologyCategory",
    "GC",
    "Network",
    "Workspace",
    "Disk",
    "Nodes",
    "Route",
];
/// A variable of the cloud provider that is as near to one of ours as a slip.
const OTHER: &str = "datacenter";
/// Names shorter than this count as meant only when one letter differs.
const SHORT: usize = 6;

/// A name that nobody reads, and the known one that may be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    /// Counted from 1.
    pub line: usize,
    /// The name as it is written; a header in brackets.
    pub written: String,
    /// The name that may be meant; a header in brackets.
    pub meant: String,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: nobody reads `{}`; `{}` may be meant", self.line, self.written, self.meant)
    }
}

/// The slips in a text, in the order of its lines; none where it cannot be read, since [`super::parse`] says why.
pub fn slips(text: &str) -> Vec<Slip> {
    let mut found = Vec::new();
    let mut is_ours = false;
    for (line, content) in lines::read(text).unwrap_or_default() {
        match content {
            Line::Header(header) => {
                if let Some(known) = near(&header.name, &SECTIONS) {
                    found.push(Slip { line, written: format!("[{}]", header.name), meant: format!("[{known}]") });
                }
                is_ours = matches!(enter(header, line, &mut Vec::new()), Ok(Within::Global | Within::Center(_)));
            }
            Line::Variable { name, .. } if is_ours && !name.eq_ignore_ascii_case(OTHER) => {
                if let Some(known) = near(&name, &VARIABLES) {
                    found.push(Slip { line, written: name, meant: known.to_owned() });
                }
            }
            Line::Variable { .. } => {}
        }
    }
    found
}

/// The known name that this one, which is none of them, is a slip away from.
fn near(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let written = name.to_lowercase();
    let far = |known: &&'static str| strsim::levenshtein(&written, &known.to_lowercase());
    let nearest = known.iter().copied().min_by_key(far)?;
    let allowed = if nearest.len() < SHORT { 1 } else { 2 };
    (1..=allowed).contains(&far(&nearest)).then_some(nearest)
}
