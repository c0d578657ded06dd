//! vCenter as its Secret describes it, with one session until the Secret changes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use api::{Reason, names};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt as _};
use lifecycle::Problem;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use vsphere::Vcenter;

use crate::known::Known;
use crate::secrets::{secret, text};
use crate::{Settings, from_kube};

/// Keys of the Secret in the order they are tried; a Secret with one key may call it as it likes.
const KEYS: [&str; 2] = ["csi-vsphere.conf", "vsphere-cloud-provider.conf"];
/// What helps when our account may not read the Secret.
const MAY_BE_READ: &str = "Give the Secret's namespace and name in `vcenterSecret` of the chart's values.";
/// Where the CSI driver keeps its own Secret.
const CSI_NAMESPACE: &str = "vmware-system-csi";

/// The vCenter of this cluster. Cheap to clone; clones share the session.
#[derive(Clone)]
pub struct Vcenters {
    known: Known,
    namespace: String,
    open: Arc<Mutex<Option<Open>>>,
}

struct Open {
    /// Which Secret in which version it came from.
    source: String,
    vcenter: Vcenter,
}

impl Vcenters {
    /// The vCenter that the settings in the Velero namespace name.
    pub fn new(client: Client, velero_namespace: &str) -> Self {
        Self { known: Known::new(client), namespace: velero_namespace.to_owned(), open: Arc::default() }
    }

    /// The vCenter, with the credentials that stand in the Secret now.
    ///
    /// # Errors
    /// `VCenterSecretMissing`, `VCenterSecretInvalid` with the line at fault, or `ClusterUnreachable` when the API server does
    /// not answer. Whether vCenter itself answers shows at the first call.
    pub async fn get(&self) -> Result<Vcenter, Problem> {
        let found = self.secret().await?;
        let version = format!(
            "{}/{}/{}",
            found.namespace().unwrap_or_default(),
            found.name_any(),
            found.resource_version().unwrap_or_default()
        );
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.source == version) {
            return Ok(open.vcenter.clone());
        }
        let vcenter = connect(&found)?;
        if let Some(old) = open.replace(Open { source: version, vcenter: vcenter.clone() }) {
            tracing::info!("the vCenter Secret changed; taking the new credentials");
            tokio::spawn(async move { old.vcenter.logout().await });
        }
        Ok(vcenter)
    }

    /// What the user has set.
    ///
    /// # Errors
    /// When the API server does not answer or does not allow it.
    pub async fn settings(&self) -> Result<Settings, Problem> {
        Settings::known(&self.known, &self.namespace).await
    }

    /// What the user has set of VMware's disk library: ConfigMap `vddk-config`; empty where there is none.
    ///
    /// # Errors
    /// When the API server does not answer or does not allow it.
    pub async fn library_settings(&self) -> Result<BTreeMap<String, String>, Problem> {
        let maps: Api<ConfigMap> = Api::namespaced(self.known.client(), &self.namespace);
        let found = self.known.get(&maps, names::VDDK_CONFIG).await;
        let found = found.map_err(|e| from_kube(&format!("read ConfigMap {}", names::VDDK_CONFIG), &e))?;
        Ok(found.and_then(|map| map.data).unwrap_or_default())
    }

    /// Ends the session, so that none is left in vCenter.
    pub async fn close(&self) {
        if let Some(open) = self.open.lock().await.take() {
            open.vcenter.logout().await;
        }
    }

    async fn secret(&self) -> Result<Secret, Problem> {
        let settings = Settings::known(&self.known, &self.namespace).await?;
        let places = if settings.shares_the_csi_drivers_secret() {
            names::CSI_SECRETS.map(|name| (CSI_NAMESPACE, name)).to_vec()
        } else {
            vec![(settings.vcenter_secret_namespace(&self.namespace), settings.vcenter_secret_name())]
        };
        let mut refused = None;
        for (namespace, name) in &places {
            match secret(&self.known, namespace, name).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(problem) if problem.reason == Reason::ClusterForbidden => {
                    refused = Some(problem.with_fix(Some(MAY_BE_READ.to_owned())));
                }
                Err(problem) => return Err(problem),
            }
        }
        if let Some(problem) = refused {
            return Err(problem);
        }
        let tried: Vec<String> = places.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        Err(Problem::passing(
            Reason::VCenterSecretMissing,
            format!("find vCenter: there is no Secret {}", tried.join(" or ")),
        ))
    }
}

