//! One lab: what it has, and what can be done to its processes. `up.rs` has how it starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::control::{Control, Disk};
use crate::facts::Facts;
use crate::place::Place;
use crate::processes::{Processes, Record};

/// What a lab is to have.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it lies.
    pub place: Result<Place, String>,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Whether our own programs run in it.
    pub programs: Programs,
    /// Whether Velero and the scheduler run in it.
    pub velero: Velero,
    /// Whose S3 server it uses.
    pub s3: SharedS3,
    /// Who renews the programs' tokens.
    pub keeper: Keeper,
    /// Further variables for our programs, such as points where they are to die.
    pub env: BTreeMap<String, String>,
}

/// Whether the Deployment and the DaemonSet of the manifests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// They run as processes.
    Run,
    /// The objects are applied and nothing runs.
    Leave,
}

/// Whether Velero runs, with its plugins and two storage locations; the scheduler comes and goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Velero {
    /// It runs, and both its storage locations are available.
    Run,
    /// It is neither built nor started; one that runs is left alone.
    Leave,
}

/// Whose S3 server a lab uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedS3 {
    /// Its own.
    Own,
    /// That of the lab in this folder, which has to run.
    Of(PathBuf),
    /// That of the lab in this folder if it runs, else its own.
    OfIfRunning(PathBuf),
}

/// Who renews the programs' tokens, which live for an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// Nobody: the lab is gone within the hour.
    Nobody,
    /// A process of its own, `PROGRAM keeper`.
    Process(PathBuf),
}

impl Options {
    /// For a test: everything of its own in that folder, two nodes, without our programs and Velero.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            place: Place::in_folder(folder).map_err(|e| format!("{e:#}")),
            nodes: ["node-a", "node-b"].map(str::to_owned).to_vec(),
            programs: Programs::Leave,
            velero: Velero::Leave,
            s3: SharedS3::Own,
            keeper: Keeper::Nobody,
            env: BTreeMap::new(),
        }
    }

    /// For people and scripts: a lab of the checkout.
    pub fn at(place: Place) -> Self {
        Self { place: Ok(place), programs: Programs::Run, velero: Velero::Run, ..Self::in_folder(Path::new(".")) }
    }

    /// With Velero running.
    #[must_use]
    pub fn with_velero(mut self) -> Self {
        self.velero = Velero::Run;
        self
    }

    /// With our own programs running.
    #[must_use]
    pub fn with_programs(mut self) -> Self {
        self.programs = Programs::Run;
        self
    }
}

/// A running lab. One that was made by [`Lab::start`] ends when it is dropped; others live on.
#[derive(Debug)]
pub struct Lab {
    pub(crate) place: Place,
    pub(crate) facts: Facts,
    pub(crate) processes: Processes,
    pub(crate) client: KubeClient,
    pub(crate) ends_with_us: bool,
}

/// A client of the lab's API server, with every right.
#[derive(Clone)]
pub(crate) struct KubeClient(pub(crate) Client);

impl std::fmt::Debug for KubeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KubeClient")
    }
}

/// What others need, in the order in which they can be spared.
pub(crate) const SERVERS: &[&str] = &["vcenter", "s3", "kube-apiserver", "etcd"];

impl Lab {
    /// Starts a lab for a test; it ends when the value is dropped.
    ///
    /// # Errors
    /// When a peer cannot be built or a process does not become ready; nothing is left running then.
    pub async fn start(options: Options) -> Result<Self> {
        let place = options.place.clone().map_err(anyhow::Error::msg)?;
        let processes = Processes::new(&place.folder);
        match crate::up::up(options).await {
            Ok(mut lab) => {
                lab.ends_with_us = true;
                Ok(lab)
            }
            Err(error) => {
                processes.end_all(Duration::ZERO, SERVERS).await.context("end what was started")?;
                Err(error)
            }
        }
    }

    /// Starts what does not run, restarts what was built anew, and leaves everything running.
    ///
    /// # Errors
    /// When a peer cannot be built or a process does not become ready.
    pub async fn up(options: Options) -> Result<Self> {
        crate::up::up(options).await
    }

    /// The lab at that place, which was started before.
    ///
    /// # Errors
    /// When there was never one.
    pub async fn open(place: Place) -> Result<Self> {
        let facts = Facts::read(&place.folder)?;
        let facts =
            facts.with_context(|| format!("there is no lab in {}; start one: lab up", place.folder.display()))?;
        let processes = Processes::new(&place.folder);
        let client = KubeClient(connect(&place.folder.join("kubeconfig")).await?);
        Ok(Self { place, facts, processes, client, ends_with_us: false })
    }

