//! Virtual machines, as far as the disks of a cluster depend on them: which one a node is, and whether it tracks changes.

use tracing::debug;

use crate::disks::text;
use crate::error::{Cause, Error};
use crate::fault::{Act, Fault, FaultKind, Raised};
use crate::session::Session;
use crate::transport::{Endpoint, bad_reply};
use crate::vcenter::Vcenter;
use crate::xml::{Element, Reference, Request};

/// What is read of a virtual machine.
const PROPERTIES: [&str; 4] = ["name", "config.version", "config.changeTrackingEnabled", "snapshot"];

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its managed object id, such as `vm-61`.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// The version of its hardware, such as `vmx-19`.
    pub hardware: String,
    /// Whether its configuration says that the changes of its disks are tracked. It takes effect with the next stun.
    pub tracking: bool,
    /// Whether it has snapshots of its own.
    pub snapshots: bool,
}

impl Machine {
    pub(crate) fn reference(&self) -> Reference {
        Reference::new("VirtualMachine", &self.id)
    }
}

impl Vcenter {
    /// The virtual machines that have this UUID: that of their BIOS, which is what nodes say of themselves, or else that
    /// which vCenter gave them. None where there is no such, or our account may not see it; several where copies were made
    /// carelessly.
    ///
    /// # Errors
    /// When vCenter does not say what of one that it found.
    pub async fn machines_with_uuid(&self, uuid: &str) -> Result<Vec<Machine>, Error> {
        let found = async { self.described(&self.found_by_any_uuid(uuid).await?).await };
        found.await.map_err(|cause| Error::new(Act::FindMachine, uuid, cause))
    }

    /// The managed object ids of these machines alone, such as `vm-61`: nothing is read of them.
    ///
    /// # Errors
    /// When vCenter does not answer.
    pub async fn machine_ids_with_uuid(&self, uuid: &str) -> Result<Vec<String>, Error> {
        let found = self.found_by_any_uuid(uuid).await;
        let found = found.map_err(|cause| Error::new(Act::FindMachine, uuid, cause))?;
        Ok(found.into_iter().map(|machine| machine.id).collect())
    }

    async fn found_by_any_uuid(&self, uuid: &str) -> Result<Vec<Reference>, Cause> {
        let of_bios = self.found_by_uuid(uuid, false).await?;
        if of_bios.is_empty() { self.found_by_uuid(uuid, true).await } else { Ok(of_bios) }
    }

    async fn found_by_uuid(&self, uuid: &str, of_vcenter: bool) -> Result<Vec<Reference>, Cause> {
        let of_vcenter = of_vcenter.to_string();
        let find = |session: &Session| {
            let request = Request::new("FindAllByUuid", &session.search_index).text("uuid", uuid);
            request.text("vmSearch", "true").text("instanceUuid", &of_vcenter)
        };
        let reply = self.call(Endpoint::Vim, true, None, find).await?;
        let machines = reply.element.children_named("returnval").map(Reference::from_element);
        machines.collect::<Option<_>>().ok_or_else(|| bad_reply("a virtual machine without an id"))
    }

    async fn described(&self, machines: &[Reference]) -> Result<Vec<Machine>, Cause> {
        let mut described = Vec::with_capacity(machines.len());
        for machine in machines {
            match self.describe(machine).await {
                Ok(found) => described.push(found),
                // deleted since it was found
                Err(Cause::Fault(Fault { kind: FaultKind::ManagedObjectNotFound, .. })) => {
                    debug!(machine = machine.id, "the virtual machine went");
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(described)
    }

    async fn describe(&self, machine: &Reference) -> Result<Machine, Cause> {
        let read = |session: &Session| {
            Request::new("RetrievePropertiesEx", &session.property_collector)
                .group("specSet", |spec| {
                    let properties = |set: Request| {
                        PROPERTIES
                            .iter()
                            .fold(set.text("type", "VirtualMachine"), |set, name| set.text("pathSet", name))
                    };
                    spec.group("propSet", properties).group("objectSet", |set| set.reference("obj", machine))
                })
                .group("options", |none| none)
        };
        Machine::from_element(&self.call(Endpoint::Vim, true, None, read).await?.value()?)
    }
}

impl Machine {
    pub(crate) fn from_element(properties: &Element) -> Result<Self, Cause> {
        let object =
            properties.child("objects").ok_or_else(|| bad_reply("nothing is said about the virtual machine"))?;
        // what our account may not read is listed here, and absent from the rest as if it were off
        if let Some(missing) = object.at(&["missingSet", "fault"]) {
            return Err(Fault::from_localized(missing, Raised::AtOnce).into());
        }
        let value = |name: &str| {
            let mut set = object.children_named("propSet");
            set.find(|property| property.text_of("name").as_deref() == Some(name))?.child("val")
        };
        let said = |name: &str| value(name).map(Element::trimmed).filter(|text| !text.is_empty());
        // one that its host does not show at present has no configuration at all, and is not for that untracked
        let hardware = said("config.version").ok_or_else(|| bad_reply("it tells nothing of its configuration"))?;
        Ok(Self {
            id: text(object, "obj")?.trim().to_owned(),
            name: said("name").unwrap_or_default().to_owned(),
            hardware: hardware.to_owned(),
            tracking: matches!(said("config.changeTrackingEnabled"), Some("true" | "1")),
            snapshots: value("snapshot").is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(properties: &str) -> Result<Machine, Cause> {
        let object = format!(
            r#"<returnval xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><objects>
            <obj type="VirtualMachine">vm-61</obj>{properties}</objects></returnval>"#
        );
        Machine::from_element(&Element::parse(&object).unwrap())
    }

    fn property(name: &str, value: &str) -> String {
        format!("<propSet><name>{name}</name><val xsi:type=\"xsd:string\">{value}</val></propSet>")
    }

    #[test]
    fn a_machine_is_read_field_for_field() {
        let tree = "<currentSnapshot type=\"VirtualMachineSnapshot\">snapshot-9</currentSnapshot>";
        let all = [("name", "node &amp; a"), ("config.version", "vmx-19"), ("config.changeTrackingEnabled", "true")];
        let all: String = all.iter().chain(&[("snapshot", tree)]).map(|(name, value)| property(name, value)).collect();
        let want = Machine {
            id: "vm-61".to_owned(),
            name: "node & a".to_owned(),
            hardware: "vmx-19".to_owned(),
            tracking: true,
            snapshots: true,
        };
        assert_eq!(read(&all).unwrap(), want);
        let never_switched = read(&property("config.version", "vmx-19")).unwrap();
        assert_eq!((never_switched.tracking, never_switched.snapshots), (false, false));
    }

    #[test]
    fn what_may_not_be_read_is_not_taken_for_switched_off() {
        let hidden = "<missingSet><path>config.changeTrackingEnabled</path><fault><fault xsi:type=\"NoPermission\">
            <object type=\"VirtualMachine\">vm-61</object><privilegeId>System.Read</privilegeId></fault></fault></missingSet>";
        let refused = read(&format!("{}{hidden}", property("config.version", "vmx-19"))).unwrap_err();
        assert!(refused.chain().contains("`System.Read` on VirtualMachine:vm-61"), "{}", refused.chain());
        assert!(read(&property("name", "away")).is_err(), "its host does not show it");
    }
}
