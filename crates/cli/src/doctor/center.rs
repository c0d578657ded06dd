//! What vCenter says: whether it is reached, trusted and logged in to, what our account may do there, and which nodes and disks it
//! tracks.

use std::collections::BTreeSet;

use api::{Reason, Timestamp};
use connections::{Center, Centers, Vcenters, from_vsphere};
use futures::{StreamExt as _, stream};
use lifecycle::Problem;
use lifecycle::doctor::privileges::{self, Asked, On};
use lifecycle::doctor::trust::{self, Certificate};
use lifecycle::doctor::{Finding, Matter, tracking};
use lifecycle::tracking::Facts;
use vsphere::{Entity, Trust, Vcenter};

use super::Doctor;
use crate::tracking::observe::{Seen, observe};

/// Questions to vCenter at once.
const AT_ONCE: usize = 8;
/// What our calls are called in vCenter's logs.
const OPERATION: &str = "vsphere-backup doctor";

impl Doctor {
    pub(super) async fn look_at_vcenter(&mut self, centers: &Vcenters) -> Result<(), Problem> {
        let centers = match centers.centers().await {
            Err(problem) if problem.reason == Reason::VCenterSecretMissing => {
                let there = centers.elsewhere().await.ok().flatten();
                return Err(if there.is_some() { problem.with_fix(there) } else { problem });
            }
            found => found?,
        };
        self.findings.extend(trust::judge_slips(centers.source().unwrap_or("the command line"), centers.slips()));
        let mut answering = Vec::new();
        for center in centers.all() {
            let looked = self.look_at_center(center, &centers).await;
            let looked = looked.map_err(|problem| match centers.unread(center) {
                Some(file) => trust::unread_here(problem, &file.display().to_string()),
                None => problem,
            });
            match looked {
                Ok(vcenter) => answering.push(vcenter),
                Err(problem) if centers.only().is_some() => return Err(problem),
                Err(problem) => self.find(Finding::of(Matter::VCenter, &problem)),
            }
        }
        if answering.is_empty() {
            let cause = format!("none of {} vCenters can be used", centers.all().len());
            return Err(Problem::passing(Reason::VCenterUnreachable, cause));
        }
        let seen = match observe(&self.client, &centers, OPERATION).await {
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
        for vcenter in &answering {
            self.look_at_privileges(vcenter, &centers, seen.as_ref()).await;
        }
        Ok(())
    }

    /// Whether one vCenter is reached, trusted and logged in to, and what time it is there.
    async fn look_at_center(&mut self, center: &Center, centers: &Centers) -> Result<Vcenter, Problem> {
        let vcenter = center.client()?.for_operation(OPERATION);
        let (server, user) = (vcenter.config().server(), vcenter.config().user.clone());
        let about = vcenter.about().await.map_err(|e| from_vsphere("reach vCenter", &e))?;
        let is_unchecked = vcenter.config().trust == Trust::Insecure;
        let presented = if is_unchecked { vcenter.server_thumbprint().await.ok() } else { None }; // to compare, no more
        let certificate = if is_unchecked {
            let (source, section) = (centers.source().unwrap_or("the command line"), vcenter.config().host.as_str());
            Certificate::Unchecked { source, section, presented: presented.as_deref() }
        } else {
            Certificate::Verified
        };
        self.find(trust::judge(&server, &about.api_version, certificate));
        vcenter.log_in().await.map_err(|e| from_vsphere("log in to vCenter", &e))?;
        self.find(Finding::ok(Matter::VCenter, format!("account {user} may log in to vCenter {server}")));
        let asked = Timestamp::now();
        let time = vcenter.current_time().await.map_err(|e| from_vsphere("ask vCenter what time it is", &e))?;
        let whose = if centers.only().is_some() { "vCenter".to_owned() } else { format!("vCenter {server}") };
        self.note_clock(&whose, time, asked, Timestamp::now());
        Ok(vcenter)
    }

    async fn look_at_privileges(&mut self, vcenter: &Vcenter, centers: &Centers, seen: Option<&Seen>) {
        let user = &vcenter.config().user;
        let on_it = |other: &Vcenter| other.config().server() == vcenter.config().server();
        let mut entities = vec![(On::Root, Entity::Root, "the root of the inventory".to_owned())];
        let datastores = match seen {
            Some(seen) => datastores(centers, on_it, seen).await,
            None => Vec::new(),
        };
        let names = vcenter.datastore_names(&datastores).await.unwrap_or_default(); // names are for people only
        entities.extend(datastores.into_iter().map(|id| {
            let name =
                names.get(&id).map_or_else(|| format!("datastore {id}"), |name| format!("datastore {name} ({id})"));
            (On::Datastores, Entity::Datastore(id), name)
        }));
        let machines = seen.into_iter().flat_map(|seen| seen.machines.iter().flatten());
        entities.extend(machines.filter(|(home, _)| on_it(home)).map(|(_, machine)| {
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
    }
}

/// The datastores of the cluster's disks on one vCenter. A disk that is not described says nothing; it has a finding of its own.
async fn datastores(centers: &Centers, on_it: impl Fn(&Vcenter) -> bool, seen: &Seen) -> Vec<String> {
    let known = seen.disks.iter().filter(|disk| matches!(disk.facts, Facts::Known { .. }));
    let look = async |disk: &lifecycle::tracking::Disk| {
        let home = centers.of_disk(&disk.id).await.ok().filter(&on_it)?;
        home.retrieve_disk(&disk.id).await.ok()
    };
    let found: Vec<_> = stream::iter(known).map(look).buffered(AT_ONCE).collect().await;
    let ids: BTreeSet<String> = found.into_iter().flatten().map(|disk| disk.datastore).collect();
    ids.into_iter().collect()
}
