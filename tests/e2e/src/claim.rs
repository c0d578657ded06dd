//! A bound claim and the raw file behind it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use disk::DiskId;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use rand::{RngCore as _, SeedableRng as _};
use serde_json::json;

use crate::{DEADLINE, Namespace, World, wait_until};

const MIB: u64 = 1 << 20;

/// A claim that is about to be made.
pub struct NewClaim<'n> {
    namespace: &'n Namespace,
    name: String,
    class: String,
    mib: u64,
    volume_mode: &'static str,
    access_mode: &'static str,
    node: Option<&'static str>,
    label: Option<(&'static str, &'static str)>,
}

impl Namespace {
    /// A claim of 16 MiB in class `vsphere`, ReadWriteOnce, with a file system.
    pub fn claim(&self, name: &str) -> NewClaim<'_> {
        NewClaim {
            namespace: self,
            name: name.to_owned(),
            class: "vsphere".to_owned(),
            mib: 16,
            volume_mode: "Filesystem",
            access_mode: "ReadWriteOnce",
            node: None,
            label: None,
        }
    }
}

impl NewClaim<'_> {
    /// Size in MiB.
    #[must_use]
    pub fn mib(mut self, mib: u64) -> Self {
        self.mib = mib;
        self
    }

    /// Storage class.
    #[must_use]
    pub fn class(mut self, class: &str) -> Self {
        class.clone_into(&mut self.class);
        self
    }

    /// `Filesystem` or `Block`.
    #[must_use]
    pub fn volume_mode(mut self, mode: &'static str) -> Self {
        self.volume_mode = mode;
        self
    }

    /// `ReadWriteOnce`, `ReadWriteOncePod`, …
    #[must_use]
    pub fn access_mode(mut self, mode: &'static str) -> Self {
        self.access_mode = mode;
        self
    }

    /// The node that a WaitForFirstConsumer claim is selected for.
    #[must_use]
    pub fn node(mut self, node: &'static str) -> Self {
        self.node = Some(node);
        self
    }

    /// A label beside `app=shop`.
    #[must_use]
    pub fn label(mut self, key: &'static str, value: &'static str) -> Self {
        self.label = Some((key, value));
        self
    }

    fn object(&self) -> Result<PersistentVolumeClaim> {
        let labels: BTreeMap<_, _> = [("app", "shop")].into_iter().chain(self.label).collect();
        let annotations = self.node.map(|node| json!({"volume.kubernetes.io/selected-node": node}));
        Ok(serde_json::from_value(json!({
            "metadata": {"name": self.name, "labels": labels, "annotations": annotations},
            "spec": {
                "storageClassName": self.class,
                "accessModes": [self.access_mode],
                "volumeMode": self.volume_mode,
                "resources": {"requests": {"storage": format!("{}Mi", self.mib)}},
            },
        }))?)
    }

    /// Makes it and does not wait.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create_unbound(self) -> Result<()> {
        self.namespace.claims().create(&PostParams::default(), &self.object()?).await?;
        Ok(())
    }

    /// Makes it and waits until it is bound.
    ///
    /// # Errors
    /// When it is not bound in time.
    pub async fn create(self) -> Result<Claim> {
        self.namespace.claims().create(&PostParams::default(), &self.object()?).await?;
        Claim::bound(self.namespace.world(), self.namespace.name(), &self.name).await
    }
}

/// A bound claim with the raw file behind it.
#[derive(Clone)]
pub struct Claim {
    world: World,
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub name: String,
    /// Its disk.
    pub disk: DiskId,
    /// The raw file behind the disk.
    pub file: PathBuf,
}

