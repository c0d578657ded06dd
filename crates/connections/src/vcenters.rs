//! The vCenters that their Secret describes, with one session each until the Secret changes, or a file that it names. [`Centers`] knows
//! which of them has a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use api::{Reason, names};
use disk::{DiskId, DiskSnapshot};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::doctor::settings::Mistake;
use lifecycle::flavor::{self, Flavor, Found};
use lifecycle::vcenter;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use tokio::time::timeout;
use vsphere::secret::{SectionError, VirtualCenter};
use vsphere::{Config, Deleted, Trust, Vcenter};

use crate::ca_files::CaFiles;
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
    /// The files that it names, as they are followed.
    files: CaFiles,
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

    /// The vCenters, with the credentials that stand in the Secret now, and the certificates in it or in the files that it names.
    ///
    /// # Errors
    /// `VCenterSecretMissing`, `VCenterSecretInvalid` with the line at fault, `GuestCluster` where there can be none, or
    /// `ClusterUnreachable` when the API server does not answer. Whether a vCenter itself answers shows at the first call.
    pub async fn centers(&self) -> Result<Arc<Centers>, Problem> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        let found = self.secret().await?;
        let mut open = self.open.lock().await;
        current(&mut open, &found, Instant::now()).await
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
                    let because = vcenter::forbidden(place, settings.decoupling_switched_off(flavor.flavor));
                    let because = because.map(|because| format!("; {because}")).unwrap_or_default();
                    let problem = Problem { cause: format!("{}{because}", problem.cause), ..problem };
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

/// The clients that are open, where neither the Secret nor a file that it names has changed since; else new ones in their place.
async fn current(open: &mut Option<Open>, found: &Secret, now: Instant) -> Result<Arc<Centers>, Problem> {
    let version = format!(
        "{}/{}/{}",
        found.namespace().unwrap_or_default(),
        found.name_any(),
        found.resource_version().unwrap_or_default()
    );
    if let Some(open) = open.as_mut().filter(|open| open.source == version) {
        if open.files.changed(now).await {
            let centers = Arc::new(Described::read(found)?.centers(&open.files));
            open.files.taken();
            tracing::info!("a file that `ca-file` in the vCenter Secret names has changed; taking what it says now");
            end(std::mem::replace(&mut open.centers, centers));
        }
        return Ok(open.centers.clone());
    }
    let described = Described::read(found)?;
    let files = CaFiles::read(described.files(), now).await;
    let centers = Arc::new(described.centers(&files));
    warn_of_unverified(&centers); // once for each version of the Secret
    if let Some(old) = open.replace(Open { source: version, files, centers: centers.clone() }) {
        tracing::info!("the vCenter Secret changed; taking the new credentials");
        end(old.centers);
    }
    Ok(centers)
}

/// Ends the sessions of clients that nobody is given any more.
fn end(centers: Arc<Centers>) {
    tokio::spawn(async move { centers.logout().await });
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

/// What a Secret says of vCenters. A section that cannot be used keeps no other one from it.
struct Described<'s> {
    secret: &'s Secret,
    /// The Secret's namespace and name.
    place: String,
    key: String,
    sections: Vec<VirtualCenter>,
    /// Names that nobody reads, and values in quotes that are none.
    slips: Vec<String>,
}

impl<'s> Described<'s> {
    fn read(secret: &'s Secret) -> Result<Self, Problem> {
        let place = format!("{}/{}", secret.namespace().unwrap_or_default(), secret.name_any());
        let keys: Vec<&String> = secret.data.iter().flat_map(|data| data.keys()).collect();
        let key = match (KEYS.iter().find(|key| keys.iter().any(|k| k == *key)), &keys[..]) {
            (Some(key), _) => (*key).to_owned(),
            (None, [only]) => (*only).clone(),
            (None, _) => return Err(invalid(&place, &format!("it has no key `{}`", KEYS[0]))),
        };
        let conf = text(secret, &key).ok_or_else(|| invalid(&place, &format!("`{key}` is not text")))?;
        let sections = vsphere::secret::parse(conf.expose_secret());
        let sections = sections.map_err(|e| invalid(&place, &format!("`{key}`, {e}")))?;
        let slips = vsphere::secret::slips(conf.expose_secret()).iter().map(ToString::to_string).collect();
        Ok(Self { secret, place, key, sections, slips })
    }

