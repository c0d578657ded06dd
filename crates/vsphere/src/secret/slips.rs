//! Names that the parser passes over and that are a slip of the pen away from one that it reads, and values in quotes that are none.
//!
//! The CSI driver and the cloud provider have sections and variables of their own in the same file, more of them with every version. So
//! only what is near a known name is told, and never a value.

use std::fmt;

use super::lines::{self, Line, Value};
use super::{CENTER, VARIABLES, Within, enter};

/// Sections that the CSI driver or the cloud provider know.
const SECTIONS: [&str; 12] = [
    "Global",
    CENTER,
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

/// Something that is read in another way than it may be meant, or not at all. Names of headers are in brackets; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slip {
    /// A name that nobody reads, and the known one that may be meant.
    Name {
        /// Where it is.
        line: usize,
        /// The name as it is written.
        written: String,
        /// The name that may be meant.
        meant: String,
    },
    /// The value of this variable begins and ends with a single quote.
    Quotes {
        /// Where it is.
        line: usize,
        /// The variable, as it is known.
        variable: &'static str,
    },
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { line, written, meant } => {
                write!(f, "line {line}: nobody reads `{written}`; `{meant}` may be meant")
            }
            Self::Quotes { line, variable } => {
                write!(
                    f,
                    "line {line}: the quotes `'` around what `{variable}` says count as part of the value; `\"` may be meant"
                )
            }
        }
    }
}

/// The slips in a text, in the order of its lines; none where it cannot be read, since [`super::parse`] says why.
pub fn slips(text: &str) -> Vec<Slip> {
    let mut found = Vec::new();
    let mut is_ours = false;
    for (line, content) in lines::read(text).unwrap_or_default() {
        match content {
            Line::Header(header) => {
                if let Some(known) = section(&header.name) {
                    found.push(Slip::Name { line, written: format!("[{}]", header.name), meant: format!("[{known}]") });
                }
                is_ours = matches!(enter(header, line, &mut Vec::new()), Ok(Within::Global | Within::Center(_)));
            }
            Line::Variable { name, value } if is_ours => {
                if let Some(variable) = VARIABLES.into_iter().find(|known| known.eq_ignore_ascii_case(&name)) {
                    found.extend(is_in_single_quotes(&value).then_some(Slip::Quotes { line, variable }));
                } else if let (Some(known), Value::Text(_)) = (variable(&name), &value) {
                    found.push(Slip::Name { line, written: name, meant: known.to_owned() });
                }
            }
            Line::Variable { .. } => {}
        }
    }
    found
}

/// The section that this name, which is none, is a slip away from.
pub(super) fn section(name: &str) -> Option<&'static str> {
    near(name, &SECTIONS)
}

/// The variable that this name, which is none, is a slip away from.
pub(super) fn variable(name: &str) -> Option<&'static str> {
    if name.eq_ignore_ascii_case(OTHER) { None } else { near(name, &VARIABLES) }
}

fn is_in_single_quotes(value: &Value) -> bool {
    let Value::Text(text) = value else { return false };
    text.strip_prefix('\'').is_some_and(|rest| rest.ends_with('\''))
}

/// The known name that this one, which is none of them, is a slip away from.
fn near(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let written = name.to_lowercase();
    let far = |known: &&'static str| strsim::levenshtein(&written, &known.to_lowercase());
    let nearest = known.iter().copied().min_by_key(far)?;
    let allowed = if nearest.len() < SHORT { 1 } else { 2 };
    (1..=allowed).contains(&far(&nearest)).then_some(nearest)
}
