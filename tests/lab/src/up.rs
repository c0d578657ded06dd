//! How a lab starts: each process as soon as what it needs is there. Running already is fine; what was built anew is
//! started again.

mod again;
mod velero;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::Value;

use crate::cluster::objects::{Applier, documents};
use crate::cluster::workloads::{self, Wanted};
use crate::cluster::{control_plane, pod::Probe};
use crate::facts::{Facts, VELERO_NAMESPACE};
use crate::kubeconfig::{self, Identity};
use crate::lab::{Keeper, KubeClient, Lab, Options, Programs, SERVERS, SharedS3, Velero, connect};
use crate::peer_process::VCENTER;
use crate::peers::{Builds, Part, Peer};
use crate::place::{FIRST, Place, programs};
use crate::processes::{Launch, Processes};
use crate::readiness::{self, answers};
use crate::{certificates, env_file, keeper, peer_process};

/// Time that a process of an earlier build gets to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What makes and binds volumes.
const VOLUMES: &[&str] = &["kube-controller-manager", "provisioner"];

/// A lab that is being started.
struct Start {
    place: Place,
    facts: Facts,
    processes: Processes,
    builds: Builds,
    programs: PathBuf,
    http: reqwest::Client,
    options: Options,
}

pub(crate) async fn up(options: Options) -> Result<Lab> {
    let place = options.place.clone().map_err(anyhow::Error::msg)?;
    let _only_one = lock(&place.folder)?;
    let mut start = Start::new(place, options)?;
    start.storage_and_cluster().await?;
    let client = start.cluster_objects().await?;
    start.volumes(&client).await?;
    let with_velero = start.options.velero == Velero::Run;
    if with_velero {
        start.velero(&client).await?;
    }
    if start.options.programs == Programs::Run {
        start.our_programs(&client).await?;
    }
    if with_velero {
        start.velero_ready(&client).await?;
    }
    start.keeper().await?;
    start.facts.write(&start.place.folder)?;
    start.env_file().await?;
    Ok(Lab {
        place: start.place,
        facts: start.facts,
        processes: start.processes,
        client: KubeClient(client),
        ends_with_us: false,
    })
}

/// Held while a lab starts: two callers at once would start everything twice.
fn lock(folder: &Path) -> Result<fs::File> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = fs::File::create(folder.join("up.lock"))?;
    file.lock().context("wait for another start of this lab")?;
    Ok(file)
}

