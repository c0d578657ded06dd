//! On which ESXi hosts virtual machines run: one question for many machines; the hosts' names, and the datastores they share.

use std::collections::{BTreeSet, HashMap};

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

    /// The managed object ids of the datastores that all these hosts have mounted, in order, without NFS 4.1, which CNS takes no
    /// volume on. A host that our account may not read shares nothing with anybody.
    ///
    /// # Errors
    /// As [`Vcenter::hosts_of`].
    pub async fn shared_datastores(&self, hosts: &[String]) -> Result<Vec<String>, Error> {
        let read = self.read_shared_datastores(hosts).await;
        read.map_err(|cause| Error::new(Act::FindDatastores, hosts.join(", "), cause))
    }

    async fn read_shared_datastores(&self, hosts: &[String]) -> Result<Vec<String>, Cause> {
        let mounted = self.values_of("HostSystem", hosts, "datastore").await?;
        let of_host = |host: &String| -> BTreeSet<String> {
            let listed = mounted.get(host).into_iter().flat_map(|val| val.children_named("ManagedObjectReference"));
            listed.map(|datastore| datastore.trimmed().to_owned()).collect()
        };
        let shared = hosts.iter().map(of_host).reduce(|all, more| &all & &more).unwrap_or_default();
        let shared: Vec<String> = shared.into_iter().collect();
        let kinds = self.property_of("Datastore", &shared, "summary.type").await?;
        Ok(shared.into_iter().filter(|id| kinds.get(id).is_some_and(|kind| kind != "NFS41")).collect())
    }

    /// One property that is text, of many objects of a kind, by their ids. What has none is left out.
    pub(crate) async fn property_of(
        &self,
        kind: &str,
        ids: &[String],
        property: &str,
    ) -> Result<HashMap<String, String>, Cause> {
        let values = self.values_of(kind, ids, property).await?;
        let text =
            |(id, val): (String, Element)| Some((id, Some(val.trimmed().to_owned()).filter(|text| !text.is_empty())?));
        Ok(values.into_iter().filter_map(text).collect())
    }

    /// One property of many objects of a kind, by their ids. vCenter may answer in pages.
    async fn values_of(&self, kind: &str, ids: &[String], property: &str) -> Result<HashMap<String, Element>, Cause> {
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
fn value_of(object: &Element, property: &str) -> Option<(String, Element)> {
    let mut told = object.children_named("propSet");
    let value = told.find(|set| set.text_of("name").as_deref() == Some(property))?.child("val")?.clone();
    Some((object.text_of("obj")?.trim().to_owned(), value))
}