    /// Ends a lab's processes and keeps its data.
    ///
    /// # Errors
    /// When a process survives.
    pub async fn down(place: &Place) -> Result<()> {
        Processes::new(&place.folder).end_all(Duration::from_secs(10), SERVERS).await
    }

    /// Ends a lab's processes and forgets its data.
    ///
    /// # Errors
    /// When a process survives, or a file cannot be removed.
    pub async fn clean(place: &Place) -> Result<()> {
        Processes::new(&place.folder).end_all(Duration::ZERO, SERVERS).await?;
        match fs::remove_dir_all(&place.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", place.folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// Ends this lab's processes and keeps its data.
    ///
    /// # Errors
    /// When a process survives.
    pub async fn stop(mut self) -> Result<()> {
        self.ends_with_us = false;
        self.processes.end_all(Duration::from_secs(10), SERVERS).await
    }

    /// Where the lab lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Addresses, accounts and keys.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The kubeconfig file of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.folder.join("kubeconfig")
    }

    /// A client of the API server with every right.
    pub fn client(&self) -> &Client {
        &self.client.0
    }

    /// `https://127.0.0.1:PORT` of the vCenter double.
    ///
    /// # Errors
    /// When it was never started.
    pub fn vcenter_url(&self) -> Result<String> {
        self.facts.vcenter_url()
    }

    /// The authority that signed the certificates of the lab's servers (a PEM file).
    pub fn authority(&self) -> PathBuf {
        self.place.folder.join("certificates/ca.pem")
    }

    /// The text of the vCenter Secret, as the CSI driver reads it.
    ///
    /// # Errors
    /// When the vCenter double was never started.
    pub fn csi_configuration(&self) -> Result<String> {
        crate::cluster::objects::csi_configuration(&self.place.folder, &self.facts)
    }

    /// The API server's audit log, one JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        crate::cluster::control_plane::audit_log(&self.place.folder)
    }

    /// The vCenter double's control address.
    ///
    /// # Errors
    /// When it was never started.
    pub fn control(&self) -> Result<Control> {
        Ok(Control::new(&self.facts.control_url()?))
    }

    /// The processes that were started, and whether they run.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn processes(&self) -> Result<Vec<Record>> {
        self.processes.all()
    }

    /// SIGKILL for one process.
    ///
    /// # Errors
    /// When there is none of that name that runs.
    pub async fn kill(&self, name: &str) -> Result<()> {
        self.processes.kill(name).await
    }

    /// What a process has printed so far, over all its lives.
    ///
    /// # Errors
    /// When there was never one of that name.
    pub fn logs(&self, name: &str) -> Result<String> {
        let file = self.processes.log_file(name);
        let bytes = fs::read(&file).with_context(|| format!("read the log of {name}, {}", file.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The disk behind a bound claim.
    ///
    /// # Errors
    /// When the claim is missing or not bound, or its volume is none of vCenter's.
    pub async fn disk_of(&self, namespace: &str, claim: &str) -> Result<Disk> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client().clone(), namespace);
        let found = claims.get_opt(claim).await.with_context(|| format!("read claim {namespace}/{claim}"))?;
        let Some(found) = found else { bail!("there is no claim {namespace}/{claim}") };
        let phase = found.status.and_then(|s| s.phase).unwrap_or_default();
        let Some(volume) = found.spec.and_then(|s| s.volume_name).filter(|_| phase == "Bound") else {
            bail!("claim {namespace}/{claim} is not bound: it is {phase}");
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client().clone());
        let volume = volumes.get(&volume).await.with_context(|| format!("read volume {volume}"))?;
        let csi = volume.spec.and_then(|s| s.csi).filter(|csi| csi.driver == "csi.vsphere.vmware.com");
        let csi =
            csi.with_context(|| format!("the volume of claim {namespace}/{claim} is none of the vSphere CSI driver"))?;
        let disk = self.control()?.disk(&csi.volume_handle).await?;
        disk.with_context(|| format!("vCenter has no disk {} (claim {namespace}/{claim})", csi.volume_handle))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.ends_with_us {
            return;
        }
        for record in self.processes.all().unwrap_or_default().iter().rev() {
            let _ = self.processes.end_at_once(record); // nobody is left to hear of it
        }
    }
}

/// A client with the rights of a kubeconfig.
pub(crate) async fn connect(kubeconfig: &Path) -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default(); // somebody may have installed one
    let config = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
