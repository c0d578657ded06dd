//! How Velero and the scheduler start. A server whose plugins were built anew is started again.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use kube::Client;

use super::{PATIENCE, Start};
use crate::cluster::{control_plane, velero};
use crate::readiness;

/// What a lab with Velero has besides others.
pub(super) const VELERO: &[&str] = &[velero::NAME, SCHEDULER];

const SCHEDULER: &str = "kube-scheduler";

impl Start {
    /// The scheduler, Velero's objects and its server; waits for neither process.
    pub(super) async fn velero(&mut self, client: &Client) -> Result<()> {
        self.scheduler().await?;
        let cli = self.builds.path(velero::NAME).await?;
        velero::apply(&cli, &self.folder(), &self.facts, client).await?;
        self.velero_server(client).await
    }

    /// Waits until the scheduler answers and both storage locations can be used.
    pub(super) async fn velero_ready(&self, client: &Client) -> Result<()> {
        self.scheduler_ready().await?;
        self.velero_server_ready(client).await
    }

    /// One of them, until it is ready.
    pub(super) async fn restart_of_velero(&mut self, name: &str, client: &Client) -> Result<()> {
        match name {
            SCHEDULER => {
                self.scheduler().await?;
                self.scheduler_ready().await
            }
            _ => {
                self.velero_server(client).await?;
                self.velero_server_ready(client).await
            }
        }
    }

    async fn scheduler(&mut self) -> Result<()> {
        let (program, lab) = (self.builds.path(SCHEDULER).await?, self.folder());
        self.ensure(SCHEDULER, &program, |facts| control_plane::scheduler(program.clone(), &lab, facts)).await
    }

    async fn scheduler_ready(&self) -> Result<()> {
        self.wait_http(SCHEDULER, &format!("https://127.0.0.1:{}/readyz", self.facts.port(SCHEDULER)?)).await
    }

    async fn velero_server(&mut self, client: &Client) -> Result<()> {
        let name = velero::NAME;
        let (server, lab) = (self.builds.path(name).await?, self.folder());
        let plugins = self.plugins().await?;
        if let Some(record) = self.processes.find(name)?
            && self.processes.runs(name)?
        {
            let has_all = plugins.iter().all(|plugin| record.made_from.contains_key(plugin));
            if record.program == server && has_all && !record.is_outdated() {
                return Ok(());
            }
            self.processes.end(name, PATIENCE).await?;
        }
        let mut launch = velero::prepare(server, &plugins, &lab, &mut self.facts, client).await?;
        launch.env.extend(self.options.env.clone());
        self.facts.write(&lab)?;
        self.processes.start(&launch).map(drop)
    }

    /// The plugin for S3, and ours; a lab lives without ours until it is built.
    async fn plugins(&self) -> Result<Vec<PathBuf>> {
        let [s3, ours] = velero::PLUGINS;
        let mut plugins = vec![self.builds.path(s3).await?];
        let program = self.programs.join(ours);
        if program.is_file() {
            plugins.push(program);
        } else {
            eprintln!("lab: {ours} is not built in {}: Velero runs without it", self.programs.display());
        }
        Ok(plugins)
    }

    async fn velero_server_ready(&self, client: &Client) -> Result<()> {
        let record = self.processes.find(velero::NAME)?.context("Velero was started")?;
        let started: Timestamp = record.started.parse().context("understand when Velero was started")?;
        let left = async || velero::locations_not_ready(client, started).await;
        let ready = readiness::wait(&self.processes, velero::NAME, async || left().await.is_ok_and(|l| l.is_empty()));
        match ready.await {
            Err(error) => bail!("{}\n{error:#}", left().await.unwrap_or_default().join("\n")),
            Ok(()) => Ok(()),
        }
    }
}
