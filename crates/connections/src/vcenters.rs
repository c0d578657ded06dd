//! The vCenters that their Secret describes, with one session each until the Secret changes. [`Centers`] knows which of them has a disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::{Reason, names};
use disk::{DiskId, DiskSnapshot};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::doctor::settings::Mistake;
use lifecycle::flavor::{self, Flavor, Found};
use lifecycle::vcenter;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio::time::timeout;
use vsphere::secret::SectionError;
use vsphere::{Deleted, Trust, Vcenter};

use crate::centers::Centers;
use crate::flavor::{Looked, detect};
use crate::known::Known;
use crate::secrets::{secret, text};
use crate::{Settings, from_kube, from_vsphere};

/// Keys of the Secret in the order they are tried; a Secret with one key may call it as it likes.
const KEYS: [&str; 2] = ["csi-vsphere.conf", "vsphere-cloud-provider.conf"];
/// What helps when our account may not read the Secret.
const MAY_BE_READ: &str = "Give the Secret's namespace and name in `vcenterSecret` of the chart's values.";
/// Settings whose mistakes are told by whoever follows them.
const HAVE_THEIR_OWN: [&str; 1] = ["transfer-rate-limit"];
/// Longest time for a look at the flavor of the cluster.
const FLAVOR_WITHIN: Duration = Duration::from_secs(10);

/// The vCenters of this cluster. Cheap to clone; clones share the sessions.
#[derive(Clone)]
pub struct Vcenters {
    known: Known,
    namespace: String,
    /// The one that the command line names in place of a Secret.
    given: Option<Arc<Centers>>,
    open: Arc<Mutex<Option<Open>>>,
    flavor: Arc<Mutex<Option<Looked>>>,
    told: Arc<std::sync::Mutex<Told>>,
}

/// The settings as they were read last, and what the log was told of them.
#[derive(Default)]
struct Told {
    settings: Settings,
    mistakes: Vec<String>,
}

struct Open {
    /// Which Secret in which version they came from.
    source: String,
    centers: Arc<Centers>,
}

impl Vcenters {
    /// The vCenters that the settings in the Velero namespace name.
    pub fn new(client: Client, velero_namespace: &str) -> Self {
        Self {
            known: Known::new(client),
            namespace: velero_namespace.to_owned(),
            given: None,
            open: Arc::default(),
            flavor: Arc::default(),
            told: Arc::default(),
        }
    }

    /// This vCenter, whatever a Secret says; settings are read in the Velero namespace.
    pub fn given(client: Client, velero_namespace: &str, vcenter: Vcenter) -> Self {
        let section = (vcenter.config().server(), Ok(vcenter));
        let centers = Centers::new([section]);
        warn_of_unverified(&centers);
        Self { given: Some(Arc::new(centers)), ..Self::new(client, velero_namespace) }
    }

