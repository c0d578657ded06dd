//! The peers: real programs of others, built by `go build` from the pinned modules in `tests/lab/peers` (and our own Go
//! doubles) into a cache outside the checkout, under a hash of what they are made from. Builds; starts nothing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use ring::digest::{Context as Digest, SHA256};
use tokio::sync::watch;

use crate::progress::Building;

/// One program and where it comes from. A new peer is a line in [`PEERS`] and a module folder with `go.mod` and `go.sum`.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Name of the program.
    pub name: &'static str,
    /// Its Go module, a folder below `tests/lab`.
    module: &'static str,
    /// What to build in that module.
    package: &'static str,
    /// Linker flags beyond `-s -w`.
    link: &'static str,
    /// What needs it.
    pub part: Part,
}

/// What needs a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every lab.
    Lab,
    /// A lab with Velero.
    Velero,
    /// Checks of what we ship, and benchmarks; no lab. Built when asked for.
    Checks,
}

const KUBERNETES: &str = "-X k8s.io/component-base/version.gitVersion=v1.35.4";

/// Without the second setting every Velero of the machine wants port 8080, for metrics that it serves elsewhere too.
const VELERO: &str = "-X github.com/vmware-tanzu/velero/pkg/buildinfo.Version=v1.18.0 \
-X sigs.k8s.io/controller-runtime/pkg/metrics/server.DefaultBindAddress=0";

/// All peers, in the order in which a starting lab needs them.
pub const PEERS: &[Peer] = &[
    Peer { name: "etcd", module: "peers/etcd", package: "go.etcd.io/etcd/server/v3", link: "", part: Part::Lab },
    Peer {
        name: "kube-apiserver",
        module: "peers/kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        link: KUBERNETES,
        part: Part::Lab,
    },
    Peer {
        name: "kube-controller-manager",
        module: "peers/kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        link: KUBERNETES,
        part: Part::Lab,
    },
    Peer {
        name: "versitygw",
        module: "peers/versitygw",
        package: "github.com/versity/versitygw/cmd/versitygw",
        link: "",
        part: Part::Lab,
    },
    Peer { name: "vcenter", module: "vcenter", package: "./cmd/vcenter", link: "", part: Part::Lab },
    Peer { name: "provisioner", module: "provisioner", package: ".", link: "", part: Part::Lab },
    Peer {
        name: "kubectl",
        module: "peers/kubernetes",
        package: "k8s.io/kubernetes/cmd/kubectl",
        link: KUBERNETES,
        part: Part::Lab,
    },
    Peer {
        name: "kube-scheduler",
        module: "peers/kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-scheduler",
        link: KUBERNETES,
        part: Part::Velero,
    },
    Peer {
        name: "velero",
        module: "peers/velero",
        package: "github.com/vmware-tanzu/velero/cmd/velero",
        link: VELERO,
        part: Part::Velero,
    },
    Peer {
        name: "velero-plugin-for-aws",
        module: "peers/velero",
        package: "github.com/vmware-tanzu/velero-plugin-for-aws/velero-plugin-for-aws",
        link: "",
        part: Part::Velero,
    },
    Peer { name: "plugin-host-1.4.3", module: "plugin-host/v1.4.3", package: ".", link: "", part: Part::Checks },
    Peer { name: "plugin-host-1.6.0", module: "plugin-host/v1.6.0", package: ".", link: "", part: Part::Checks },
    Peer { name: "plugin-host-1.7.0", module: "plugin-host/v1.7.0", package: ".", link: "", part: Part::Checks },
    Peer { name: "kopia", module: "peers/kopia", package: "github.com/kopia/kopia", link: "", part: Part::Checks },
    Peer { name: "helm", module: "peers/helm", package: "helm.sh/helm/v4/cmd/helm", link: "", part: Part::Checks },
];

/// The peer of that name.
///
/// # Errors
/// When there is none; the message lists those there are.
pub fn peer(name: &str) -> Result<&'static Peer> {
    PEERS.iter().find(|p| p.name == name).ok_or_else(|| {
        let names: Vec<_> = PEERS.iter().map(|p| p.name).collect();
        anyhow!("there is no peer {name:?}; there are: {}", names.join(", "))
    })
}

impl Peer {
    /// Where the program is, or will be once it is built.
    ///
    /// # Errors
    /// When its sources cannot be read.
    pub fn path(&self, root: &Path) -> Result<PathBuf> {
        let module = root.join("tests/lab").join(self.module);
        let key = fingerprint(&module).with_context(|| format!("read the sources of {}", self.name))?;
        let name = self.module.rsplit('/').next().unwrap_or(self.module);
        Ok(cache()?.join(format!("{name}-{key}")).join(self.name))
    }

