//! The user's ConfigMaps, read when needed. A missing map or key means the default, as with the original.

use std::collections::BTreeMap;

use api::parameters::{RepositoryFormat, RepositoryParameters};
use api::{Reason, names};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use lifecycle::admission::{self, Budgets};
use lifecycle::doctor::Finding;
use lifecycle::doctor::settings::{Mistake, judge, mistakes};
use lifecycle::flavor::{self, Flavor};
use lifecycle::limits::{Limits, NoLimits};
use lifecycle::vcenter::{self, SecretPlace};
use lifecycle::{Problem, flag, maintenance, orphans};

use crate::from_kube;
use crate::known::Known;

/// What the user has set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    config: BTreeMap<String, String>,
    features: BTreeMap<String, String>,
}

impl Settings {
    #[cfg(test)]
    pub(crate) fn of(config: BTreeMap<String, String>, features: BTreeMap<String, String>) -> Self {
        Self { config, features }
    }

    /// Reads both ConfigMaps of the Velero namespace.
    ///
    /// # Errors
    /// When the API server does not answer or does not allow it.
    pub async fn read(client: &Client, velero_namespace: &str) -> Result<Self, Problem> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), velero_namespace);
        let (config, features) = (maps.get_opt(names::CONFIG).await, maps.get_opt(names::FEATURES).await);
        Ok(Self { config: data(names::CONFIG, config)?, features: data(names::FEATURES, features)? })
    }

    /// The same, as far as it is known already.
    pub(crate) async fn known(known: &Known, velero_namespace: &str) -> Result<Self, Problem> {
        let maps: Api<ConfigMap> = Api::namespaced(known.client(), velero_namespace);
        let (config, features) = (known.get(&maps, names::CONFIG).await, known.get(&maps, names::FEATURES).await);
        Ok(Self { config: data(names::CONFIG, config)?, features: data(names::FEATURES, features)? })
    }

    /// What is not followed as it is written, and keys that nobody reads.
    #[must_use]
    pub fn mistakes(&self) -> Vec<Mistake> {
        mistakes(&self.config, &self.features)
    }

    /// The same, as `doctor` tells it.
    #[must_use]
    pub fn judged(&self) -> Vec<Finding> {
        judge(&self.config, &self.features)
    }

    /// Where vCenter's Secret is looked for in a cluster of that flavor, best first.
    #[must_use]
    pub fn vcenter_secrets(&self, flavor: Flavor) -> Vec<SecretPlace> {
        vcenter::secrets(&self.config, &self.features, flavor)
    }

    /// `decouple-vsphere-csi-driver` as it is written, where it makes vCenter's Secret the CSI driver's own.
    #[must_use]
    pub fn decoupling_switched_off(&self, flavor: Flavor) -> Option<&str> {
        vcenter::switched_off(&self.features, flavor)
    }

    /// `cluster_flavor` as it is written.
    #[must_use]
    pub fn cluster_flavor(&self) -> Option<&str> {
        set(&self.config, flavor::SETTING)
    }

    /// `upload-cr-retry-max` as it is written.
    pub fn upload_retry_max(&self) -> Option<&str> {
        set(&self.config, "upload-cr-retry-max")
    }

    /// How backups are written into a repository with these parameters: as they say, else as the setting does, else as restic does.
    ///
    /// # Errors
    /// As [`Settings::repository_format`], where the parameters do not say it.
    pub(crate) fn format_of(&self, parameters: &RepositoryParameters) -> Result<RepositoryFormat, Problem> {
        parameters.repository_format.map_or_else(|| self.repository_format(), Ok)
    }

    /// How backups are written where their repository does not say it: `repository_format`.
    ///
    /// # Errors
    /// `SettingsInvalid` for a word that is no format: a backup in another one than was meant would be no gift.
    fn repository_format(&self) -> Result<RepositoryFormat, Problem> {
        let Some(word) = set(&self.config, "repository_format") else { return Ok(RepositoryFormat::default()) };
        RepositoryFormat::from_word(word).ok_or_else(|| {
            let cause = format!("read setting repository_format: it is `{word}`, and may be `restic` or `legacy`");
            Problem::passing(Reason::SettingsInvalid, cause)
        })
    }

    /// How fast the transfers of a node may be.
    ///
    /// # Errors
    /// The setting cannot be read.
    pub fn limits(&self) -> Result<Limits, NoLimits> {
        Limits::read(set(&self.config, "transfer-rate-limit"))
    }

    /// How many Uploads may use one datastore and one ESXi host at a time. A setting that cannot be followed bounds nothing, and is among
    /// the [`Settings::mistakes`].
    pub fn budgets(&self) -> Budgets {
        let read = |setting| set(&self.config, setting).and_then(admission::budget);
        Budgets { datastore: read("uploads-per-datastore"), host: read("uploads-per-host") }
    }

    /// When and how the space of deleted backups is freed.
    pub fn maintenance(&self) -> maintenance::Settings {
        let allowed = flag::set(&self.config, "allow-short-grace", false);
        let (interval, grace) = (set(&self.config, "maintenance-interval"), set(&self.config, "maintenance-grace"));
        maintenance::Settings::read(interval, grace, allowed)
    }

    /// What counts as left over, and whether restore points go.
    pub fn orphans(&self) -> orphans::Settings {
        orphans::Settings::read(set(&self.config, "orphan-age"), set(&self.config, "orphaned-restore-points"))
    }
}

