//! From a pod template to a process: the same program, arguments and environment that a kubelet would give the container,
//! with the container's folders moved below the lab. Pure; touches no file and no cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The variable whose value is the address that a program serves its metrics and probes on.
const METRICS: &str = "METRICS_ADDRESS";

/// A container that is to run as a process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    /// Name of the process in the lab.
    pub(crate) name: String,
    /// Its node.
    pub(crate) node: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// The account it speaks as.
    pub(crate) account: String,
    /// Base name of the program.
    pub(crate) program: String,
    /// Arguments, with paths below mounts moved.
    pub(crate) args: Vec<String>,
    /// Environment, with paths below mounts moved.
    pub(crate) env: BTreeMap<String, String>,
    /// The folders that stand for its mounts.
    pub(crate) mounts: Vec<Mount>,
    /// What its readiness probe asks for, on `127.0.0.1:port`.
    pub(crate) ready: Option<Probe>,
}

/// A mounted volume and the folder that stands for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mount {
    /// Path in the container.
    pub(crate) path: String,
    /// Folder in the lab.
    pub(crate) folder: PathBuf,
    /// The Secret that it shows, and whether it may be missing.
    pub(crate) secret: Option<(String, bool)>,
}

/// A GET that a ready program answers with 2xx.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probe {
    /// Path of the request.
    pub(crate) path: String,
    /// Port it is served on.
    pub(crate) port: u16,
}

/// Where and as what a pod is to run.
pub(crate) struct Placement<'a> {
    /// Name of the process in the lab.
    pub(crate) name: &'a str,
    /// Its node.
    pub(crate) node: &'a str,
    /// Its namespace.
    pub(crate) namespace: &'a str,
    /// The folder that stands for the container's file system.
    pub(crate) folder: &'a Path,
    /// The port it may serve metrics on.
    pub(crate) metrics_port: u16,
}

/// Translates a pod template with one container.
///
/// # Errors
/// When the template asks for something that the lab cannot give; the message names it.
pub(crate) fn translate(template: &PodTemplateSpec, at: &Placement<'_>) -> Result<Pod> {
    let spec = template.spec.as_ref().context("the pod template has no spec")?;
    let [container] = spec.containers.as_slice() else {
        bail!("{}: the lab runs pods of one container, this has {}", at.name, spec.containers.len());
    };
    let mounts = mounts(spec, container, at.folder)?;
    let facts = PodFacts { at, spec, template };
    let mut env = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = facts.value(variable).with_context(|| format!("{}: variable {}", at.name, variable.name))?;
        env.insert(variable.name.clone(), moved(&value, &mounts));
    }
    if env.contains_key(METRICS) {
        env.insert(METRICS.to_owned(), format!("127.0.0.1:{}", at.metrics_port));
    }
    if let Some(tmp) = mounts.iter().find(|m| m.path == "/tmp") {
        env.insert("TMPDIR".to_owned(), tmp.folder.display().to_string()); // nothing else leads a program from /tmp
    }
    let mut words = container.command.iter().flatten().chain(container.args.iter().flatten());
    let command = words.next().with_context(|| format!("{}: the container has no command", at.name))?;
    let program = command.rsplit('/').next().unwrap_or(command).to_owned();
    let args = words.map(|word| moved(word, &mounts)).collect();
    let account = spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned());
    let ready = probe(container, at)?;
    let (name, node, namespace) = (at.name.to_owned(), at.node.to_owned(), at.namespace.to_owned());
    Ok(Pod { name, node, namespace, account, program, args, env, mounts, ready })
}

