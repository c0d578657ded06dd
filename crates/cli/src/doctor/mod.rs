//! `doctor`: looks for everything that keeps backups and restores from working. `lifecycle::doctor` judges; here it is asked, and told.
//!
//! A look that fails is a finding and ends no other one. Nothing is changed, but for what `--probe-store` puts and deletes again.

mod center;
mod cluster;
mod leftovers;
mod shown;
mod stores;

use std::time::Duration;

use anyhow::Result;
use api::{Timestamp, names};
use connections::leftovers::Silent;
use connections::{Repositories, Settings, Vcenters, from_kube};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::doctor::clocks::{self, Clock};
use lifecycle::doctor::{Finding, Matter, definitions, flavor, library, settings, storage};
use lifecycle::orphans::Kind;

use crate::args::{DoctorArguments, Output};
use crate::cluster::lacks_namespace;
use shown::Report;

/// Questions at once, to the API server or to stores.
const AT_ONCE: usize = 8;
/// A look at the cluster may take so long.
const A_LOOK: Duration = Duration::from_secs(120);
/// A look at every disk, or at every bucket. One that does not answer is found out long before; this is for thousands of them.
const A_LONG_LOOK: Duration = Duration::from_secs(30 * 60);

/// What is asked, and what was found so far.
struct Doctor {
    client: Client,
    velero_namespace: String,
    probe_store: bool,
    settings: Settings,
    findings: Vec<Finding>,
    clocks: Vec<Clock>,
    /// Why vCenter cannot be used: a password that was refused is not tried a second time.
    vcenter_trouble: Option<Problem>,
    /// Stores that did not answer: nobody waits for one a second time.
    silent: Silent,
    /// Kinds of leftovers that could not be looked for everywhere.
    unlooked: Vec<Kind>,
}

pub(crate) async fn run(arguments: &DoctorArguments, output: Output) -> Result<()> {
    let namespace = &arguments.cluster.velero_namespace;
    let findings = match operator::client::connect(arguments.cluster.kubeconfig.as_deref()).await {
        Ok(client) => examine(client, namespace, arguments.probe_store).await,
        Err(error) => {
            let cause = Problem::chain(&error);
            let why = "Without the cluster nothing can be looked at.";
            let fix = match error {
                operator::Error::Client(_) => {
                    "Log in to the cluster as kubectl does, or mend what is named in the kubeconfig, then run doctor again."
                }
                _ => "Name a kubeconfig with --kubeconfig or KUBECONFIG.",
            };
            vec![Finding::problem(Matter::Cluster, cause, why, fix)]
        }
    };
    Report::new(findings).print(output)
}

async fn examine(client: Client, velero_namespace: &str, probe_store: bool) -> Vec<Finding> {
    let mut doctor = Doctor {
        client,
        velero_namespace: velero_namespace.to_owned(),
        probe_store,
        settings: Settings::default(),
        findings: Vec::new(),
        clocks: Vec::new(),
        vcenter_trouble: None,
        silent: Silent::default(),
        unlooked: Vec::new(),
    };
    if doctor.in_time(Matter::Cluster, async |doctor| doctor.look_at_the_cluster().await).await
        && doctor.finds_the_namespace().await
    {
        doctor.look_everywhere().await;
    }
    doctor.findings
}

impl Doctor {
    async fn look_everywhere(&mut self) {
        self.in_time(Matter::Definitions, async |doctor| doctor.look_at_definitions().await).await;
        let centers = Vcenters::new(self.client.clone(), &self.velero_namespace);
        self.in_time(Matter::Programs, async |doctor| doctor.look_at_programs(&centers).await).await;
        self.in_time(Matter::Rights, async |doctor| doctor.look_at_rights(&centers).await).await;
        self.in_time(Matter::Settings, async |doctor| doctor.look_at_settings(&centers).await).await;
        let look = async |doctor: &mut Self| {
            let looked = doctor.look_at_vcenter(&centers).await;
            doctor.vcenter_trouble = looked.clone().err();
            looked
        };
        self.in_time(Matter::VCenter, look).await;
        self.in_time(Matter::Library, async |doctor| doctor.look_at_the_library(&centers).await).await;
        let repositories = Repositories::new(self.client.clone(), &self.velero_namespace);
        self.in_time(Matter::Key, async |doctor| doctor.look_at_the_key(&repositories).await).await;
        // its waits are bounded one by one: a probe that was cut off would leave its objects
        let looked = self.look_at_stores(&repositories).await;
        self.conclude(Matter::Storage, looked);
        self.in_time(Matter::Storage, async |doctor| doctor.look_at_descriptions().await).await;
        self.in_time(Matter::Leftovers, async |doctor| doctor.look_for_leftovers(&centers, &repositories).await).await;
        centers.close().await;
        self.findings.push(clocks::judge(&self.clocks));
    }

