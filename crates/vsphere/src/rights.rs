//! What our account may do, asked of vCenter for the session that asks; and what time it is there.

use std::collections::HashMap;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use crate::error::{Cause, Error};
use crate::fault::Act;
use crate::session::Session;
use crate::transport::{Endpoint, bad_reply};
use crate::vcenter::Vcenter;
use crate::xml::{Element, Reference, Request};

/// An object of the inventory that privileges are held on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entity {
    /// The root of the inventory: what is held there counts for vCenter as a whole.
    Root,
    /// A datastore, by its managed object id such as `datastore-39`.
    Datastore(String),
    /// A virtual machine, by its managed object id such as `vm-61`.
    Machine(String),
}

impl Entity {
    fn reference(&self, session: &Session) -> Reference {
        match self {
            Self::Root => session.root.clone(),
            Self::Datastore(id) => Reference::new("Datastore", id),
            Self::Machine(id) => Reference::new("VirtualMachine", id),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Root => "the root of the inventory",
            Self::Datastore(id) | Self::Machine(id) => id,
        }
    }
}

impl Vcenter {
    /// Which of these privileges our account lacks on an object (`HasPrivilegeOnEntities`, from API 5.5 on). One that vCenter
    /// says nothing of is lacking.
    ///
    /// # Errors
    /// When vCenter does not answer, or our account may not even see the object.
    pub async fn lacking(&self, entity: &Entity, privileges: &[&str]) -> Result<Vec<String>, Error> {
        let ask = |session: &Session| {
            let request = Request::new("HasPrivilegeOnEntities", &session.authorization);
            let request =
                request.reference("entity", &entity.reference(session)).text("sessionId", session.key.expose_secret());
            privileges.iter().fold(request, |request, privilege| request.text("privId", privilege))
        };
        let asked = async {
            let reply = self.call(Endpoint::Vim, true, None, ask).await?;
            let granted: Vec<String> = reply.element.children_named("returnval").flat_map(granted).collect();
            let lacks = |privilege: &&&str| !granted.iter().any(|granted| granted == **privilege);
            Ok(privileges.iter().filter(lacks).map(|privilege| (*privilege).to_owned()).collect())
        };
        asked.await.map_err(|cause: Cause| Error::new(Act::AskPrivileges, entity.name(), cause))
    }

    /// What time it is at vCenter.
    ///
    /// # Errors
    /// When vCenter does not answer.
    pub async fn current_time(&self) -> Result<Timestamp, Error> {
        let ask = |_: &Session| Request::new("CurrentTime", &Reference::new("ServiceInstance", "ServiceInstance"));
        let asked = async {
            let time = self.call(Endpoint::Vim, true, None, ask).await?.value()?;
            let text = time.trimmed();
            text.parse().map_err(|e| bad_reply(format!("`{text}` is not a time: {e}")))
        };
        asked.await.map_err(|cause: Cause| Error::new(Act::ReadClock, self.config().server(), cause))
    }

    /// The names of datastores, by their managed object ids. One that our account may not read is left out.
    ///
    /// # Errors
    /// When vCenter does not answer, or knows one of them no more.
    pub async fn datastore_names(&self, datastores: &[String]) -> Result<HashMap<String, String>, Error> {
        let read = self.property_of("Datastore", datastores, "name").await;
        read.map_err(|cause| Error::new(Act::NameDatastores, datastores.join(", "), cause))
    }
}

/// What is granted of one answer.
fn granted(entity: &Element) -> Vec<String> {
    let of = |privilege: &Element| {
        let is_granted = matches!(privilege.child("isGranted").map(Element::trimmed), Some("true" | "1"));
        is_granted.then(|| privilege.text_of("privId")).flatten()
    };
    entity.children_named("privAvailability").filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_what_vcenter_calls_granted_is_granted() {
        let answer = Element::parse(
            "<returnval><entity type=\"Datastore\">datastore-1</entity>
             <privAvailability><privId>A</privId><isGranted>true</isGranted></privAvailability>
             <privAvailability><privId>B</privId><isGranted>false</isGranted></privAvailability>
             <privAvailability><privId>C</privId></privAvailability></returnval>",
        );
        assert_eq!(granted(&answer.unwrap()), ["A"]);
    }
}
