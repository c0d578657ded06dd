//! How one process of a lab is started again after it was killed, and waited for until it is ready.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::velero::VELERO;
use super::{Start, VOLUMES, is_ready, lock};
use crate::cluster::{control_plane, workloads};
use crate::lab::{Lab, Options, SERVERS, Velero, connect};
use crate::peer_process::{self, SECOND_VCENTER, VCENTER};
use crate::readiness;

impl Lab {
    /// Starts a process that was killed, with variables added to its environment, and waits until it is ready. `second-vcenter`,
    /// which no lab has of itself, is started so too.
    ///
    /// # Errors
    /// When the lab has no process of that name, or it does not become ready.
    pub async fn start_process(&mut self, name: &str, env: &BTreeMap<String, String>) -> Result<()> {
        let _only_one = lock(&self.place.folder)?;
        let mut options = Options::at(self.place.clone());
        options.env = env.clone();
        if !VELERO.contains(&name) {
            options.velero = Velero::Leave;
        }
        let mut start = Start::new(self.place.clone(), options)?;
        if SERVERS.contains(&name) || name == SECOND_VCENTER {
            start.server(name).await?;
        } else if VOLUMES.contains(&name) {
            start.volumes(self.client()).await?;
        } else if VELERO.contains(&name) {
            start.restart_of_velero(name, self.client()).await?;
        } else {
            let wanted = workloads::wanted(&start.manifests()?, &start.facts.nodes)?;
            let Some(wanted) = wanted.iter().find(|w| w.name == name) else {
                let ours: Vec<_> = wanted.iter().map(|w| w.name.as_str()).collect();
                bail!(
                    "this lab has no process {name:?}; it has {}",
                    [SERVERS, VOLUMES, VELERO, &ours].concat().join(", ")
                );
            };
            let probe = start.our_program(wanted, self.client()).await?;
            start.wait_probe(name, probe).await?;
        }
        self.facts = start.facts.clone();
        Ok(())
    }
}

impl Start {
    /// One of the servers that the others talk to, until it answers.
    async fn server(&mut self, name: &str) -> Result<()> {
        let lab = self.folder();
        let peer = match name {
            "s3" => "versitygw",
            SECOND_VCENTER => VCENTER,
            name => name,
        };
        let program = self.builds.path(peer).await?;
        let path = program.clone();
        match name {
            "etcd" => {
                self.ensure(name, &path, |facts| control_plane::etcd(program, &lab, facts)).await?;
                self.wait_http(name, &format!("http://127.0.0.1:{}/health", self.facts.port("etcd")?)).await
            }
            "kube-apiserver" => {
                self.ensure(name, &path, |facts| control_plane::api_server(program, &lab, facts)).await?;
                let client = connect(&lab.join("kubeconfig")).await?;
                readiness::wait(&self.processes, name, async || is_ready(&client).await).await
            }
            "s3" if !self.owns_s3() => bail!("the S3 server is that of the lab in {}", self.facts.s3.owner.display()),
            "s3" => {
                self.ensure(name, &path, |facts| peer_process::s3(program, &lab, facts)).await?;
                self.wait_http(name, &format!("{}/health", self.facts.s3.endpoint)).await
            }
            _ => {
                self.ensure(name, &path, |facts| peer_process::vcenter(name, program, &lab, facts)).await?;
                let control = self.facts.port(&format!("{name}-control"))?;
                self.wait_http(name, &format!("http://127.0.0.1:{control}/healthz")).await
            }
        }
    }
}