    /// Looks, and says why where it failed or took too long. Whether it ended well.
    async fn in_time(&mut self, matter: Matter, look: impl AsyncFnOnce(&mut Self) -> Result<(), Problem>) -> bool {
        let within = match matter {
            Matter::VCenter | Matter::Leftovers => A_LONG_LOOK,
            _ => A_LOOK,
        };
        if let Ok(looked) = tokio::time::timeout(within, look(self)).await {
            return self.conclude(matter, looked);
        }
        let seen = format!("the look at {} did not end within {} s", matter.as_str(), within.as_secs());
        let why = "What does not answer doctor answers no backup either.";
        self.find(Finding::problem(matter, seen, why, "See its own log."));
        false
    }

    /// Says why a look failed. Whether it ended well.
    fn conclude(&mut self, matter: Matter, looked: Result<(), Problem>) -> bool {
        if let Err(problem) = &looked {
            self.find(match matter {
                // who is refused even there sees nothing at all, and no finding is told as good news
                Matter::Cluster => Finding::of(matter, problem),
                _ => Finding::of_look(matter, problem),
            });
        }
        looked.is_ok()
    }

    fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes a clock. `asked` and `answered` are this machine's: it showed `time` some time in between.
    fn note_clock(&mut self, whose: &str, time: Timestamp, asked: Timestamp, answered: Timestamp) {
        let half = answered.duration_since(asked) / 2;
        let ahead = time.duration_since(asked) - half;
        let ahead = i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX);
        self.clocks.push(Clock { whose: whose.to_owned(), ahead });
    }

    /// The time by the API server's clock.
    fn cluster_time(&self) -> Timestamp {
        let ahead = self.clocks.first().map_or(0, |clock| clock.ahead);
        let ahead = k8s_openapi::jiff::SignedDuration::from_millis(ahead);
        Timestamp::now().checked_add(ahead).unwrap_or_else(|_| Timestamp::now())
    }

    async fn cluster_id(&self) -> Result<String, Problem> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let system = namespaces.get("kube-system").await.map_err(|e| from_kube("read namespace kube-system", &e))?;
        Ok(system.uid().unwrap_or_default())
    }

    /// Whether Velero's namespace is there, as far as our account may ask; says so where it is not.
    async fn finds_the_namespace(&mut self) -> bool {
        let namespace = &self.velero_namespace;
        if !tokio::time::timeout(A_LOOK, lacks_namespace(&self.client, namespace)).await.unwrap_or_default() {
            return true;
        }
        let seen = format!("there is no namespace {namespace}");
        let why = "Velero and our programs live in it: without it nothing else can be looked at.";
        let fix = "Name Velero's namespace with --velero-namespace or VELERO_NAMESPACE, or install Velero.";
        self.find(Finding::problem(Matter::Cluster, seen, why, fix));
        false
    }

    async fn look_at_definitions(&mut self) -> Result<(), Problem> {
        use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
        let all: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for ours in api::crd::all() {
            let name = ours.name_any();
            let found = all.get_opt(&name).await.map_err(|e| from_kube(&format!("read definition {name}"), &e))?;
            self.find(definitions::judge(&ours, found.as_ref()));
        }
        Ok(())
    }

    async fn look_at_settings(&mut self, centers: &Vcenters) -> Result<(), Problem> {
        self.settings = Settings::read(&self.client, &self.velero_namespace).await?;
        let found = centers.flavor().await?;
        self.find(flavor::judge(&found, self.settings.cluster_flavor()));
        self.findings.extend(self.settings.judged());
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let blocked = maps.get_opt(names::BLOCKED_RESOURCES).await;
        let blocked = blocked.map_err(|e| from_kube(&format!("read ConfigMap {}", names::BLOCKED_RESOURCES), &e))?;
        let blocked = blocked.map(|map| map.data.unwrap_or_default());
        self.findings.extend(settings::judge_blocked(blocked.as_ref()));
        let labeled = maps.list_metadata(&ListParams::default().labels(settings::LIBRARY_LABEL)).await;
        let labeled =
            labeled.map_err(|e| from_kube(&format!("list ConfigMaps with {}", settings::LIBRARY_LABEL), &e))?;
        let labeled: Vec<String> = labeled.iter().map(|map| map.name_any()).collect();
        self.findings.extend(settings::judge_library_maps(&labeled));
        Ok(())
    }

    async fn look_at_the_library(&mut self, centers: &Vcenters) -> Result<(), Problem> {
        let (uploads, downloads) = (self.all().await?, self.all().await?);
        let words = library::words(&uploads, &downloads);
        let (mut nodes, brought) = self.data_managers(centers).await?;
        if nodes.is_empty() {
            nodes = words.keys().cloned().collect(); // those that their transfers tell of
        }
        self.findings.extend(library::judge(&nodes, &words, brought));
        Ok(())
    }

    async fn look_at_the_key(&mut self, repositories: &Repositories) -> Result<(), Problem> {
        let key = repositories.key().await?;
        self.find(storage::judge_key(&key.secret, key.well_known));
        Ok(())
    }

    /// Every object of a kind.
    async fn all<K>(&self) -> Result<Vec<K>, Problem>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let listed = Api::<K>::all(self.client.clone()).list(&ListParams::default()).await;
        Ok(listed.map_err(|e| from_kube(&format!("list {}", K::plural(&())), &e))?.items)
    }
}
