//! What the cluster itself says: the API server and its clock, our programs, and what our accounts may do.

use std::collections::BTreeSet;

use api::{Reason, Timestamp, names};
use connections::{Settings, Vcenters, from_kube};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use k8s_openapi::jiff::SignedDuration;
use kube::api::{GetParams, ListParams, PostParams};
use kube::client::Body;
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::doctor::library::Brought;
use lifecycle::doctor::programs::{self, Leader, State, Workload};
use lifecycle::doctor::rights::{self, Right, Within};
use lifecycle::doctor::{Finding, Matter};
use lifecycle::flavor::Flavor;

use super::{AT_ONCE, Doctor};

/// The Deployment of Velero, and what is part of the name of our plugin's image.
const VELERO: &str = "velero";
const PLUGIN_IMAGE: &str = "velero-plugin-for-vsphere";
/// The volume of the data-manager's pods that holds the disk library, and the container that fills it.
const VDDK: &str = "vddk";

impl Doctor {
    /// Whether the API server answers at all, and what time it is there.
    pub(super) async fn look_at_the_cluster(&mut self) -> Result<(), Problem> {
        let version =
            self.client.apiserver_version().await.map_err(|e| from_kube("ask the API server what it is", &e))?;
        self.find(Finding::ok(Matter::Cluster, format!("the API server answers: Kubernetes {}", version.git_version)));
        // whatever it answers has the time
        if let Ok(request) = kube::core::Request::new("").get("version", &GetParams::default()) {
            let asked = Timestamp::now();
            let answer = self.client.send(request.map(Body::from)).await;
            let date = answer.ok().and_then(|answer| http_date(answer.headers().get("date")?.to_str().ok()?));
            if let Some(date) = date {
                self.note_clock("API server", date, asked, Timestamp::now());
            }
        }
        Ok(())
    }

    pub(super) async fn look_at_programs(&mut self, centers: &Vcenters) -> Result<(), Problem> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let read = async |name: &str| {
            let found = deployments.get_opt(name).await;
            found.map_err(|e| from_kube(&format!("read Deployment {name}"), &e))
        };
        let driver = read(names::DRIVER).await?;
        let data_manager = self.daemon_set().await?;
        let velero = read(VELERO).await?;
        let mut images = Vec::new();
        let workload = |name: String, state: Option<State>| Workload { name, state };
        let state = driver.as_ref().map(of_deployment);
        images.extend(state.as_ref().map(|state| (names::DRIVER.to_owned(), state.image.clone())));
        self.find(programs::judge_workload(&workload(format!("Deployment {}", names::DRIVER), state)));
        let state = data_manager.as_ref().map(of_daemon_set);
        images.extend(state.as_ref().map(|state| (names::DATA_MANAGER.to_owned(), state.image.clone())));
        let data_managers = workload(format!("DaemonSet {}", names::DATA_MANAGER), state);
        self.find(programs::judge_data_managers(&data_managers, centers.flavor().await?.flavor));
        images.extend(velero.as_ref().and_then(plugin_image).map(|image| ("the plugin in Velero".to_owned(), image)));
        self.findings.extend(programs::judge_versions(&images));
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let lease = leases.get_opt(names::DRIVER_LEASE).await.map_err(|e| from_kube("read the driver's lease", &e))?;
        self.find(programs::judge_leader(lease.as_ref().map(leader).as_ref(), self.cluster_time()));
        Ok(())
    }

    async fn daemon_set(&self) -> Result<Option<DaemonSet>, Problem> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        sets.get_opt(names::DATA_MANAGER).await.map_err(|e| from_kube("read the DaemonSet of the data-managers", &e))
    }

    /// The nodes that a data-manager runs on, and how the disk library comes there. Where no pods are shown: all nodes. Beside a
    /// Supervisor, where nothing in the cluster tells of them: none.
    pub(super) async fn data_managers(&self, centers: &Vcenters) -> Result<(Vec<String>, Brought), Problem> {
        let set = self.daemon_set().await?;
        if set.is_none() && centers.flavor().await?.flavor == Flavor::Supervisor {
            return Ok((Vec::new(), Brought::Unknown));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let named = ListParams::default().labels(&format!("name={}", names::DATA_MANAGER));
        let pods = pods.list(&named).await.map_err(|e| from_kube("list the pods of the data-managers", &e))?;
        let of_pods: BTreeSet<String> = pods.items.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
        let nodes = if of_pods.is_empty() {
            self.all::<Node>().await?.iter().map(ResourceExt::name_any).collect()
        } else {
            of_pods.into_iter().collect()
        };
        Ok((nodes, set.map_or(Brought::Unknown, |set| brought(&set))))
    }

    /// Each right of our accounts, asked for as the accounts.
    pub(super) async fn look_at_rights(&mut self, centers: &Vcenters) -> Result<(), Problem> {
        let settings = Settings::read(&self.client, &self.velero_namespace).await?;
        let flavor = centers.flavor().await?.flavor;
        let needed = rights::needed(&settings.vcenter_secrets(flavor));
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let ask = async |right: &Right| {
            let review = review(right, &self.velero_namespace);
            let answer = reviews.create(&PostParams::default(), &review).await;
            let answer = answer.map_err(|e| from_kube("ask what our accounts may do", &e))?;
            Ok::<_, Problem>(answer.status.is_some_and(|status| status.allowed))
        };
        let allowed: Vec<bool> = stream::iter(&needed).map(ask).buffered(AT_ONCE).try_collect().await?;
        self.findings.extend(rights::judge(&needed, &allowed, settings.decoupling_switched_off(flavor)));
        Ok(())
    }
}