impl Start {
    fn new(place: Place, options: Options) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default(); // somebody may have installed one
        let velero = options.velero;
        let builds = Builds::start(&place.root, move |peer| is_needed(peer, velero));
        let facts = match Facts::read(&place.folder)? {
            Some(facts) => renewed(facts, &place)?,
            None => Facts::new(&place.folder, &options.nodes, shared(&place, &options.s3)?.as_ref()),
        };
        let certificates = place.folder.join("certificates");
        certificates::make(&certificates).context("make the lab's certificates")?;
        let processes = Processes::new(&place.folder);
        let http = http_client(&certificates.join("ca.pem"))?;
        Ok(Self { place, facts, processes, builds, programs: programs()?, http, options })
    }

    fn folder(&self) -> PathBuf {
        self.place.folder.clone()
    }

    /// Starts a process unless it runs with the program it should. The ports that `describe` chose are written down first,
    /// so that a lab whose start breaks off can still be ended and looked at.
    async fn ensure(
        &mut self,
        name: &str,
        program: &Path,
        describe: impl FnOnce(&mut Facts) -> Result<Launch>,
    ) -> Result<()> {
        if let Some(record) = self.processes.find(name)?
            && self.processes.runs(name)?
        {
            if record.program == program && !record.is_outdated() {
                return Ok(());
            }
            self.processes.end(name, PATIENCE).await?;
        }
        let launch = describe(&mut self.facts).with_context(|| format!("describe {name}"))?;
        self.facts.write(&self.place.folder)?;
        self.processes.start(&launch).map(drop)
    }

    /// etcd, the API server, S3 and vCenter; waits for etcd only.
    async fn storage_and_cluster(&mut self) -> Result<()> {
        let lab = self.folder();
        let ports = self.facts.ports.clone();
        let etcd = self.builds.path("etcd").await?;
        self.ensure("etcd", &etcd, |facts| control_plane::etcd(etcd.clone(), &lab, facts)).await?;
        self.wait_http("etcd", &format!("http://127.0.0.1:{}/health", self.facts.port("etcd")?)).await?;
        let api = self.builds.path("kube-apiserver").await?;
        self.ensure("kube-apiserver", &api, |facts| control_plane::api_server(api.clone(), &lab, facts)).await?;
        let authority = lab.join("certificates/ca.pem");
        let admin = Identity::Token(&self.facts.admin_token);
        kubeconfig::write(&lab.join("kubeconfig"), &self.facts.api_url()?, &authority, "default", &admin)?;
        if self.owns_s3() {
            let s3 = self.builds.path("versitygw").await?;
            self.ensure("s3", &s3, |facts| peer_process::s3(s3.clone(), &lab, facts)).await?;
        }
        let vcenter = self.builds.path(VCENTER).await?;
        self.ensure(VCENTER, &vcenter, |facts| peer_process::vcenter(VCENTER, vcenter.clone(), &lab, facts)).await?;
        self.end_who_knows_old_ports(&ports).await
    }

    /// A stranger may have taken a port while the lab was down: who was told the old one is started again.
    async fn end_who_knows_old_ports(&self, before: &BTreeMap<String, u16>) -> Result<()> {
        let moved = before.iter().any(|(name, port)| self.facts.ports.get(name) != Some(port));
        if !moved {
            return Ok(());
        }
        for record in self.processes.all()?.iter().filter(|r| !SERVERS.contains(&r.name.as_str())) {
            self.processes.end(&record.name, PATIENCE).await?;
        }
        Ok(())
    }

    fn owns_s3(&self) -> bool {
        self.facts.s3.owner == self.place.folder
    }

    async fn wait_http(&self, name: &str, url: &str) -> Result<()> {
        readiness::wait(&self.processes, name, async || answers(&self.http, url).await).await
    }

    /// Waits for the API server and writes the objects that every lab has.
    async fn cluster_objects(&mut self) -> Result<Client> {
        let client = connect(&self.folder().join("kubeconfig")).await?;
        readiness::wait(&self.processes, "kube-apiserver", async || is_ready(&client).await).await?;
        let mut applier = Applier::new(client.clone());
        applier.crds(&documents(&self.place.root.join("deploy/crds"))?).await?;
        applier.basics(&self.place.folder, &self.facts).await?;
        for object in self.manifests()? {
            applier.apply(&object).await?;
        }
        Ok(client)
    }

    fn manifests(&self) -> Result<Vec<Value>> {
        documents(&self.place.root.join("deploy/manifests"))
    }

    /// What makes and binds volumes: controllers, provisioner, vCenter; and the buckets.
    async fn volumes(&mut self, client: &Client) -> Result<()> {
        let lab = self.folder();
        let program = self.builds.path("kube-controller-manager").await?;
        self.ensure("kube-controller-manager", &program, |_| Ok(control_plane::controllers(program.clone(), &lab)))
            .await?;
        self.wait_http("vcenter", &format!("{}/healthz", self.facts.control_url()?)).await?;
        let program = self.builds.path("provisioner").await?;
        self.ensure("provisioner", &program, |facts| peer_process::provisioner(program.clone(), &lab, facts)).await?;
        if self.owns_s3() {
            self.wait_http("s3", &format!("{}/health", self.facts.s3.endpoint)).await?;
            let versitygw = self.builds.path("versitygw").await?;
            peer_process::make_buckets(&versitygw, &lab, &self.facts).await?;
        }
        // the controllers work once they have given a namespace its account
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), VELERO_NAMESPACE);
        let given = async || accounts.get_opt("default").await.is_ok_and(|account| account.is_some());
        readiness::wait(&self.processes, "kube-controller-manager", given).await
    }

    /// Our programs, all at once.
    async fn our_programs(&mut self, client: &Client) -> Result<()> {
        let mut probes = Vec::new();
        for wanted in workloads::wanted(&self.manifests()?, &self.facts.nodes)? {
            probes.push((wanted.name.clone(), self.our_program(&wanted, client).await?));
        }
        for (name, probe) in probes {
            self.wait_probe(&name, probe).await?;
        }
        Ok(())
    }

    /// The keeper of the tokens, if somebody has one.
    async fn keeper(&mut self) -> Result<()> {
        if self.options.programs == Programs::Leave && self.options.velero == Velero::Leave {
            return Ok(());
        }
        let Keeper::Process(program) = self.options.keeper.clone() else { return Ok(()) };
        let (place, env) = (self.place.clone(), keeper_env(&self.place));
        self.ensure(keeper::NAME, &program, |_| {
            let mut launch = peer_process::launch(keeper::NAME, program.clone(), &place.folder, ["keeper".to_owned()]);
            launch.env.extend(env);
            Ok(launch)
        })
        .await
    }

    async fn our_program(&mut self, wanted: &Wanted, client: &Client) -> Result<Option<Probe>> {
        let name = &wanted.name;
        if let Some(record) = self.processes.find(name)?
            && self.processes.runs(name)?
        {
            if !record.is_outdated() {
                return Ok(None); // it was ready before
            }
            self.processes.end(name, PATIENCE).await?;
        }
        let (programs, lab) = (self.programs.clone(), self.folder());
        let (mut launch, pod) = workloads::prepare(wanted, &programs, &lab, &mut self.facts, client).await?;
        launch.env.extend(self.options.env.clone());
        self.facts.write(&lab)?;
        self.processes.start(&launch)?;
        Ok(pod.ready)
    }

    async fn wait_probe(&self, name: &str, probe: Option<Probe>) -> Result<()> {
        let Some(probe) = probe else { return Ok(()) };
        self.wait_http(name, &format!("http://127.0.0.1:{}{}", probe.port, probe.path)).await
    }

    /// The folder with our command line under the name by which kubectl finds it.
    fn kubectl_plugin(&self) -> Result<PathBuf> {
        let folder = self.place.folder.join("bin");
        let link = folder.join("kubectl-vsphere_backup");
        std::fs::create_dir_all(&folder).with_context(|| format!("make folder {}", folder.display()))?;
        match std::fs::remove_file(&link) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("replace {}", link.display()));
            }
            _ => {}
        }
        std::os::unix::fs::symlink(self.programs.join("vsphere-backup"), &link)
            .with_context(|| format!("link {}", link.display()))?;
        Ok(folder)
    }

    async fn env_file(&self) -> Result<()> {
        let mut folders = vec![self.programs.clone(), self.kubectl_plugin()?];
        for peer in crate::PEERS.iter() {
            let needed = is_needed(peer, self.options.velero);
            let path = if needed { self.builds.path(peer.name).await? } else { peer.path(&self.place.root)? };
            folders.extend(path.parent().filter(|_| path.is_file()).map(Path::to_owned));
        }
        env_file::write(&self.place, &self.facts, &folders)
    }
}