    /// The files that say whom to trust and that are not in the Secret itself.
    fn files(&self) -> BTreeSet<PathBuf> {
        let trusting = self.sections.iter().filter(|section| section.thumbprint.is_none());
        let named = trusting.filter_map(|section| section.ca_file.clone());
        named.filter(|path| self.bundled(path).is_none()).collect()
    }

    /// A file that is in the Secret itself: the key of its name.
    fn bundled(&self, path: &Path) -> Option<SecretString> {
        text(self.secret, path.file_name().and_then(|name| name.to_str()).unwrap_or_default())
    }

    /// Clients for these vCenters, with the files as they were read.
    fn centers(&self, files: &CaFiles) -> Centers {
        let (place, key) = (&self.place, &self.key);
        let pem = |path: &Path| match self.bundled(path) {
            Some(pem) => Ok(pem.expose_secret().to_owned()),
            None => files.text(path),
        };
        let mut unread = Vec::new();
        let centers = Centers::new(self.sections.iter().map(|section| {
            let config = section.config(pem).map_err(|e| {
                invalid(place, &format!("`{key}`, {}", Problem::chain(&e))).with_fix(match &e {
                    SectionError::CaFile { path, .. } => {
                        unread.push((format!("{}:{}", section.host, section.port), path.clone()));
                        Some(ca_file_missing(path))
                    }
                    SectionError::Host(_) => None,
                })
            });
            let client = config.and_then(|config| {
                let (at, fix) = match (&config.trust, &section.ca_file) {
                    (Trust::CaFile(_), Some(file)) => {
                        let entry = file.file_name().filter(|_| self.bundled(file).is_some());
                        let entry = entry.map(|name| format!("key `{}` of the Secret", name.to_string_lossy()));
                        let from = entry.as_ref().map(|entry| format!(", which is {entry}")).unwrap_or_default();
                        let at =
                            format!("[VirtualCenter \"{}\"], `ca-file` `{}`{from}: ", section.host, file.display());
                        let into = entry.as_deref().unwrap_or("that file");
                        (at, Some(format!("Put the certificates of vCenter's authority, in PEM, into {into}.")))
                    }
                    _ => (String::new(), None),
                };
                // who makes no request: whether anything but the file is wrong
                let without = Config { trust: Trust::Insecure, ..config.clone() };
                Vcenter::new(config).map_err(|e| {
                    let fix = fix.filter(|_| Vcenter::new(without).is_ok());
                    invalid(place, &format!("{at}{}", Problem::chain(&e))).with_fix(fix)
                })
            });
            let server = client.as_ref().map(|client: &Vcenter| client.config().server());
            (server.unwrap_or_else(|_| format!("{}:{}", section.host, section.port)), client)
        }));
        let source = format!("Secret {place}, key `{key}`");
        centers.read_from(source).with_slips(self.slips.clone()).with_unread(unread)
    }
}

