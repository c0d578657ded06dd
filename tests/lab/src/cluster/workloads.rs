//! Our own programs: one process for each replica of a Deployment and one for each node of a DaemonSet.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{PodTemplateSpec, Secret};
use kube::{Api, Client};
use serde_json::Value;

use super::accounts::Holder;
use super::pod::{Mount, Placement, Pod, translate};
use crate::facts::{Facts, VELERO_NAMESPACE};
use crate::kubeconfig::{self, Identity};
use crate::peer_process::{VCENTER, vcenter_store};
use crate::processes::Launch;

/// Where the disk library is mounted, and what it is called there.
const DISK_LIBRARY: (&str, &str) = ("/vddkLibs", "lib64/libvixDiskLib.so.8");
/// Our stand-in for it, among our programs.
const STAND_IN: &str = "libvixDiskLib.so";

/// A pod of the manifests that is to run as a process of that name.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) namespace: String,
    pub(crate) template: PodTemplateSpec,
}

/// The pods that the manifests ask for. `data-manager-NODE` is the lab's short name for the pods of the one DaemonSet.
pub(crate) fn wanted(objects: &[Value], nodes: &[String]) -> Result<Vec<Wanted>> {
    let mut pods = Vec::new();
    for object in objects {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(VELERO_NAMESPACE).to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut add = |name: String, node: &String, template: &PodTemplateSpec| {
            pods.push(Wanted { name, node: node.clone(), namespace: namespace.clone(), template: template.clone() });
        };
        match object["kind"].as_str() {
            Some("Deployment") => {
                let deployment: Deployment =
                    serde_json::from_value(object.clone()).context("understand a Deployment")?;
                let spec = deployment.spec.with_context(|| format!("Deployment {name} has a spec"))?;
                for replica in 0..spec.replicas.unwrap_or(1) {
                    let node = nodes.iter().cycle().nth(usize::try_from(replica)?).context("a lab has nodes")?;
                    let name = if replica == 0 { name.clone() } else { format!("{name}-{}", replica + 1) };
                    add(name, node, &spec.template);
                }
            }
            Some("DaemonSet") => {
                let set: DaemonSet = serde_json::from_value(object.clone()).context("understand a DaemonSet")?;
                let spec = set.spec.with_context(|| format!("DaemonSet {name} has a spec"))?;
                for node in nodes {
                    add(format!("data-manager-{node}"), node, &spec.template);
                }
            }
            _ => (),
        }
    }
    Ok(pods)
}

/// Makes a process out of a pod: its folders, Secrets, token and kubeconfig. Returns what to start and how to see it ready.
pub(crate) async fn prepare(
    wanted: &Wanted,
    programs: &Path,
    lab: &Path,
    facts: &mut Facts,
    client: &Client,
) -> Result<(Launch, Pod)> {
    let pod = pod(wanted, lab, facts)?;
    let program = programs.join(&pod.program);
    if !program.is_file() {
        bail!("{}: {} is not built in {}", pod.name, pod.program, programs.display());
    }
    let mut watched = Vec::new();
    for mount in &pod.mounts {
        if mount.path == DISK_LIBRARY.0 {
            watched.push(programs.join("vddk-helper"));
            watched.push(put_stand_in(mount, programs, lab)?);
        }
    }
    watched.retain(|file| file.is_file());
    let mut launch = process(&pod, program, lab, facts, client).await?;
    launch.watched = watched;
    Ok((launch, pod))
}

/// The folder that stands for a container's file system.
pub(super) fn folder(lab: &Path, name: &str) -> PathBuf {
    lab.join("pods").join(name)
}

/// What a pod is as a process.
pub(super) fn pod(wanted: &Wanted, lab: &Path, facts: &mut Facts) -> Result<Pod> {
    let at = Placement {
        name: &wanted.name,
        node: &wanted.node,
        namespace: &wanted.namespace,
        folder: &folder(lab, &wanted.name),
        metrics_port: facts.choose_port(&wanted.name)?,
    };
    translate(&wanted.template, &at)
}

