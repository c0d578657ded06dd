//! The network that the library gets: TCP connections to where vCenter, ESXi hosts and name servers listen, and no port at which
//! others may call it. Landlock (landlock(7)) holds it to that, for this process and for good; kernels before 6.7 cannot.

use landlock::{
    Access as _, AccessNet, NetPort, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// An ESXi host's port for disks, its and vCenter's for everything else, and that of name servers for long answers.
const PORTS: [u16; 3] = [902, 443, 53];

/// Takes away what the library does not need; says what came of it, for the log. Before any thread is started: those that are
/// there would keep what they have.
pub(crate) fn confine(vcenter_port: u16) -> Result<&'static str, RulesetError> {
    let ports = PORTS.into_iter().chain([vcenter_port]);
    let status = Ruleset::default()
        .handle_access(AccessNet::from_all(landlock::ABI::V4))?
        .create()?
        .add_rules(ports.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => "this kernel does not hold programs to ports; Linux 6.7 does",
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => {
            "connections are held to the ports of vCenter and ESXi hosts"
        }
    })
}
