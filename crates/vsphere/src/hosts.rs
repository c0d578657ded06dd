//! On which ESXi hosts virtual machines run: one question for many machines, and the hosts' names.

use std::collections::HashMap;

use crate::error::{Cause, Error};
use crate::fault::Act;
use crate::session::Session;
use crate::transport::Endpoint;
use crate::vcenter::Vcenter;
use crate::xml::{Element, Reference, Request};

impl Vcenter {
    /// The managed object ids of the hosts (such as `host-21`) on which virtual machines run now, by the ids of the machines
    /// (such as `vm-61`). One that is nowhere at present, or that our account may not read, is left out.
    ///
    /// # Errors
    /// When vCenter does not answer, or knows one of the machines no more (`ManagedObjectNotFound`).
    pub async fn hosts_of(&self, machines: &[String]) -> Result<HashMap<String, String>, Error> {
        let read = self.property_of("VirtualMachine", machines, "runtime.host").await;
        read.map_err(|cause| Error::new(Act::FindHosts, format!("{} virtual machines", machines.len()), cause))
    }

    /// The names of hosts, by their managed object ids. One that our account may not read is left out.
    ///
    /// # Errors
    /// As [`Vcenter::hosts_of`].
    pub async fn host_names(&self, hosts: &[String]) -> Result<HashMap<String, String>, Error> {
        let read = self.property_of("HostSystem", hosts, "name").await;
        read.map_err(|cause| Error::new(Act::NameHosts, hosts.join(", "), cause))
    }

    /// One property of many objects of a kind, by their ids. vCenter may answer in pages.
    pub(crate) async fn property_of(
        &self,
        kind: &str,
        ids: &[String],
        property: &str,
    ) -> Result<HashMap<String, String>, Cause> {
        let mut found = HashMap::new();
        if ids.is_empty() {
            return Ok(found);
        }
        let first = |session: &Session| {
            let request = Request::new("RetrievePropertiesEx", &session.property_collector).group("specSet", |spec| {
                let spec = spec.group("propSet", |set| set.text("type", kind).text("pathSet", property));
                let object = |set: Request, id: &String| set.reference("obj", &Reference::new(kind, id));
                ids.iter().fold(spec, |spec, id| spec.group("objectSet", |set| object(set, id)))
            });
            request.group("options", |none| none)
        };
        let mut reply = self.call(Endpoint::Vim, true, None, first).await?;
        // every page says something of an object at least
        for _ in ids {
            let Some(page) = reply.element.child("returnval") else { break };
            found.extend(page.children_named("objects").filter_map(|object| value_of(object, property)));
            let Some(token) = page.text_of("token").filter(|token| !token.is_empty()) else { break };
            let more = |session: &Session| {
                Request::new("ContinueRetrievePropertiesEx", &session.property_collector).text("token", &token)
            };
            // a page is given once, and to the session that asked
            reply = self.call(Endpoint::Vim, false, None, more).await?;
        }
        Ok(found)
    }
}

/// The object's id and its property, where that was told.
fn value_of(object: &Element, property: &str) -> Option<(String, String)> {
    let mut told = object.children_named("propSet");
    let value = told.find(|set| set.text_of("name").as_deref() == Some(property))?.child("val")?.trimmed();
    (!value.is_empty()).then_some((object.text_of("obj")?.trim().to_owned(), value.to_owned()))
}