/// Whether a lab with or without Velero needs that peer.
fn is_needed(peer: &Peer, velero: Velero) -> bool {
    match peer.part {
        Part::Lab => true,
        Part::Velero => velero == Velero::Run,
        Part::Checks => false,
    }
}

/// A client that trusts the lab's authority.
fn http_client(authority: &Path) -> Result<reqwest::Client> {
    let pem = fs::read(authority).with_context(|| format!("read {}", authority.display()))?;
    let authority = reqwest::Certificate::from_pem(&pem).context("understand the lab's authority")?;
    reqwest::Client::builder().add_root_certificate(authority).build().context("make an HTTP client")
}

/// Facts of an earlier start; the address of a shared S3 server may have changed since.
fn renewed(mut facts: Facts, place: &Place) -> Result<Facts> {
    if facts.s3.owner != place.folder {
        facts.s3 = running_s3(&facts.s3.owner)?
            .with_context(|| {
                format!("this lab uses the S3 server of the lab in {}, which does not run", facts.s3.owner.display())
            })?
            .s3;
    }
    Ok(facts)
}

fn shared(place: &Place, wanted: &SharedS3) -> Result<Option<Facts>> {
    match wanted {
        SharedS3::Own => Ok(None),
        SharedS3::Of(folder) | SharedS3::OfIfRunning(folder) if *folder == place.folder => Ok(None),
        SharedS3::OfIfRunning(folder) => running_s3(folder),
        SharedS3::Of(folder) => {
            let found = running_s3(folder)?;
            found.map(Some).with_context(|| format!("the S3 server of the lab in {} does not run", folder.display()))
        }
    }
}

/// The facts of a lab whose own S3 server runs.
fn running_s3(folder: &Path) -> Result<Option<Facts>> {
    let Some(facts) = Facts::read(folder)? else { return Ok(None) };
    Ok((facts.s3.owner == folder && Processes::new(folder).runs("s3")?).then_some(facts))
}

fn keeper_env(place: &Place) -> BTreeMap<String, String> {
    let name = if place.name == FIRST { String::new() } else { place.name.clone() };
    [("LAB".to_owned(), name), ("LAB_ROOT".to_owned(), place.root.display().to_string())].into()
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http_get("/readyz") else { return false };
    let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
    matches!(answer, Ok(Ok(text)) if text.trim() == "ok")
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