/// A client for the vCenter that a Secret describes.
fn connect(found: &Secret) -> Result<Vcenter, Problem> {
    let place = format!("{}/{}", found.namespace().unwrap_or_default(), found.name_any());
    let invalid = |why: String| Problem::passing(Reason::VCenterSecretInvalid, format!("read Secret {place}: {why}"));
    let keys: Vec<&String> = found.data.iter().flat_map(|data| data.keys()).collect();
    let key = match (KEYS.iter().find(|key| keys.iter().any(|k| k == *key)), &keys[..]) {
        (Some(key), _) => (*key).to_owned(),
        (None, [only]) => (*only).clone(),
        (None, _) => return Err(invalid(format!("it has no key `{}`", KEYS[0]))),
    };
    let conf = text(found, &key).ok_or_else(|| invalid(format!("`{key}` is not text")))?;
    let centers = vsphere::secret::parse(conf.expose_secret()).map_err(|e| invalid(format!("`{key}`, {e}")))?;
    let center = centers.first().ok_or_else(|| invalid(format!("`{key}` has no [VirtualCenter] section")))?;
    if centers.len() > 1 {
        tracing::warn!(used = center.host, of = centers.len(), "the vCenter Secret names several; the first is used");
    }
    let bundled = |path: &std::path::Path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        match text(found, name) {
            Some(pem) => Ok(pem.expose_secret().to_owned()),
            None => {
                std::fs::read_to_string(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
            }
        }
    };
    let config = center.config(bundled).map_err(|e| invalid(Problem::chain(&e)))?;
    Vcenter::new(config).map_err(|e| invalid(Problem::chain(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    const CONF: &str = "[VirtualCenter \"vc.lab\"]\nuser = \"svc@vsphere.local\"\npassword = \"pw\"\n";

    fn secret_of(entries: &[(&str, &str)]) -> Secret {
        let data = entries.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn a_secret_is_understood_under_each_name_its_key_may_have() {
        for key in ["csi-vsphere.conf", "vsphere-cloud-provider.conf", "anything"] {
            let vcenter = connect(&secret_of(&[(key, CONF)])).map(|v| v.config().host.clone());
            assert_eq!(vcenter.as_deref(), Ok("vc.lab"), "{key}");
        }
        let two = connect(&secret_of(&[("one", CONF), ("two", CONF)])).map(drop);
        assert!(two.is_err_and(|p| p.cause.contains("it has no key `csi-vsphere.conf`")));
    }

    #[test]
    fn a_mistake_in_the_secret_names_its_line_and_not_the_password() {
        let broken = CONF.replace("password = \"pw\"", "password = \"hunter2\\q\"");
        let problem = connect(&secret_of(&[("csi-vsphere.conf", &broken)])).map(drop).expect_err("a bad escape");
        assert_eq!(problem.reason, Reason::VCenterSecretInvalid);
        assert!(problem.cause.contains("line 3"), "{}", problem.cause);
        assert!(!problem.cause.contains("hunter2"), "{}", problem.cause);
    }

    #[test]
    fn a_ca_file_may_lie_in_the_secret_itself() {
        let conf = format!("{CONF}ca-file = \"/etc/certs/ca.crt\"\n");
        let missing = connect(&secret_of(&[("csi-vsphere.conf", &conf)])).map(drop);
        assert!(missing.is_err_and(|p| p.cause.contains("/etc/certs/ca.crt")), "named, not found");
    }
}