/// A date as HTTP writes it.
fn http_date(text: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

fn review(right: &Right, velero_namespace: &str) -> SubjectAccessReview {
    let namespace = match &right.within {
        Within::All => None,
        Within::Velero => Some(velero_namespace.to_owned()),
        Within::Namespace(name) => Some(name.clone()),
    };
    let attributes = ResourceAttributes {
        namespace,
        verb: Some(right.verb.clone()),
        group: Some(right.group.clone()),
        resource: Some(right.resource.clone()),
        subresource: right.subresource.clone(),
        name: right.name.clone(),
        ..ResourceAttributes::default()
    };
    let everybody = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
    let of_namespace = format!("system:serviceaccounts:{velero_namespace}");
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{velero_namespace}:{}", right.account)),
        groups: Some(everybody.into_iter().chain([of_namespace]).collect()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

fn first_image(spec: Option<&PodSpec>) -> String {
    let first = spec.and_then(|spec| spec.containers.first());
    first.and_then(|container| container.image.clone()).unwrap_or_default()
}

fn of_deployment(of: &Deployment) -> State {
    let (spec, status) = (of.spec.as_ref(), of.status.as_ref());
    State {
        image: first_image(spec.and_then(|spec| spec.template.spec.as_ref())),
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or_default(),
        current: status.and_then(|status| status.updated_replicas).unwrap_or_default(),
    }
}

fn of_daemon_set(of: &DaemonSet) -> State {
    let (spec, status) = (of.spec.as_ref(), of.status.as_ref());
    State {
        image: first_image(spec.and_then(|spec| spec.template.spec.as_ref())),
        wanted: status.map(|status| status.desired_number_scheduled).unwrap_or_default(),
        ready: status.map(|status| status.number_ready).unwrap_or_default(),
        current: status.and_then(|status| status.updated_number_scheduled).unwrap_or_default(),
    }
}

/// The image of our plugin among what Velero's pod begins with.
fn plugin_image(velero: &Deployment) -> Option<String> {
    let begins = velero.spec.as_ref()?.template.spec.as_ref()?.init_containers.as_ref()?;
    begins.iter().filter_map(|container| container.image.clone()).find(|image| image.contains(PLUGIN_IMAGE))
}

fn brought(set: &DaemonSet) -> Brought {
    let Some(pod) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return Brought::Unknown };
    let by_image = pod.init_containers.iter().flatten().any(|container| container.name == VDDK);
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == VDDK);
    match volume {
        _ if by_image => Brought::By("an image"),
        Some(volume) if volume.host_path.is_some() => Brought::By("a folder of the node"),
        Some(volume) if volume.persistent_volume_claim.is_some() => Brought::By("a claim"),
        _ => Brought::ByNobody,
    }
}

fn leader(lease: &Lease) -> Leader {
    let spec = lease.spec.as_ref();
    let lasts = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    Leader {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        until: renewed.and_then(|time| time.checked_add(SignedDuration::from_secs(lasts.into())).ok()),
    }
}

/// Whether the API server says that it knows no such kind.
pub(super) fn knows_no_such_kind(problem: &kube::Error) -> bool {
    matches!(problem, kube::Error::Api(status) if status.code == 404)
}

/// As [`from_kube`], for what may not be installed.
pub(super) fn not_installed(act: &str) -> Problem {
    let cause = format!("{act}: the API server knows no such kind");
    Problem::lasting(Reason::StorageLocationMissing, cause).with_fix(Some("Install Velero.".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_read() {
        let read = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(read, "1994-11-06T08:49:37Z".parse().ok());
        assert_eq!(http_date("yesterday"), None);
    }
}
