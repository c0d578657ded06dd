//! The network that the library gets: TCP connections to ports at which vCenter, ESXi hosts and name servers listen, at whatever
//! address. Landlock (landlock(7)) holds it to that, for this process and for good, where the kernel can (Linux 6.7). UDP and
//! listening are not held: a program that names no port gets one from the kernel, which Landlock does not see.

use landlock::{AccessNet, NetPort, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus};
use vddk::Ports;

/// That of name servers, for long answers.
const NAMES: u16 = 53;

/// Takes away what the library does not need; says what came of it, for the log. Before any thread is
/// started: those that are there would keep what they have.
pub(crate) fn confine(vcenter_port: u16, ports: &Ports) -> Result<String, RulesetError> {
    let Ports::These(ports) = ports else {
        return Ok("connections are held to no ports, as the settings say".to_owned());
    };
    let all: Vec<u16> = ports.iter().copied().chain([vcenter_port, NAMES]).collect();
    let status = Ruleset::default()
        .handle_access(AccessNet::ConnectTcp)?
        .create()?
        .add_rules(all.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => {
            "connections are held to no ports: this kernel has no Landlock for them".to_owned()
        }
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => {
            format!("TCP connections are held to ports {all:?}")
        }
    })
}