    /// The vCenters, with the credentials that stand in the Secret now.
    ///
    /// # Errors
    /// `VCenterSecretMissing`, `VCenterSecretInvalid` with the line at fault, `GuestCluster` where there can be none, or
    /// `ClusterUnreachable` when the API server does not answer. Whether a vCenter itself answers shows at the first call.
    pub async fn centers(&self) -> Result<Arc<Centers>, Problem> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        let found = self.secret().await?;
        let version = format!(
            "{}/{}/{}",
            found.namespace().unwrap_or_default(),
            found.name_any(),
            found.resource_version().unwrap_or_default()
        );
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.source == version) {
            return Ok(open.centers.clone());
        }
        let centers = Arc::new(connect(&found)?);
        warn_of_unverified(&centers); // once for each version of the Secret
        if let Some(old) = open.replace(Open { source: version, centers: centers.clone() }) {
            tracing::info!("the vCenter Secret changed; taking the new credentials");
            tokio::spawn(async move { old.centers.logout().await });
        }
        Ok(centers)
    }

    /// The vCenter that has a disk.
    ///
    /// # Errors
    /// As [`Vcenters::centers`] and [`Centers::of_disk`].
    pub async fn of_disk(&self, disk: &DiskId) -> Result<Vcenter, Problem> {
        self.centers().await?.of_disk(disk).await
    }

    /// Deletes a disk snapshot where its disk is, and makes sure that it is gone. Where every vCenter says that it knows no such
    /// disk, it went with it; while one is silent that may have it, it counts as there.
    ///
    /// # Errors
    /// As vCenter says, after `within` at the latest; or what keeps a vCenter that may have it from being asked.
    pub async fn delete_snapshot(
        &self,
        act: &str,
        snapshot: &DiskSnapshot,
        within: Duration,
    ) -> Result<Deleted, Problem> {
        match self.of_disk(&snapshot.disk).await {
            Ok(vcenter) => vcenter.delete_snapshot(snapshot, within).await.map_err(|e| from_vsphere(act, &e)),
            Err(problem) if problem.reason == Reason::DiskMissing => Ok(Deleted::AlreadyGone),
            Err(problem) => Err(Problem { cause: format!("{act}: {}", problem.cause), ..problem }),
        }
    }

    /// Of which flavor the cluster is, and how that is known.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn flavor(&self) -> Result<Found, Problem> {
        Ok(self.settings_and_flavor().await?.1)
    }

    /// What the user has set, and the flavor that follows from it. One in which every request is refused for good rests on the
    /// settings as they are now: a watch may be late.
    async fn settings_and_flavor(&self) -> Result<(Settings, Found), Problem> {
        let settings = self.settings().await?;
        let found = self.flavor_by(&settings).await?;
        if found.flavor != Flavor::Guest {
            return Ok((settings, found));
        }
        let settings = Settings::read(&self.known.client(), &self.namespace).await?;
        let found = self.flavor_by(&settings).await?;
        Ok((settings, found))
    }

    async fn flavor_by(&self, settings: &Settings) -> Result<Found, Problem> {
        if let Some(found) = flavor::set(settings.cluster_flavor()) {
            return Ok(found);
        }
        let mut known = self.flavor.lock().await; // one look at a time: whoever waits for it shares it
        if let Some(looked) = known.as_ref().filter(|looked| looked.counts()) {
            return looked.found.clone();
        }
        let late = |_| {
            let cause = format!("find out the flavor of the cluster: no answer within {} s", FLAVOR_WITHIN.as_secs());
            Problem::passing(Reason::ClusterUnreachable, cause)
        };
        let looked = timeout(FLAVOR_WITHIN, detect(&self.known.client())).await.map_err(late);
        let looked = looked.and_then(std::convert::identity);
        if let Err(problem) = &looked {
            tracing::debug!(%problem, "the flavor of the cluster was not found out");
        }
        let before = known.take().and_then(|looked| looked.found.ok());
        let now = Looked::after(before.clone(), looked);
        if let Ok(found) = &now.found
            && before.as_ref() != Some(found)
        {
            tracing::info!("{found}");
        }
        known.insert(now).found.clone()
    }

    /// What the user has set.
    ///
    /// # Errors
    /// When the API server does not answer or does not allow it.
    pub async fn settings(&self) -> Result<Settings, Problem> {
        let settings = Settings::known(&self.known, &self.namespace).await?;
        let news = self.told.lock().unwrap_or_else(PoisonError::into_inner).news(&settings);
        for mistake in news {
            tracing::warn!(mistake, "a setting is not followed as it is written");
        }
        Ok(settings)
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

    /// Ends the sessions, so that none is left in vCenter.
    pub async fn close(&self) {
        if let Some(given) = &self.given {
            given.logout().await;
        }
        if let Some(open) = self.open.lock().await.take() {
            open.centers.logout().await;
        }
    }

    async fn secret(&self) -> Result<Secret, Problem> {
        let (settings, flavor) = self.settings_and_flavor().await?;
        if let Some(refused) = flavor::refusal(&flavor, "find vCenter") {
            return Err(refused);
        }
        let places = settings.vcenter_secrets(flavor.flavor);
        let mut refused = None;
        for place in &places {
            match secret(&self.known, place.namespace(&self.namespace), &place.name).await {
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
        let tried: Vec<String> =
            places.iter().map(|place| format!("{}/{}", place.namespace(&self.namespace), place.name)).collect();
        let of_flavor = match flavor.flavor {
            Flavor::Vanilla => String::new(),
            Flavor::Supervisor | Flavor::Guest => format!(" ({flavor})"),
        };
        let cause = format!("find vCenter: there is no Secret {}{of_flavor}", tried.join(" or "));
        let missing = Problem::passing(Reason::VCenterSecretMissing, cause);
        Err(missing.with_fix(Some(vcenter::missing(&places, flavor.flavor, &self.namespace, None))))
    }

    /// What helps where there is no Secret, and one lies where nobody looks: where the original found it, or the CSI driver's own. Our
    /// programs' accounts may not look there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn elsewhere(&self) -> Result<Option<String>, Problem> {
        let (settings, flavor) = self.settings_and_flavor().await?;
        let looked = settings.vcenter_secrets(flavor.flavor);
        for place in vcenter::elsewhere(&looked, flavor.flavor, &self.namespace) {
            match secret(&self.known, place.namespace(&self.namespace), &place.name).await {
                Ok(Some(_)) => {
                    return Ok(Some(vcenter::missing(&looked, flavor.flavor, &self.namespace, Some(place))));
                }
                Ok(None) => {}
                Err(problem) if problem.reason == Reason::ClusterForbidden => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(None)
    }
}

impl Told {
    /// The mistakes that came with a change of the settings; none while they are as they were.
    fn news(&mut self, settings: &Settings) -> Vec<String> {
        if self.settings == *settings {
            return Vec::new();
        }
        let has_its_own = |mistake: &Mistake| mistake.is_read && HAVE_THEIR_OWN.contains(&mistake.key.as_str());
        let mistakes = settings.mistakes().into_iter().filter(|mistake| !has_its_own(mistake));
        let now: Vec<String> = mistakes.map(|mistake| mistake.to_string()).collect();
        self.settings = settings.clone();
        let before = std::mem::replace(&mut self.mistakes, now.clone());
        now.into_iter().filter(|mistake| !before.contains(mistake)).collect()
    }
}

/// Those whose certificate nobody checks, because their section says so. The password goes to whoever answers in their place.
fn unverified(centers: &Centers) -> Vec<String> {
    let configs = centers.all().filter_map(|center| center.client().ok()).map(|vcenter| vcenter.config().clone());
    configs.filter(|config| config.trust == Trust::Insecure).map(|config| config.host).collect()
}

fn warn_of_unverified(centers: &Centers) {
    let source = centers.source().unwrap_or("the command line");
    for section in unverified(centers) {
        tracing::warn!(
            source,
            section,
            "insecure-flag: the certificate of this vCenter is not checked, and whoever answers in its place gets the password; \
             set ca-file or thumbprint"
        );
    }
}

/// Clients for the vCenters that a Secret describes. A section that cannot be used keeps no other one from it.
fn connect(found: &Secret) -> Result<Centers, Problem> {
    let place = format!("{}/{}", found.namespace().unwrap_or_default(), found.name_any());
    let invalid = |why: String| Problem::passing(Reason::VCenterSecretInvalid, format!("read Secret {place}: {why}"));
    let keys: Vec<&String> = found.data.iter().flat_map(|data| data.keys()).collect();
    let key = match (KEYS.iter().find(|key| keys.iter().any(|k| k == *key)), &keys[..]) {
        (Some(key), _) => (*key).to_owned(),
        (None, [only]) => (*only).clone(),
        (None, _) => return Err(invalid(format!("it has no key `{}`", KEYS[0]))),
    };
    let conf = text(found, &key).ok_or_else(|| invalid(format!("`{key}` is not text")))?;
    let sections = vsphere::secret::parse(conf.expose_secret()).map_err(|e| invalid(format!("`{key}`, {e}")))?;
    let bundled = |path: &Path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        match text(found, name) {
            Some(pem) => Ok(pem.expose_secret().to_owned()),
            None => std::fs::read_to_string(path),
        }
    };
    let mut unread = Vec::new();
    let centers = Centers::new(sections.iter().map(|section| {
        let config = section.config(bundled).map_err(|e| {
            invalid(format!("`{key}`, {}", Problem::chain(&e))).with_fix(match &e {
                SectionError::CaFile { path, .. } => {
                    unread.push((format!("{}:{}", section.host, section.port), path.clone()));
                    Some(ca_file_missing(path))
                }
                SectionError::Host(_) => None,
            })
        });
        let client = config.and_then(|config| {
            let file = match (&config.trust, &section.ca_file) {
                (Trust::CaFile(_), Some(file)) => {
                    format!("[VirtualCenter \"{}\"], `ca-file` `{}`: ", section.host, file.display())
                }
                _ => String::new(),
            };
            Vcenter::new(config).map_err(|e| invalid(format!("{file}{}", Problem::chain(&e))))
        });
        let server = client.as_ref().map(|client: &Vcenter| client.config().server());
        (server.unwrap_or_else(|_| format!("{}:{}", section.host, section.port)), client)
    }));
    let slips = vsphere::secret::slips(conf.expose_secret()).iter().map(ToString::to_string).collect();
    Ok(centers.read_from(format!("Secret {place}, key `{key}`")).with_slips(slips).with_unread(unread))
}

/// What helps where the file that `ca-file` names is not there.
fn ca_file_missing(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("ca.crt");
    format!(
        "Put the certificates into the Secret itself, under the key `{name}`, or the file into the pods of both programs under that path; \
         or take the line out."
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use k8s_openapi::ByteString;

    const CONF: &str = "[VirtualCenter \"vc.lab\"]\nuser = \"svc@vsphere.local\"\npassword = \"pw\"\n";

    fn secret_of(entries: &[(&str, &str)]) -> Secret {
        let data = entries.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    /// An address, and whether its section can be used.
    type Section = (String, Result<(), Problem>);

    fn connected(entries: &[(&str, &str)]) -> Result<Vec<Section>, Problem> {
        let centers = connect(&secret_of(entries))?;
        Ok(centers.all().map(|center| (center.server().to_owned(), center.client().map(drop))).collect())
    }

    #[test]
    fn a_secret_is_understood_under_each_name_its_key_may_have() {
        for key in ["csi-vsphere.conf", "vsphere-cloud-provider.conf", "anything"] {
            assert_eq!(connected(&[(key, CONF)]), Ok(vec![("vc.lab:443".to_owned(), Ok(()))]), "{key}");
        }
        let two = connected(&[("one", CONF), ("two", CONF)]);
        assert!(two.is_err_and(|p| p.cause.contains("it has no key `csi-vsphere.conf`")));
    }

    #[test]
    fn a_mistake_in_the_secret_names_its_line_and_not_the_password() {
        let broken = CONF.replace("password = \"pw\"", "password = \"hunter2\\q\"");
        let problem = connected(&[("csi-vsphere.conf", &broken)]).expect_err("a bad escape");
        assert_eq!(problem.reason, Reason::VCenterSecretInvalid);
        assert!(problem.cause.contains("line 3"), "{}", problem.cause);
        assert!(!problem.cause.contains("hunter2"), "{}", problem.cause);
    }

    #[test]
    fn a_ca_file_may_lie_in_the_secret_itself() {
        let conf = format!("{CONF}ca-file = \"/etc/certs/ca.crt\"\n");
        let centers = connect(&secret_of(&[("csi-vsphere.conf", &conf)])).unwrap();
        let center = centers.all().next().unwrap();
        assert_eq!(centers.unread(center), Some(Path::new("/etc/certs/ca.crt")), "it is told where it was looked for");
        let missing = centers.only().unwrap().map(drop).expect_err("there is no such file");
        for words in ["line 4", "[VirtualCenter \"vc.lab\"]", "/etc/certs/ca.crt"] {
            assert!(missing.cause.contains(words), "`{words}` in {}", missing.cause);
        }
        assert!(missing.message().contains("under the key `ca.crt`"), "{}", missing.message());
        let empty = [("csi-vsphere.conf", conf.as_str()), ("ca.crt", "no certificate")];
        let centers = connect(&secret_of(&empty)).unwrap();
        assert_eq!(centers.unread(centers.all().next().unwrap()), None, "it was read");
        let useless = centers.only().unwrap().map(drop);
        let words = ["vc.lab", "/etc/certs/ca.crt", "no certificate in PEM form"];
        let told = useless.expect_err("it holds none").cause;
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }

    #[test]
    fn a_name_in_the_secret_that_nobody_reads_is_noticed() {
        let conf = format!("{CONF}thumprint = \"x\"\n");
        let centers = connect(&secret_of(&[("csi-vsphere.conf", &conf)])).unwrap();
        assert_eq!(centers.slips(), ["line 4: nobody reads `thumprint`; `thumbprint` may be meant"]);
    }

    #[test]
    fn a_section_named_by_an_url_is_told_with_its_line() {
        let conf = CONF.replace("vc.lab", "https://vc.lab/sdk");
        let wrong = connect(&secret_of(&[("csi-vsphere.conf", &conf)])).unwrap().only().unwrap().map(drop);
        let problem = wrong.expect_err("an URL");
        assert_eq!(problem.reason, Reason::VCenterSecretInvalid);
        let told = problem.cause;
        assert!(told.contains("line 1: ") && told.contains("without `https://`"), "{told}");
    }

    #[test]
    fn a_setting_that_is_not_followed_is_told_once_for_each_change() {
        let set = |config: &[(&str, &str)]| {
            let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Settings::of(config.collect(), BTreeMap::new())
        };
        let many = ("upload-cr-retry-max", "many");
        let mut told = Told::default();
        let mut news = |settings: &Settings| -> usize { told.news(settings).len() };
        assert_eq!(news(&Settings::default()), 0);
        assert_eq!((news(&set(&[many])), news(&set(&[many]))), (1, 0), "not each time it is read");
        assert_eq!(news(&set(&[many, ("repository_format", "foo")])), 1, "the new one alone");
        assert_eq!(news(&set(&[many, ("transfer-rate-limit", "x")])), 0, "whoever follows it tells of it");
        assert_eq!((news(&Settings::default()), news(&set(&[many]))), (0, 1), "it came back");
    }

    #[test]
    fn w32_a_vcenter_whose_certificate_nobody_checks_is_told_with_its_secret_and_section() {
        let pinned = format!("{CONF}insecure-flag = true\nthumbprint = \"{}\"\n", ["AB"; 20].join(":"));
        let cases = [
            ("the flag", format!("{CONF}insecure-flag = true\n"), vec!["vc.lab"]),
            ("the flag alone on its line", format!("{CONF}insecure-flag\n"), vec!["vc.lab"]),
            ("for all of them", format!("[Global]\ninsecure-flag = 1\n{CONF}"), vec!["vc.lab"]),
            ("a thumbprint counts more", pinned, vec![]),
            ("switched off", format!("{CONF}insecure-flag = \"false\"\n"), vec![]),
        ];
        for (situation, conf, want) in cases {
            let centers = connect(&secret_of(&[("csi-vsphere.conf", &conf)])).unwrap();
            assert_eq!(unverified(&centers), want, "{situation}");
            assert!(centers.source().is_some_and(|source| source.contains("key `csi-vsphere.conf`")), "{situation}");
        }
    }

    #[test]
    fn m7_10_a_section_that_cannot_be_used_keeps_no_other_vcenter_from_it() {
        let second = "[VirtualCenter \"vc-b\"]\nuser = \"u\"\npassword = \"pw\"\nca-file = \"/nowhere/ca.crt\"\n";
        let sections = connected(&[("csi-vsphere.conf", &format!("{CONF}{second}"))]).unwrap();
        let [(_, first), (server, wrong)] = &sections[..] else { panic!("{sections:?}") };
        assert_eq!((first, server.as_str()), (&Ok(()), "vc-b:443"));
        assert!(wrong.as_ref().is_err_and(|problem| problem.reason == Reason::VCenterSecretInvalid), "{wrong:?}");
    }
}