fn invalid(place: &str, why: &str) -> Problem {
    Problem::passing(Reason::VCenterSecretInvalid, format!("read Secret {place}: {why}"))
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
    use crate::ca_files::EVERY;
    use k8s_openapi::ByteString;

    const CONF: &str = "[VirtualCenter \"vc.lab\"]\nuser = \"svc@vsphere.local\"\npassword = \"pw\"\n";

    /// An authority that nobody has the key of.
    const PEM: &str = "-----BEGIN CERTIFICATE-----
MIIBkzCCATmgAwIBAgIUGuqOCiMhw1cwCAq31zRgKihoV0cwCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTYXV0aG9yaXR5IG9mIGEgdGVzdDAgFw0yNjExMjMwMzQ1MTla
GA8yMTI2MTAzMDAzNDUxOVowHjEcMBoGA1UEAwwTYXV0aG9yaXR5IG9mIGEgdGVz
dDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABP6feF2vHJCnMGfdKFGWSCgdl+Gk
Y8OL7buQwO6ACexsOM3G193BNBSLbqHNIsewqTBoDGcnmbXxxhi8aETt+BajUzBR
MB0GA1UdDgQWBBQbLasRgV0nd08VfHiZSjSOy4sNUDAfBgNVHSMEGDAWgBQbLasR
gV0nd08VfHiZSjSOy4sNUDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gA
MEUCIQD7yIW2fhhI7WSfrQB62bKPvRLWhSNSmfz+2+5HCuG7GAIgcSlhH6kQBToh
Qgm5iuD/tnHk2+Y34UxGt/nR9URcWYg=
-----END CERTIFICATE-----
";

    fn secret_of(entries: &[(&str, &str)]) -> Secret {
        let data = entries.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.metadata.namespace = Some("velero".to_owned());
        secret.metadata.name = Some("our-vcenter".to_owned());
        secret
    }

    /// The clients for a Secret that nobody has asked for before.
    fn connect(found: &Secret) -> Result<Arc<Centers>, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(current(&mut None, found, Instant::now()))
    }

    /// Whom the client of the one vCenter trusts.
    fn trusted(centers: &Centers) -> Result<Trust, Problem> {
        centers.only().expect("there is one").map(|vcenter| vcenter.config().trust.clone())
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
        for words in ["Secret velero/our-vcenter", "`csi-vsphere.conf`", "line 3"] {
            assert!(problem.cause.contains(words), "`{words}` in {}", problem.cause);
        }
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
        let words =
            ["vc.lab", "/etc/certs/ca.crt", "which is key `ca.crt` of the Secret", "no certificate in PEM form"];
        let told = useless.expect_err("it holds none");
        assert!(words.iter().all(|word| told.cause.contains(word)), "{}", told.cause);
        assert!(told.message().ends_with("in PEM, into key `ca.crt` of the Secret."), "{}", told.message());
    }

    #[tokio::test]
    async fn a_ca_file_that_is_replaced_or_comes_late_counts_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let conf = format!("{CONF}ca-file = \"{}\"\n", file.display());
        let found = secret_of(&[("csi-vsphere.conf", &conf)]);
        let (mut open, mut now) = (None, Instant::now());
        let centers = current(&mut open, &found, now).await.unwrap();
        let missing = trusted(&centers).expect_err("there is no such file");
        assert_eq!(missing.reason, Reason::VCenterSecretInvalid);
        assert_eq!(centers.unread(centers.all().next().unwrap()), Some(file.as_path()));
        let renewed = format!("{PEM}{PEM}");
        for pem in [PEM, renewed.as_str()] {
            std::fs::write(&file, pem).unwrap();
            now += EVERY;
            let centers = current(&mut open, &found, now).await.unwrap();
            assert_eq!(trusted(&centers), Ok(Trust::CaFile(pem.to_owned())));
            assert_eq!(centers.unread(centers.all().next().unwrap()), None, "it was read");
            now += EVERY;
            let same = current(&mut open, &found, now).await.unwrap();
            assert!(Arc::ptr_eq(&same, &centers), "a file that is as it was costs no session");
        }
        std::fs::remove_file(&file).unwrap();
        now += EVERY;
        let told = trusted(&current(&mut open, &found, now).await.unwrap());
        assert!(told.expect_err("it is gone").cause.contains("line 4"), "as if it had never been there");
    }

    /// The file would be another one where the program runs: the key of its name counts.
    #[tokio::test]
    async fn a_certificate_that_is_replaced_in_the_secret_counts_without_a_restart() {
        let conf = format!("{CONF}ca-file = \"/etc/certs/ca.crt\"\n");
        let renewed = format!("{PEM}{PEM}");
        let (mut open, now) = (None, Instant::now());
        for (version, pem) in [("1", PEM), ("2", renewed.as_str())] {
            let mut found = secret_of(&[("csi-vsphere.conf", &conf), ("ca.crt", pem)]);
            found.metadata.resource_version = Some(version.to_owned());
            let centers = current(&mut open, &found, now).await.unwrap();
            assert_eq!(trusted(&centers), Ok(Trust::CaFile(pem.to_owned())), "version {version}");
            let same = current(&mut open, &found, now).await.unwrap();
            assert!(Arc::ptr_eq(&same, &centers), "version {version}: a Secret that is as it was costs no session");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_changed_in_the_secret_counts_without_a_restart() {
        let (mut open, now) = (None, Instant::now());
        for port in ["443", "8443"] {
            let mut found = secret_of(&[("csi-vsphere.conf", &format!("{CONF}port = {port}\n"))]);
            found.metadata.resource_version = Some(port.to_owned());
            let centers = current(&mut open, &found, now).await.unwrap();
            assert_eq!(centers.only().unwrap().unwrap().config().server(), format!("vc.lab:{port}"));
        }
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
