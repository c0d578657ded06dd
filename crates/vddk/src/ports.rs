//! The TCP ports that the library may connect to, besides those of vCenter and of name servers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports of ESXi hosts: 902 for disks, 443 for everything else.
const OF_HOSTS: [u16; 2] = [443, 902];

/// Ports that may be connected to, as `443,902` or `any`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// All.
    Any,
    /// These.
    These(Vec<u16>),
}

impl Default for Ports {
    fn default() -> Self {
        Self::These(OF_HOSTS.to_vec())
    }
}

/// A text is no list of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no port; give ports from 1 to 65535 joined by commas, or `any`")]
pub struct BadPorts(String);

impl FromStr for Ports {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, BadPorts> {
        if text.trim() == "any" {
            return Ok(Self::Any);
        }
        let port = |part: &str| match part.trim().parse() {
            Ok(0) | Err(_) => Err(BadPorts(part.trim().to_owned())),
            Ok(port) => Ok(port),
        };
        text.split(',').map(port).collect::<Result<_, _>>().map(Self::These)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::These(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                f.write_str(&ports.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_told_and_a_mistake_is_named() {
        for (text, ports) in [("any", Ports::Any), ("443,902", Ports::default()), ("1", Ports::These(vec![1]))] {
            assert_eq!(text.parse::<Ports>().unwrap(), ports);
            assert_eq!(ports.to_string(), text);
        }
        assert_eq!(" 443 , 902 ".parse::<Ports>().unwrap(), Ports::default());
        for (text, wrong) in
            [("", "``"), ("443,0", "`0`"), ("443,65536", "`65536`"), ("902;443", "`902;443`"), ("none", "`none`")]
        {
            let told = text.parse::<Ports>().unwrap_err().to_string();
            assert!(told.starts_with(wrong), "{text}: {told}");
        }
    }
}