fn mounts(spec: &PodSpec, container: &Container, folder: &Path) -> Result<Vec<Mount>> {
    let volumes: BTreeMap<&str, &Volume> = spec.volumes.iter().flatten().map(|v| (v.name.as_str(), v)).collect();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(mount.name.as_str());
        let volume = volume.with_context(|| format!("volume {} is mounted and not there", mount.name))?;
        let secret = match (&volume.secret, &volume.empty_dir) {
            (Some(secret), _) => {
                let name =
                    secret.secret_name.clone().with_context(|| format!("volume {} names no Secret", mount.name))?;
                Some((name, secret.optional.unwrap_or(false)))
            }
            (None, Some(_)) => None,
            (None, None) => bail!("volume {} is neither emptyDir nor Secret: the lab has no others", mount.name),
        };
        let folder = folder.join(mount.mount_path.trim_start_matches('/'));
        mounts.push(Mount { path: mount.mount_path.trim_end_matches('/').to_owned(), folder, secret });
    }
    Ok(mounts)
}

/// A word whose path lies below a mount, moved to the folder that stands for it. In `--flag=PATH` only the value moves.
fn moved(word: &str, mounts: &[Mount]) -> String {
    let (flag, path) = match word.split_once('=') {
        Some((flag, path)) if flag.starts_with('-') => (Some(flag), path),
        _ => (None, word),
    };
    let below =
        |mount: &&Mount| path.strip_prefix(&mount.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(mount) = mounts.iter().filter(below).max_by_key(|m| m.path.len()) else { return word.to_owned() };
    let path = format!("{}{}", mount.folder.display(), &path[mount.path.len()..]);
    flag.map_or_else(|| path.clone(), |flag| format!("{flag}={path}"))
}

struct PodFacts<'a> {
    at: &'a Placement<'a>,
    spec: &'a PodSpec,
    template: &'a PodTemplateSpec,
}

impl PodFacts<'_> {
    fn value(&self, variable: &EnvVar) -> Result<String> {
        let Some(from) = &variable.value_from else { return Ok(variable.value.clone().unwrap_or_default()) };
        let Some(field) = &from.field_ref else { bail!("only fieldRef is known to the lab") };
        self.field(&field.field_path)
    }

    fn field(&self, path: &str) -> Result<String> {
        let metadata = self.template.metadata.as_ref();
        let keyed = |what: &str| path.strip_prefix(what)?.strip_prefix("['")?.strip_suffix("']");
        if let Some(key) = keyed("metadata.labels") {
            return Ok(metadata.and_then(|m| m.labels.as_ref()?.get(key).cloned()).unwrap_or_default());
        }
        if let Some(key) = keyed("metadata.annotations") {
            return Ok(metadata.and_then(|m| m.annotations.as_ref()?.get(key).cloned()).unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => self.at.name.to_owned(),
            "metadata.namespace" => self.at.namespace.to_owned(),
            "spec.nodeName" => self.at.node.to_owned(),
            "spec.serviceAccountName" => self.spec.service_account_name.clone().unwrap_or_default(),
            "status.podIP" | "status.hostIP" => "127.0.0.1".to_owned(),
            other => bail!("the lab does not know the field {other}"),
        })
    }
}

/// The readiness probe, provided that it asks on the port that metrics are served on.
fn probe(container: &Container, at: &Placement<'_>) -> Result<Option<Probe>> {
    let Some(get) = container.readiness_probe.as_ref().and_then(|p| p.http_get.as_ref()) else { return Ok(None) };
    let named = |name: &str| container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
    let port = match &get.port {
        IntOrString::Int(port) => *port,
        IntOrString::String(name) => {
            named(name).with_context(|| format!("{}: the probe's port {name} is not there", at.name))?.container_port
        }
    };
    let metrics = container.env.iter().flatten().find(|e| e.name == METRICS).and_then(|e| e.value.as_deref());
    if !metrics.is_some_and(|address| address.ends_with(&format!(":{port}"))) {
        bail!("{}: the readiness probe asks port {port}, {METRICS} is {metrics:?}", at.name);
    }
    Ok(Some(Probe { path: get.path.clone().unwrap_or_else(|| "/".to_owned()), port: at.metrics_port }))
}

#[cfg(test)]
mod tests;
