//! BackupRepositoryClaims that no storage location and no snapshot location asks for any more: it was changed or deleted. They are
//! descriptions only, and so are their BackupRepositories; the backups stay in the bucket, and a location that comes back asks anew.
//!
//! Only claims that Velero's plugin made count: their names follow from what they ask for. One that somebody wrote by hand, or has
//! changed since, is never left over, and neither is one of the original's.

use std::collections::HashSet;

use api::parameters::key;
use api::velero::{Backup, BackupStorageLocation, VolumeSnapshotLocation};
use api::{BackupRepositoryClaim, Timestamp, names};

use super::Settings;
use crate::velero::parameters::{DefaultCredentials, is_of_the_plugin, of_snapshot_location, wanted};

/// What Velero has that may ask for a claim. Must have been listed after the claims.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'v> {
    /// Its storage locations.
    pub locations: &'v [BackupStorageLocation],
    /// Its snapshot locations, of whichever plugin.
    pub snapshot_locations: &'v [VolumeSnapshotLocation],
    /// Its backups.
    pub backups: &'v [Backup],
    /// The keys of those that name none.
    pub default: &'v DefaultCredentials,
}

impl Asking<'_> {
    /// Whether every backup's location is there. The claim of one that is not cannot be told apart: no claim names its location.
    fn is_clear(&self) -> bool {
        let there: HashSet<&str> = self.locations.iter().map(BackupStorageLocation::name).collect();
        let named = |backup: &Backup| backup.spec.storage_location.clone().filter(|name| !name.is_empty());
        self.backups.iter().filter_map(named).all(|location| there.contains(location.as_str()))
    }

    fn ask_for(&self, claim: &BackupRepositoryClaim, namespace: &str) -> bool {
        let bucket = claim.repository_parameters.get(key::BUCKET);
        let asks = |location: &BackupStorageLocation| match wanted(location, namespace, self.default) {
            Ok(wanted) => wanted.is_asked_by(claim),
            // while a location cannot be understood, its backups are deleted by the claim that they were made with
            Err(_) => bucket == Some(&location.spec.object_storage.bucket),
        };
        // a snapshot location's way to its bucket is for the namespace that the claim is in, Velero's own
        let of_velero = claim.metadata.namespace.as_deref() == Some(namespace);
        let of_snapshots = || self.snapshot_locations.iter().filter_map(|l| of_snapshot_location(&l.spec.config));
        self.locations.iter().any(asks) || of_velero && of_snapshots().any(|location| asks(&location))
    }
}

