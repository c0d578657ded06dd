//! The control address of the vCenter double: what exists, and which faults to play.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// How long the double may take to answer: a scenario may have stopped it.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(60);

/// A client of the control address.
#[derive(Clone)]
pub struct Control {
    url: String,
    http: reqwest::Client,
}

/// Which disks a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disks {
    /// The one with that id.
    Id(String),
    /// Any of that many MiB: a fault that waits for a disk that is not there yet. A scenario has its size for itself.
    OfMib(u64),
}

impl Disks {
    fn field(&self) -> (&'static str, Value) {
        match self {
            Self::Id(id) => ("disk", id.as_str().into()),
            Self::OfMib(mib) => ("diskMib", (*mib).into()),
        }
    }
}

impl From<&str> for Disks {
    fn from(id: &str) -> Self {
        Self::Id(id.to_owned())
    }
}

/// A rule for the stand-in disk library.
#[derive(Debug, Clone)]
pub struct DiskFault {
    /// The disks it is for.
    pub disks: Disks,
    /// `Open`, `Read`, `Write`, `Flush`, …
    pub function: &'static str,
    /// `fail`, `hang`, `abort` or `slow`.
    pub action: &'static str,
    /// VixError code of a failure.
    pub code: u64,
    /// Milliseconds of slowness.
    pub delay_ms: u64,
    /// Only requests that cover this byte of the disk.
    pub at_offset: Option<u64>,
    /// How often it strikes; 0 is always.
    pub count: u32,
}

impl DiskFault {
    /// A rule that always strikes with that action.
    pub fn new(disks: impl Into<Disks>, function: &'static str, action: &'static str) -> Self {
        Self { disks: disks.into(), function, action, code: 1, delay_ms: 0, at_offset: None, count: 0 }
    }

    fn rule(&self) -> Value {
        let mut rule = json!({"function": self.function, "action": self.action});
        let (field, value) = self.disks.field();
        rule[field] = value;
        if self.action == "fail" {
            rule["code"] = self.code.into();
        }
        if self.delay_ms > 0 {
            rule["delayMs"] = self.delay_ms.into();
        }
        if let Some(offset) = self.at_offset {
            rule["atOffset"] = offset.into();
        }
        if self.count > 0 {
            rule["count"] = self.count.into();
        }
        rule
    }
}

/// Rules of several scenarios stand in one list: one change at a time.
static RULES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Control {
    pub(crate) fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().timeout(ANSWER).build().expect("a client without TLS settings");
        Self { url: url.trim_end_matches('/').to_owned(), http }
    }

    /// Facts about a disk: path, snapshots, whether it is attached.
    ///
    /// # Errors
    /// When there is no such disk.
    pub async fn disk(&self, disk: &str) -> Result<Value> {
        self.get(&format!("/disks/{disk}")).await
    }

    /// Waits until a disk is gone. What deleted objects have left is swept every minute.
    ///
    /// # Errors
    /// When it is still there after three minutes.
    pub async fn disk_goes(&self, disk: &str) -> Result<()> {
        let due = tokio::time::Instant::now() + crate::DEADLINE;
        while self.disk(disk).await.is_ok() {
            if tokio::time::Instant::now() > due {
                bail!("disk {disk} stays in vCenter");
            }
            tokio::time::sleep(crate::world::LOOK).await;
        }
        Ok(())
    }

    /// All disks.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn disks(&self) -> Result<Value> {
        self.get("/disks").await
    }

    /// The virtual machines: what they are called, what they are known by, and where they run.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn machines(&self) -> Result<Value> {
        self.get("/machines").await
    }

    /// Removes a disk behind everyone's back.
    ///
    /// # Errors
    /// When there is no such disk.
    pub async fn remove_disk(&self, disk: &str) -> Result<()> {
        self.send(self.http.delete(format!("{}/disks/{disk}", self.url))).await.map(drop)
    }

    /// Removes a disk snapshot behind everyone's back.
    ///
    /// # Errors
    /// When there is no such snapshot.
    pub async fn remove_snapshot(&self, disk: &str, snapshot: &str) -> Result<()> {
        self.send(self.http.delete(format!("{}/disks/{disk}/snapshots/{snapshot}", self.url))).await.map(drop)
    }

    /// A fault of the vCenter API; the double's README lists the fields.
    ///
    /// # Errors
    /// When the double refuses the rule.
    pub async fn fault(&self, rule: &Value) -> Result<Value> {
        self.send(self.http.post(format!("{}/faults", self.url)).json(rule)).await
    }

    /// Takes a fault of the vCenter API back, by what [`Control::fault`] answered.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn fault_is_over(&self, rule: &Value) -> Result<()> {
        let id = rule["id"].as_str().context("a rule has an id")?;
        self.send(self.http.delete(format!("{}/faults/{id}", self.url))).await.map(drop)
    }

    /// Anything else that the double's README lists, such as `/tracking` and `/relocate`.
    ///
    /// # Errors
    /// When the double refuses it.
    pub async fn tell(&self, path: &str, what: &Value) -> Result<()> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(what)).await.map(drop)
    }

    /// Ends all vCenter sessions.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn expire_sessions(&self) -> Result<()> {
        self.send(self.http.post(format!("{}/sessions/expire", self.url))).await.map(drop)
    }

    /// Logins that were accepted and refused so far.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn logins(&self) -> Result<Value> {
        self.get("/logins").await
    }

    /// How often a method was called about a disk since the double started.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn calls(&self, disk: &str, method: &str) -> Result<u64> {
        Ok(self.get(&format!("/calls?disk={disk}")).await?[method].as_u64().unwrap_or_default())
    }

    /// How many calls the double has answered since it started, property reads and waits for tasks included.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn all_calls(&self) -> Result<u64> {
        let calls = self.get("/calls").await?;
        let calls = calls.as_object().context("the double counts its calls")?;
        Ok(calls.values().filter_map(Value::as_u64).sum())
    }

    /// Adds a rule for the stand-in disk library.
    ///
    /// # Errors
    /// When the double refuses it.
    pub async fn disk_fault(&self, fault: &DiskFault) -> Result<()> {
        self.change_rules(|rules| rules.push(fault.rule())).await
    }

    /// Removes the rules for these disks.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn heal(&self, disks: impl Into<Disks>) -> Result<()> {
        let (field, value) = disks.into().field();
        self.change_rules(|rules| rules.retain(|rule| rule[field] != value)).await
    }

    async fn change_rules(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let _one_at_a_time = RULES.lock().await;
        let script = self.get("/vddk").await?;
        let mut rules = script["rules"].as_array().cloned().unwrap_or_default();
        change(&mut rules);
        self.send(self.http.put(format!("{}/vddk", self.url)).json(&json!({"rules": rules}))).await.map(drop)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let reply = request.send().await.context("ask the vCenter double's control address")?;
        let status = reply.status();
        let text = reply.text().await?;
        if !status.is_success() {
            bail!("the vCenter double's control address said {status}: {text}");
        }
        Ok(if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        })
    }
}