/// An empty value counts as absent.
fn set<'m>(map: &'m BTreeMap<String, String>, key: &str) -> Option<&'m str> {
    map.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
}

fn data(name: &str, read: Result<Option<ConfigMap>, kube::Error>) -> Result<BTreeMap<String, String>, Problem> {
    let map = read.map_err(|e| from_kube(&format!("read ConfigMap {name}"), &e))?;
    Ok(map.and_then(|m| m.data).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_set_means_the_defaults() {
        let none = Settings::default();
        let [place] = &none.vcenter_secrets(Flavor::Vanilla)[..] else { panic!("there is one place") };
        assert_eq!((place.namespace("backup"), place.name.as_str()), ("backup", "velero-vsphere-config-secret"));
        assert_eq!((none.upload_retry_max(), none.cluster_flavor()), (None, None));
    }

    #[test]
    fn a_format_that_nobody_knows_is_not_taken_for_restic() {
        let with = |word: &str| {
            let config = BTreeMap::from([("repository_format".to_owned(), word.to_owned())]);
            Settings { config, ..Settings::default() }.repository_format()
        };
        assert_eq!(Settings::default().repository_format(), Ok(RepositoryFormat::Restic));
        assert_eq!((with("restic"), with("legacy")), (Ok(RepositoryFormat::Restic), Ok(RepositoryFormat::Legacy)));
        let refused = with("Legacy ").map_err(|problem| problem.reason);
        assert_eq!(refused, Err(Reason::SettingsInvalid));
    }

    #[test]
    fn a_backup_is_written_as_its_repository_says_and_else_as_the_setting_does() {
        let (restic, legacy) = (Ok(RepositoryFormat::Restic), Ok(RepositoryFormat::Legacy));
        let cases = [
            ("neither says it", None, None, restic),
            ("the setting alone", None, Some("legacy"), legacy),
            ("the repository alone", Some("legacy"), None, legacy),
            ("the setting says otherwise", Some("restic"), Some("legacy"), restic),
            ("and the other way round", Some("legacy"), Some("restic"), legacy),
            ("a setting that nobody needs is wrong", Some("legacy"), Some("zip"), legacy),
            ("a setting is wrong", None, Some("zip"), Err(Reason::SettingsInvalid)),
        ];
        for (situation, of_repository, of_setting, want) in cases {
            let map = |key: &str, word: Option<&str>| word.map(|word| (key.to_owned(), word.to_owned()));
            let usual = [("region", ""), ("bucket", "b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
            let parameters = usual.into_iter().chain(map("repositoryFormat", of_repository)).collect();
            let parameters = RepositoryParameters::from_map(&parameters).expect("they can be read");
            let settings = Settings::of(map("repository_format", of_setting).into_iter().collect(), BTreeMap::new());
            let format = settings.format_of(&parameters).map_err(|problem| problem.reason);
            assert_eq!(format, want, "{situation}");
        }
    }

    #[test]
    fn a_budget_that_cannot_be_followed_takes_the_other_one_not_away() {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let config = BTreeMap::from([set("uploads-per-datastore", "2"), set("uploads-per-host", "many")]);
        let settings = Settings { config, ..Settings::default() };
        let budgets = settings.budgets();
        assert_eq!((budgets.datastore.map(u32::from), budgets.host), (Some(2), None));
        let [told] = &settings.mistakes()[..] else { panic!("one mistake: {:?}", settings.mistakes()) };
        assert!(told.to_string().contains("uploads-per-host"), "{told}");
    }

    #[test]
    fn an_empty_value_counts_as_absent() {
        let config = BTreeMap::from([("upload-cr-retry-max".to_owned(), " \n".to_owned())]);
        assert_eq!(Settings { config, ..Settings::default() }.upload_retry_max(), None);
    }
}