/// Those that nobody asks for. `used` are the names of BackupRepositories that any object still holds.
pub fn unasked<'c>(
    claims: &'c [BackupRepositoryClaim],
    asking: Asking<'_>,
    used: &HashSet<String>,
    settings: &Settings,
    now: Timestamp,
) -> Vec<&'c BackupRepositoryClaim> {
    if !asking.is_clear() {
        return Vec::new();
    }
    let is_left = |claim: &&BackupRepositoryClaim| {
        let (Some([namespace]), Some(uid)) = (claim.allowed_namespaces.as_deref(), claim.metadata.uid.as_deref())
        else {
            return false;
        };
        let made = claim.metadata.creation_timestamp.as_ref();
        is_of_the_plugin(claim)
            && claim.metadata.deletion_timestamp.is_none()
            && made.is_some_and(|made| now.duration_since(made.0) >= settings.age)
            && !used.contains(&names::backup_repository(uid))
            && !claim.backup_repository.as_ref().is_some_and(|repository| used.contains(repository))
            && !asking.ask_for(claim, namespace)
    };
    claims.iter().filter(is_left).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::Time;
    use k8s_openapi::jiff::SignedDuration;
    use serde_json::{Value, json};

    const NONE: DefaultCredentials = DefaultCredentials::None;

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn location(name: &str, change: impl FnOnce(&mut Value)) -> BackupStorageLocation {
        let mut spec = json!({
            "provider": "aws", "objectStorage": {"bucket": "b", "prefix": "a"}, "config": {"region": "r"},
            "credential": {"name": "keys", "key": "cloud"},
        });
        change(&mut spec);
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    fn asked() -> BackupStorageLocation {
        location("default", |_| {})
    }

    /// As the plugin makes it for [`asked`], two days ago.
    fn claim() -> BackupRepositoryClaim {
        let mut claim = wanted(&asked(), "shop", &NONE).unwrap().claim("velero");
        claim.metadata.uid = Some("1".to_owned());
        claim.metadata.creation_timestamp = Some(Time(now() - SignedDuration::from_hours(48)));
        claim.backup_repository = Some("br-1".to_owned());
        claim
    }

    fn asking(locations: &[BackupStorageLocation]) -> Asking<'_> {
        Asking { locations, snapshot_locations: &[], backups: &[], default: &NONE }
    }

    fn with(change: impl FnOnce(&mut BackupRepositoryClaim)) -> BackupRepositoryClaim {
        let mut claim = claim();
        change(&mut claim);
        claim
    }

    fn of_location(location: &str) -> Backup {
        serde_json::from_value(json!({"metadata": {"name": "nightly"}, "spec": {"storageLocation": location}})).unwrap()
    }

    fn is_left(claim: BackupRepositoryClaim, asking: Asking<'_>, used: &str) -> bool {
        let used: HashSet<String> = [used.to_owned()].into();
        !unasked(&[claim], asking, &used, &Settings::default(), now()).is_empty()
    }

    #[test]
    fn w42_a_claim_goes_when_no_location_asks_for_it_and_nobody_names_its_repository() {
        let moved = || location("default", |spec| spec["objectStorage"]["bucket"] = json!("elsewhere"));
        let cases = [
            ("its location is as it was", vec![asked()], false),
            ("its location has another name now", vec![location("renamed", |_| {})], false),
            ("its location is gone, and another one is there", vec![moved()], true),
            ("there is no location any more", vec![], true),
            ("one of two locations asks", vec![moved(), location("second", |_| {})], false),
            (
                "its location has another folder",
                vec![location("default", |s| s["objectStorage"]["prefix"] = json!("z"))],
                true,
            ),
            (
                "its location has other keys",
                vec![location("default", |s| s["credential"]["name"] = json!("new"))],
                true,
            ),
            (
                "its location cannot be understood now",
                vec![location("default", |s| s["credential"]["key"] = json!(""))],
                false,
            ),
            (
                "another location cannot be understood",
                vec![location("default", |s| {
                    s["credential"]["key"] = json!("");
                    s["objectStorage"]["bucket"] = json!("elsewhere");
                })],
                true,
            ),
        ];
        for (situation, locations, left) in cases {
            let asking = asking(&locations);
            assert_eq!(is_left(claim(), asking, ""), left, "{situation}");
        }
    }

    #[test]
    fn w42_who_names_its_repository_keeps_a_claim() {
        let locations = [location("new", |spec| spec["objectStorage"]["bucket"] = json!("elsewhere"))];
        let asking = asking(&locations);
        let unbound = || with(|claim| claim.backup_repository = None);
        let cases = [
            ("nobody", claim(), "", true),
            ("an object that names another one", claim(), "br-2", true),
            ("an object that names it", claim(), "br-1", false),
            ("an object that names it before the claim does", unbound(), "br-1", false),
            (
                "one that restored it under another name",
                with(|c| c.backup_repository = Some("br-9".into())),
                "br-9",
                false,
            ),
        ];
        for (situation, claim, used, left) in cases {
            assert_eq!(is_left(claim, asking, used), left, "{situation}");
        }
        let backups = [of_location("new"), of_location("")];
        assert!(is_left(claim(), Asking { backups: &backups, ..asking }, ""), "backups of locations that are there");
        let backups = [of_location("new"), of_location("default")];
        let kept = !is_left(claim(), Asking { backups: &backups, ..asking }, "");
        assert!(kept, "a backup is there whose location is not: it may be the claim's");
    }

    #[test]
    fn w42_a_claim_that_somebody_made_or_changed_by_hand_is_never_left_over() {
        let cases: [(&str, BackupRepositoryClaim); 8] = [
            ("under a name of one's own", with(|c| c.metadata.name = Some("mine".to_owned()))),
            ("under a name like the plugin's", with(|c| c.metadata.name = Some(names::backup_repository_claim("7")))),
            ("a parameter was changed", with(|c| drop(c.repository_parameters.insert("region".into(), "x".into())))),
            ("its Secret was changed", with(|c| c.credential_secret = None)),
            ("for two namespaces", with(|c| c.allowed_namespaces = Some(vec!["shop".into(), "bar".into()]))),
            ("for no namespace", with(|c| c.allowed_namespaces = None)),
            (
                "with keys in clear, as the original writes them",
                with(|c| drop(c.repository_parameters.insert(key::ACCESS_KEY_ID.into(), "AKIA".into()))),
            ),
            (
                "it is young",
                with(|c| c.metadata.creation_timestamp = Some(Time(now() - SignedDuration::from_hours(23)))),
            ),
        ];
        for (situation, claim) in cases {
            let asking = asking(&[]);
            assert!(!is_left(claim, asking, ""), "{situation}");
        }
    }

    #[test]
    fn w42_a_default_secret_that_is_there_again_is_asked_for_again() {
        let location = [location("default", |spec| drop(spec.as_object_mut().unwrap().remove("credential")))];
        let keys = DefaultCredentials::Secret(vec!["cloud".to_owned()]);
        let mut of_default = wanted(&location[0], "shop", &keys).unwrap().claim("velero");
        of_default.metadata = claim().metadata.clone();
        of_default.metadata.name = wanted(&location[0], "shop", &keys).unwrap().claim("velero").metadata.name;
        assert!(!is_left(of_default.clone(), Asking { default: &keys, ..asking(&location) }, ""));
        assert!(is_left(of_default, asking(&location), ""), "backups are made without that Secret now");
    }

    #[test]
    fn a_claim_for_old_backups_stays_as_long_as_their_snapshot_location_and_goes_with_it() {
        let named = |config: Value| -> VolumeSnapshotLocation {
            serde_json::from_value(json!({"spec": {"provider": "velero.io/vsphere", "config": config}})).unwrap()
        };
        let config = json!({"region": "r", "bucket": " old ", "s3Url": "http://s3"});
        let ours = of_snapshot_location(&named(config.clone()).spec.config).unwrap();
        let mut made = wanted(&ours, "velero", &NONE).unwrap().claim("velero");
        made.metadata.uid = Some("1".to_owned());
        made.metadata.creation_timestamp = claim().metadata.creation_timestamp;
        let of_shop = || {
            let mut of_shop = wanted(&ours, "shop", &NONE).unwrap().claim("velero");
            let BackupRepositoryClaim { metadata, .. } = made.clone();
            of_shop.metadata.uid = metadata.uid;
            of_shop.metadata.creation_timestamp = metadata.creation_timestamp;
            of_shop
        };
        let cases = [
            ("its location is as it was", made.clone(), vec![named(config.clone())], false),
            ("another one beside it", made.clone(), vec![named(json!({})), named(config.clone())], false),
            ("its location is gone", made.clone(), vec![], true),
            ("its location names another bucket", made.clone(), vec![named(json!({"bucket": "new"}))], true),
            ("its location names none", made.clone(), vec![named(json!({"region": "r"}))], true),
            (
                "its location cannot be understood now",
                made.clone(),
                vec![named(json!({"bucket": "old", "credentialsFile": "/elsewhere"}))],
                false,
            ),
            (
                "of the same bucket, for a namespace that no snapshot location is for",
                of_shop(),
                vec![named(config)],
                true,
            ),
        ];
        let locations = [asked()];
        for (situation, claim, snapshot_locations, left) in cases {
            let asking = Asking { snapshot_locations: &snapshot_locations, ..asking(&locations) };
            assert_eq!(is_left(claim, asking, ""), left, "{situation}");
        }
    }
}
