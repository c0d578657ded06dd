//! Client of the vCenter double's control address; `tests/lab/vcenter/README.md` describes the requests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Tells the vCenter double what to do, and asks what exists.
#[derive(Debug, Clone)]
pub struct Control {
    url: String,
    http: reqwest::Client,
}

/// A first-class disk of the double.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Its id.
    pub id: String,
    /// The raw file with its content.
    pub path: PathBuf,
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// The virtual machine it is attached to.
    #[serde(default)]
    pub attached: Option<String>,
    /// Its snapshots, oldest first.
    #[serde(default)]
    pub snapshots: Vec<DiskSnapshot>,
}

/// A snapshot of a disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskSnapshot {
    /// Its id.
    pub id: String,
    /// The raw file with its content.
    pub path: PathBuf,
    /// What its maker has written about it.
    #[serde(default)]
    pub description: String,
}

const DEADLINE: Duration = Duration::from_secs(10);

impl Control {
    /// A client of the control address at that URL.
    pub fn new(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default(); // somebody may have installed one
        Self { url: url.trim_end_matches('/').to_owned(), http: reqwest::Client::new() }
    }

    /// One disk; nothing when there is none with that id.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn disk(&self, id: &str) -> Result<Option<Disk>> {
        let reply = self.http.get(format!("{}/disks/{id}", self.url)).timeout(DEADLINE).send().await;
        let reply = reply.context("ask the vCenter double for a disk")?;
        if reply.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(reply.error_for_status()?.json().await.context("understand the vCenter double")?))
    }

    /// All disks.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn disks(&self) -> Result<Vec<Disk>> {
        self.typed(self.http.get(self.at("disks"))).await
    }

    /// Plays a fault in the vCenter API; returns the rule's id.
    ///
    /// # Errors
    /// When the double refuses the rule.
    pub async fn add_fault(&self, rule: &Value) -> Result<String> {
        let made: Value = self.typed(self.http.post(self.at("faults")).json(rule)).await?;
        Ok(made["id"].as_str().context("a rule has an id")?.to_owned())
    }

    /// Ends all faults of the vCenter API.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn clear_faults(&self) -> Result<()> {
        self.send(self.http.delete(self.at("faults"))).await.map(drop)
    }

    /// Ends all sessions.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn expire_sessions(&self) -> Result<()> {
        self.send(self.http.post(self.at("sessions/expire"))).await.map(drop)
    }

    /// How often each method was called, for one disk or for all.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn calls(&self, disk: Option<&str>) -> Result<Value> {
        let query = disk.map_or_else(String::new, |disk| format!("?disk={disk}"));
        self.typed(self.http.get(self.at(&format!("calls{query}")))).await
    }

    /// Replaces what the stand-in for the disk library does wrong; an empty list heals it.
    ///
    /// # Errors
    /// When the double refuses a rule.
    pub async fn script_disk_library(&self, rules: &[Value]) -> Result<()> {
        self.send(self.http.put(self.at("vddk")).json(&json!({"rules": rules}))).await.map(drop)
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    async fn typed<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let text = self.send(request).await?;
        serde_json::from_str(&text).with_context(|| format!("understand the vCenter double: {text}"))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<String> {
        let reply = request.timeout(DEADLINE).send().await.context("ask the vCenter double")?;
        let status = reply.status();
        let text = reply.text().await.context("read the vCenter double's answer")?;
        if !status.is_success() {
            bail!("the vCenter double said {status}: {text}");
        }
        Ok(text)
    }
}