    /// Builds the program unless it is there, and says where it is. Of several callers at once one builds, the others wait.
    ///
    /// # Errors
    /// When `go build` fails; the error holds what it said.
    pub fn build(&self, root: &Path) -> Result<PathBuf> {
        let path = self.path(root)?;
        if path.is_file() {
            return Ok(path);
        }
        let folder = path.parent().context("a peer lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let lock = fs::File::create(folder.join(format!(".{}.lock", self.name)))?;
        lock.lock().with_context(|| format!("wait for another build of {}", self.name))?;
        if path.is_file() {
            return Ok(path);
        }
        let building = Building::start(self.name);
        self.go_build(root, &path)?;
        building.done();
        Ok(path)
    }

    fn go_build(&self, root: &Path, path: &Path) -> Result<()> {
        let half_made = path.with_extension("partial");
        let start = Instant::now();
        let out = Command::new("go")
            .current_dir(root.join("tests/lab").join(self.module))
            .args(["build", "-trimpath", "-ldflags", &format!("-s -w {}", self.link), "-o"])
            .arg(&half_made)
            .arg(self.package)
            .output()
            .context("run `go`: is Go installed?")?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!(
                "build {}: `go build` ended with {} after {} s:\n{said}",
                self.name,
                out.status,
                start.elapsed().as_secs()
            );
        }
        fs::rename(&half_made, path).with_context(|| format!("put {} in place", path.display()))
    }
}

/// The folder of everything that outlives a checkout.
fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("velero-plugin-for-vsphere/peers"))
}

/// A hash of `go.mod`, `go.sum` and the module's own Go sources (tests apart).
fn fingerprint(module: &Path) -> Result<String> {
    let mut files = Vec::new();
    sources(module, &mut files)?;
    files.sort();
    let mut digest = Digest::new(&SHA256);
    for file in files {
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.strip_prefix(module).unwrap_or(&file);
        digest.update(format!("{} {}\n", name.display(), content.len()).as_bytes());
        digest.update(&content);
    }
    Ok(digest.finish().as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect())
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            sources(&entry.path(), into)?;
        } else if name == "go.mod" || name == "go.sum" || (name.ends_with(".go") && !name.ends_with("_test.go")) {
            into.push(entry.path());
        }
    }
    Ok(())
}

type Built = Option<Result<PathBuf, String>>;

/// Peers that are being built one after the other in the background, so that what is ready can already be started.
#[derive(Debug)]
pub(crate) struct Builds {
    built: Mutex<HashMap<&'static str, watch::Receiver<Built>>>,
}

impl Builds {
    /// Begins to build what is missing of the peers that are needed, in their order.
    pub(crate) fn start(root: &Path, needed: impl Fn(&Peer) -> bool) -> Self {
        let mut built = HashMap::new();
        let mut senders = Vec::new();
        for peer in PEERS.iter().filter(|peer| needed(peer)) {
            let (sender, receiver) = watch::channel(None);
            built.insert(peer.name, receiver);
            senders.push((peer, sender));
        }
        let root = root.to_owned();
        std::thread::spawn(move || {
            for (peer, sender) in senders {
                sender.send_replace(Some(peer.build(&root).map_err(|e| format!("{e:#}"))));
            }
        });
        Self { built: Mutex::new(built) }
    }

    /// Waits until that peer is built and says where it is. Has no deadline: a build takes as long as it takes.
    ///
    /// # Errors
    /// When its build failed.
    pub(crate) async fn path(&self, name: &str) -> Result<PathBuf> {
        let receiver = self.built.lock().expect("no holder panics").get(name).cloned();
        let mut receiver = receiver.with_context(|| format!("{name} is no peer of this lab"))?;
        let built = receiver.wait_for(Option::is_some).await.context("the build thread ended")?.clone();
        built.expect("waited until it is there").map_err(|e| anyhow!(e))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;

    #[test]
    fn a_changed_source_is_built_anew_and_a_changed_test_is_not() {
        let module = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(module.path().join(name), text).unwrap();
        write("go.mod", "module x\n");
        write("main.go", "package main\n");
        let first = fingerprint(module.path()).unwrap();
        write("main_test.go", "package main\n");
        assert_eq!(fingerprint(module.path()).unwrap(), first);
        write("main.go", "package main // changed\n");
        assert_ne!(fingerprint(module.path()).unwrap(), first);
    }

    #[test]
    fn every_peer_has_a_pinned_module_that_names_it() {
        let root = crate::Place::from_environment().unwrap().root;
        for peer in PEERS {
            let module = root.join("tests/lab").join(peer.module);
            assert!(module.join("go.sum").is_file(), "{} has a go.sum", peer.name);
            let text = fs::read_to_string(module.join("go.mod")).unwrap();
            assert!(peer.package.starts_with('.') || text.contains(peer.package), "{} stands in its go.mod", peer.name);
        }
    }

    #[test]
    fn an_unknown_peer_is_refused_with_the_list() {
        let error = peer("minio").unwrap_err().to_string();
        assert!(error.contains("versitygw"), "{error}");
    }
}