/// Makes a pod's folders, and fills them with its Secrets, its token and a kubeconfig.
pub(super) async fn process(pod: &Pod, program: PathBuf, lab: &Path, facts: &Facts, client: &Client) -> Result<Launch> {
    let folder = folder(lab, &pod.name);
    for mount in &pod.mounts {
        fill(mount, pod, client).await.with_context(|| format!("fill {} of {}", mount.path, pod.name))?;
    }
    let holder = Holder {
        namespace: pod.namespace.clone(),
        account: pod.account.clone(),
        token_file: folder.join("var/run/secrets/kubernetes.io/serviceaccount/token"),
    };
    holder.renew(client).await?;
    holder.remember(&folder)?;
    let config = folder.join("kubeconfig");
    let authority = lab.join("certificates/ca.pem");
    kubeconfig::write(
        &config,
        &facts.api_url()?,
        &authority,
        &pod.namespace,
        &Identity::TokenFile(&holder.token_file),
    )?;
    let mut env = pod.env.clone();
    env.insert("KUBECONFIG".to_owned(), config.display().to_string());
    env.entry("PATH".to_owned())
        .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let (name, args, watched) = (pod.name.clone(), pod.args.clone(), Vec::new());
    Ok(Launch { name, program, args, env, folder, watched, takes_children_along: false })
}

async fn fill(mount: &Mount, pod: &Pod, client: &Client) -> Result<()> {
    fs::create_dir_all(&mount.folder).with_context(|| format!("make {}", mount.folder.display()))?;
    let Some((name, optional)) = &mount.secret else { return Ok(()) };
    let api: Api<Secret> = Api::namespaced(client.clone(), &pod.namespace);
    let secret = match api.get_opt(name).await.with_context(|| format!("read Secret {name}"))? {
        Some(secret) => secret,
        None if *optional => return Ok(()),
        None => bail!("there is no Secret {name}"),
    };
    for (key, value) in secret.data.unwrap_or_default() {
        let text = String::from_utf8(value.0).with_context(|| format!("Secret {name}, key {key} is text"))?;
        crate::facts::write_private(&mount.folder.join(key), &text)?;
    }
    Ok(())
}

/// Puts the stand-in for the disk library where the proprietary one would be mounted, and tells it where the disks are.
/// Renamed into place: a helper that has the old one loaded keeps it.
fn put_stand_in(mount: &Mount, programs: &Path, lab: &Path) -> Result<PathBuf> {
    let built = programs.join(STAND_IN);
    let library = mount.folder.join(DISK_LIBRARY.1);
    let folder = library.parent().context("the library lies in a folder")?;
    fs::create_dir_all(folder)?;
    if !built.is_file() {
        eprintln!("lab: {STAND_IN} is not built in {}: transfers will say VddkLibraryMissing", programs.display());
        return Ok(built);
    }
    let half_made = folder.join(".library.partial");
    fs::copy(&built, &half_made).with_context(|| format!("copy {}", built.display()))?;
    fs::rename(&half_made, &library)?;
    let told = serde_json::json!({"store": vcenter_store(lab, VCENTER)});
    fs::write(folder.join("stand-in.json"), told.to_string())?;
    Ok(built)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;
    use crate::cluster::objects::documents;

    fn names(nodes: &[&str]) -> Vec<(String, String)> {
        let root = crate::Place::from_environment().unwrap().root;
        let objects = documents(&root.join("deploy/manifests")).unwrap();
        let nodes: Vec<_> = nodes.iter().map(|n| (*n).to_owned()).collect();
        wanted(&objects, &nodes).unwrap().into_iter().map(|w| (w.name, w.node)).collect()
    }

    #[test]
    fn the_committed_manifests_give_one_driver_and_a_data_manager_on_each_node() {
        let want = [("backup-driver", "node-a"), ("data-manager-node-a", "node-a"), ("data-manager-node-b", "node-b")];
        let want: Vec<_> = want.iter().map(|(n, m)| ((*n).to_owned(), (*m).to_owned())).collect();
        assert_eq!(names(&["node-a", "node-b"]), want);
    }

    #[test]
    fn the_lab_can_run_what_the_committed_manifests_say() {
        let root = crate::Place::from_environment().unwrap().root;
        let objects = documents(&root.join("deploy/manifests")).unwrap();
        for pod in wanted(&objects, &["node-a".to_owned()]).unwrap() {
            let (folder, node) = (Path::new("/lab/pods/x"), pod.node.as_str());
            let at = Placement { name: &pod.name, node, namespace: &pod.namespace, folder, metrics_port: 1 };
            let made = translate(&pod.template, &at).unwrap();
            assert_eq!(made.env["VELERO_NAMESPACE"], "velero", "{}", pod.name);
            assert!(made.ready.is_some(), "{} can be waited for", pod.name);
        }
    }
}
