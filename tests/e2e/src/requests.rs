//! How often our programs ask the API server: counted from its audit log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::World;

/// A program of ours as the API server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// The plugin, which speaks as Velero's account.
    Plugin,
    /// The driver.
    Driver,
    /// All data-managers together.
    DataManagers,
}

/// One request that was answered.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asked.
    pub program: Program,
    /// `get`, `list`, `watch`, `create`, `patch`, …
    pub verb: String,
    /// API group of the kind; empty is the core's.
    pub group: String,
    /// Plural of the kind; with the subresource behind a slash, if there is one.
    pub resource: String,
    /// Namespace it was asked for in; empty for the whole cluster.
    pub namespace: String,
    /// Name of the object; empty for lists, unless they select one name.
    pub name: String,
    /// The answer's code.
    pub code: u64,
}

/// A place in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);

impl World {
    fn audit_log(&self) -> PathBuf {
        self.folder().join("logs/audit.log")
    }

    /// The end of the audit log as it is now.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(usize::try_from(std::fs::metadata(self.audit_log()).context("find the audit log")?.len())?))
    }

    /// The requests of our programs since then.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn requests_since(&self, mark: Mark) -> Result<Vec<Request>> {
        let log = std::fs::read(self.audit_log()).context("read the audit log")?;
        let text = String::from_utf8_lossy(log.get(mark.0..).context("the audit log was cut meanwhile")?);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()); // the last one may be half
        Ok(lines.filter_map(|event| self.request(&event)).collect())
    }

    fn request(&self, event: &Value) -> Option<Request> {
        let account = event["user"]["username"].as_str()?.strip_prefix("system:serviceaccount:")?;
        let account = account.strip_prefix(self.velero())?.strip_prefix(':')?;
        let program = match account {
            "velero" if !event["userAgent"].as_str().unwrap_or_default().starts_with("velero") => Program::Plugin,
            api::names::DRIVER => Program::Driver,
            api::names::DATA_MANAGER => Program::DataManagers,
            _ => return None,
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(part) => format!("{}/{part}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        let [verb, group, namespace, name] =
            [&event["verb"], &object["apiGroup"], &object["namespace"], &object["name"]].map(text);
        Some(Request { program, verb, group, resource, namespace, name, code })
    }
}

/// Requests by who asked for what, most first.
pub fn tally<'r>(requests: impl IntoIterator<Item = &'r Request>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        *counts.entry(format!("{:?} {} {}", request.program, request.verb, request.resource)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}