impl Claim {
    /// Waits until the claim is bound and finds its disk.
    ///
    /// # Errors
    /// When it is not bound in time, or has no disk of ours.
    pub async fn bound(world: &World, namespace: &str, name: &str) -> Result<Self> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(world.client(), namespace);
        let claim = wait_until(&api, name, DEADLINE, "is Bound", |claim| {
            claim.and_then(|c| c.status.as_ref()?.phase.as_deref()) == Some("Bound")
        })
        .await?
        .context("a bound claim exists")?;
        let volume = claim.spec.and_then(|s| s.volume_name).context("a bound claim names its volume")?;
        let volume = Api::<PersistentVolume>::all(world.client()).get(&volume).await?;
        let handle = volume.spec.and_then(|s| s.csi).map(|csi| csi.volume_handle).context("a CSI volume")?;
        let file = world.run("lab-disk", &["path", &format!("{namespace}/{name}")]).await?;
        Ok(Self {
            world: world.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            disk: handle.parse()?,
            file: PathBuf::from(file.trim_end()),
        })
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.world.client()
    }

    pub(crate) fn control(&self) -> crate::Control {
        self.world.control()
    }

    /// Size of the disk in bytes.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn size(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.file)?.len())
    }

    /// Bytes that the file really takes: what a thin disk holds.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn allocated(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.file)?.blocks() * 512)
    }

    /// Fills the whole disk with bytes that do not compress and repeat nowhere.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn fill_random(&self, seed: u64) -> Result<()> {
        self.write_random(seed, 0, self.size()?)
    }

    /// Writes `length` such bytes at `offset`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_random(&self, seed: u64, offset: u64, length: u64) -> Result<()> {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut file = OpenOptions::new().write(true).open(&self.file)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut piece = vec![0; usize::try_from(MIB)?];
        let mut left = length;
        while left > 0 {
            let now = usize::try_from(left.min(MIB))?;
            random.fill_bytes(&mut piece[..now]);
            file.write_all(&piece[..now])?;
            left -= now as u64;
        }
        file.sync_all()?;
        Ok(())
    }

    /// An ext4 file system that holds the files of `content`.
    ///
    /// # Errors
    /// When `mkfs.ext4` refuses.
    pub fn make_ext4(&self, content: &Path) -> Result<()> {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let out = Command::new("mkfs.ext4")
            .env("PATH", path)
            .args(["-q", "-F", "-d"])
            .args([content, &self.file])
            .output()?;
        if !out.status.success() {
            bail!("mkfs.ext4: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(())
    }

    /// Hash of the whole disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn digest(&self) -> Result<String> {
        digest(&self.file)
    }

    /// The disk snapshots that exist, one id each.
    ///
    /// # Errors
    /// When the claim is gone.
    pub async fn disk_snapshots(&self) -> Result<Vec<String>> {
        let lines = self.world.run("lab-disk", &["snapshots", &format!("{}/{}", self.namespace, self.name)]).await?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// Deletes the claim and waits until its disk is gone too.
    ///
    /// # Errors
    /// When the disk stays.
    pub async fn delete(&self) -> Result<()> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.world.client(), &self.namespace);
        let claim = claims.get(&self.name).await?;
        let volume =
            claim.spec.as_ref().and_then(|s| s.volume_name.clone()).context("a bound claim names its volume")?;
        claims.delete(&self.name, &DeleteParams::default()).await?;
        wait_until(&claims, &self.name, DEADLINE, "is gone", |seen| seen.is_none_or(|seen| seen.uid() != claim.uid()))
            .await?;
        let volumes: Api<PersistentVolume> = Api::all(self.world.client());
        wait_until(&volumes, &volume, DEADLINE, "is gone", |seen| seen.is_none()).await?;
        Ok(())
    }
}

/// SHA-256 of a file, by the machine's `sha256sum`.
///
/// # Errors
/// When the file cannot be read.
pub fn digest(file: &Path) -> Result<String> {
    File::open(file)?; // a clear error for a file that is not there
    let out = Command::new("sha256sum").arg(file).output()?;
    if !out.status.success() {
        bail!("sha256sum: {}", String::from_utf8_lossy(&out.stderr));
    }
    let text = String::from_utf8(out.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum prints a hash")?.to_owned())
}
