//! What vCenter says: whether it is reached, trusted and logged in to, what our account may do there, and which nodes and disks it
//! tracks.

use std::collections::BTreeSet;

use api::Timestamp;
use connections::{Vcenters, from_vsphere};
use futures::{StreamExt as _, stream};
use lifecycle::Problem;
use lifecycle::doctor::privileges::{self, Asked, On};
use lifecycle::doctor::{Finding, Matter, tracking};
use lifecycle::tracking::Facts;
use vsphere::{Entity, Vcenter};

use super::Doctor;
use crate::tracking::observe::{Seen, observe};

/// Questions to vCenter at once.
const AT_ONCE: usize = 8;

impl Doctor {
    pub(super) async fn look_at_vcenter(&mut self, centers: &Vcenters) -> Result<(), Problem> {
        let vcenter = centers.get().await?.for_operation("vsphere-backup doctor");
        let (server, user) = (vcenter.config().server(), vcenter.config().user.clone());
        let about = vcenter.about().await.map_err(|e| from_vsphere("reach vCenter", &e))?;
        let seen = format!("vCenter {server} answers and its certificate is trusted: API {}", about.api_version);
        self.find(Finding::ok(Matter::VCenter, seen));
        vcenter.log_in().await.map_err(|e| from_vsphere("log in to vCenter", &e))?;
        self.find(Finding::ok(Matter::VCenter, format!("account {user} may log in to vCenter {server}")));
        let asked = Timestamp::now();
        let time = vcenter.current_time().await.map_err(|e| from_vsphere("ask vCenter what time it is", &e))?;
        self.note_clock("vCenter", time, asked, Timestamp::now());
        let seen = match observe(&self.client, &vcenter).await {
            Ok(seen) => Some(seen),
            Err(error) => {
                let why = "Whether nodes and disks agree about change tracking is not known.";
                let seen = format!("look at nodes and disks: {error:#}");
                self.find(Finding::warning(Matter::Tracking, seen, why, "Mend what is named, then run doctor again."));
                None
            }
        };
        if let Some(seen) = &seen {
            self.findings.extend(tracking::judge(&seen.nodes, &seen.disks));
        }
        self.look_at_privileges(&vcenter, &user, seen.as_ref()).await
    }

    async fn look_at_privileges(&mut self, vcenter: &Vcenter, user: &str, seen: Option<&Seen>) -> Result<(), Problem> {
        let mut entities = vec![(On::Root, Entity::Root, "the root of the inventory".to_owned())];
        let datastores = match seen {
            Some(seen) => datastores(vcenter, seen).await,
            None => Vec::new(),
        };
        let names = vcenter.datastore_names(&datastores).await.unwrap_or_default(); // names are for people only
        entities.extend(datastores.into_iter().map(|id| {
            let name =
                names.get(&id).map_or_else(|| format!("datastore {id}"), |name| format!("datastore {name} ({id})"));
            (On::Datastores, Entity::Datastore(id), name)
        }));
        let machines = seen.into_iter().flat_map(|seen| seen.machines.iter().flatten());
        entities.extend(machines.map(|machine| {
            let name = format!("virtual machine {} ({})", machine.name, machine.id);
            (On::Machines, Entity::Machine(machine.id.clone()), name)
        }));
        let mut asked = Vec::new();
        for (on, entity, object) in entities {
            match vcenter.lacking(&entity, &privileges::on(on)).await {
                Ok(lacks) => asked.push(Asked { on, object, lacks }),
                Err(error) => {
                    let problem = from_vsphere(&format!("ask which privileges account {user} has on {object}"), &error);
                    self.find(Finding::of(Matter::Privileges, &problem));
                }
            }
        }
        self.findings.extend(privileges::judge(user, &asked));
        Ok(())
    }
}

/// The datastores of the cluster's disks. A disk that is not described says nothing; it has a finding of its own.
async fn datastores(vcenter: &Vcenter, seen: &Seen) -> Vec<String> {
    let known = seen.disks.iter().filter(|disk| matches!(disk.facts, Facts::Known { .. }));
    let look = async |disk: &lifecycle::tracking::Disk| vcenter.retrieve_disk(&disk.id).await.ok();
    let found: Vec<_> = stream::iter(known).map(look).buffered(AT_ONCE).collect().await;
    let ids: BTreeSet<String> = found.into_iter().flatten().map(|disk| disk.datastore).collect();
    ids.into_iter().collect()
}
