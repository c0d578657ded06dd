//! Where vCenter's credentials are looked for. The programs look there, and `doctor` asks whether they may.

use std::collections::BTreeMap;
use std::fmt;

use api::{Reason, names};

use crate::flag;
use crate::flavor::Flavor;

/// Where the CSI driver keeps its own Secret.
pub const CSI_NAMESPACE: &str = "vmware-system-csi";

/// Where the original looked for its Secret, wherever Velero was.
const ORIGINALS_NAMESPACE: &str = "velero";

/// Key in [`names::FEATURES`]: whether the Secret is ours, and not the CSI driver's own.
const DECOUPLED: &str = "decouple-vsphere-csi-driver";

/// A Secret with vCenter's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPlace {
    /// Where it lies; `None` is Velero's own namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl SecretPlace {
    /// Where it lies, Velero's own namespace being that.
    pub fn namespace<'p>(&'p self, velero_namespace: &'p str) -> &'p str {
        self.namespace.as_deref().unwrap_or(velero_namespace)
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => write!(f, "{} in Velero's namespace", self.name),
        }
    }
}

/// Where vCenter's credentials are looked for, best first, by what is set in the ConfigMaps [`names::CONFIG`] and
/// [`names::FEATURES`] and by the cluster's flavor. The CSI driver's own Secret has had two names. In a guest cluster there is none.
pub fn secrets(
    config: &BTreeMap<String, String>,
    features: &BTreeMap<String, String>,
    flavor: Flavor,
) -> Vec<SecretPlace> {
    // an empty value counts as absent
    let set = |map: &BTreeMap<String, String>, key| {
        map.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let is_shared = match flavor {
        Flavor::Guest => return Vec::new(),
        Flavor::Supervisor => true,
        Flavor::Vanilla => !flag::set(features, DECOUPLED, true),
    };
    if is_shared {
        let place = |name: &str| SecretPlace { namespace: Some(CSI_NAMESPACE.to_owned()), name: name.to_owned() };
        return names::CSI_SECRETS.map(place).to_vec();
    }
    // the original's default was the literal `velero`
    let namespace = set(config, "vsphere_secret_namespace");
    let name = set(config, "vsphere_secret_name").unwrap_or_else(|| names::VCENTER_SECRET.to_owned());
    vec![SecretPlace { namespace, name }]
}

/// Where the original found the Secret and nobody looks any more, `looked` being where it was looked for in vain: with a CSI driver before
/// 2.3, that driver's own in `kube-system`; by default the namespace `velero`, wherever Velero was.
fn formerly(looked: &[SecretPlace], flavor: Flavor, velero_namespace: &str) -> Vec<SecretPlace> {
    let place =
        |namespace: &str, name: &str| SecretPlace { namespace: Some(namespace.to_owned()), name: name.to_owned() };
    match looked {
        _ if flavor != Flavor::Vanilla => Vec::new(),
        [SecretPlace { namespace: None, name }] if velero_namespace != ORIGINALS_NAMESPACE => {
            vec![place(ORIGINALS_NAMESPACE, name)]
        }
        [SecretPlace { namespace: Some(namespace), .. }, _] if namespace == CSI_NAMESPACE => {
            names::CSI_SECRETS.map(|name| place("kube-system", name)).to_vec()
        }
        _ => Vec::new(),
    }
}

/// Where a Secret may lie that nobody looks at: where the original found it, and the CSI driver's own.
pub fn elsewhere(looked: &[SecretPlace], flavor: Flavor, velero_namespace: &str) -> Vec<SecretPlace> {
    let mut places = formerly(looked, flavor, velero_namespace);
    if flavor == Flavor::Vanilla {
        let of_csi = [CSI_NAMESPACE, "kube-system"].into_iter().flat_map(|namespace| {
            let namespace = Some(namespace.to_owned());
            names::CSI_SECRETS.map(|name| SecretPlace { namespace: namespace.clone(), name: name.to_owned() })
        });
        for place in of_csi {
            if !looked.contains(&place) && !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// The value of `decouple-vsphere-csi-driver` as it is written, where it makes the Secret the CSI driver's own.
pub fn switched_off(features: &BTreeMap<String, String>, flavor: Flavor) -> Option<&str> {
    let is_off = flavor == Flavor::Vanilla && !flag::set(features, DECOUPLED, true);
    features.get(DECOUPLED).map(String::as_str).filter(|_| is_off)
}

/// What is said of a Secret that our account may not read: which setting makes it the one that is looked for, if one does. `switched_off` is
/// as [`switched_off()`] says.
pub fn forbidden(place: &SecretPlace, switched_off: Option<&str>) -> Option<String> {
    let set = match (switched_off, &place.namespace) {
        (Some(word), _) => format!("`{DECOUPLED}: {word}` in ConfigMap {}", names::FEATURES),
        (None, Some(namespace)) if namespace != CSI_NAMESPACE => {
            format!("`vsphere_secret_namespace: {namespace}` in ConfigMap {}", names::CONFIG)
        }
        (None, _) if place.name != names::VCENTER_SECRET && !names::CSI_SECRETS.contains(&place.name.as_str()) => {
            format!("`vsphere_secret_name: {}` in ConfigMap {}", place.name, names::CONFIG)
        }
        (None, _) => return None,
    };
    Some(format!("it is the one that is looked for because of {set}"))
}

/// What helps where there is no Secret at these places, where it was looked for: one that a setting names is told with the setting.
fn create(looked: &[SecretPlace]) -> String {
    let [SecretPlace { namespace, name }] = looked else {
        return Reason::VCenterSecretMissing.fix().to_owned();
    };
    let namespace = namespace.as_ref().map(|namespace| format!("`vsphere_secret_namespace: {namespace}`"));
    let name = Some(name).filter(|name| *name != names::VCENTER_SECRET);
    let name = name.map(|name| format!("`vsphere_secret_name: {name}`"));
    let set: Vec<String> = namespace.into_iter().chain(name).collect();
    if set.is_empty() {
        return Reason::VCenterSecretMissing.fix().to_owned();
    }
    let what = if set.len() == 1 { "that setting" } else { "those settings" };
    format!(
        "ConfigMap {} names it with {}: create that Secret, or correct {what}; without {} it is {} in the Velero namespace.",
        names::CONFIG,
        set.join(" and "),
        if set.len() == 1 { "it" } else { "them" },
        names::VCENTER_SECRET
    )
}

/// All that helps where there is no Secret at these places, where it was looked for. `there` is where one was seen that nobody looks at;
/// without it the places are told where the original also found one.
pub fn missing(looked: &[SecretPlace], flavor: Flavor, velero_namespace: &str, there: Option<SecretPlace>) -> String {
    let moved = match there {
        Some(there) => moved(&[there], true),
        None => moved(&formerly(looked, flavor, velero_namespace), false),
    };
    let create = create(looked);
    match moved {
        Some(moved) => format!("{create} {moved}"),
        None => create,
    }
}

/// What helps where the Secret is at one of these places, where nobody looks. `is_there`: it was seen there.
fn moved(formerly: &[SecretPlace], is_there: bool) -> Option<String> {
    let first = formerly.first()?;
    let places = formerly.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    let begins = if is_there { "One lies" } else { "The original also found one" };
    let namespace = first.namespace.as_deref().unwrap_or_default();
    let name = if formerly.len() == 1 { first.name.as_str() } else { "its name" };
    let decoupled = if namespace == ORIGINALS_NAMESPACE {
        String::new()
    } else {
        format!(" take `{DECOUPLED}` out of {} where it is there,", names::FEATURES)
    };
    Some(format!(
        "{begins} as {places}: to use that one, set `vsphere_secret_namespace: {namespace}` and `vsphere_secret_name: {name}` in ConfigMap {},\
         {decoupled} and give the same to `vcenterSecret` of the chart's values.",
        names::CONFIG
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_lies_where_the_original_found_it_is_told_with_what_to_set() {
        let (none, mine) = (BTreeMap::new(), BTreeMap::from([("vsphere_secret_name".to_owned(), "mine".to_owned())]));
        let shared = BTreeMap::from([(DECOUPLED.to_owned(), "false".to_owned())]);
        let of_csi = ["kube-system/vsphere-config-secret", "kube-system/csi-vsphere-config"];
        type Set<'s> = &'s BTreeMap<String, String>;
        let cases: [(&str, Set<'_>, Set<'_>, &str, &[&str]); 4] = [
            ("Velero is elsewhere", &none, &none, "backup", &["velero/velero-vsphere-config-secret"]),
            ("Velero is elsewhere, another name", &mine, &none, "backup", &["velero/mine"]),
            ("Velero is where it always was", &none, &none, "velero", &[]),
            ("the CSI driver's own", &none, &shared, "velero", &of_csi),
        ];
        for (situation, config, features, velero, want) in cases {
            let old = formerly(&secrets(config, features, Flavor::Vanilla), Flavor::Vanilla, velero);
            assert_eq!(old.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{situation}");
            let Some(fix) = moved(&old, false) else { continue };
            let namespace = if velero == "velero" { "kube-system" } else { "velero" };
            for words in [want[0], &format!("vsphere_secret_namespace: {namespace}"), "vcenterSecret"] {
                assert!(fix.contains(words), "{situation}: `{words}` in {fix}");
            }
        }
        let of_supervisor = secrets(&none, &none, Flavor::Supervisor);
        assert_eq!(formerly(&of_supervisor, Flavor::Supervisor, "velero"), Vec::new(), "it never lay elsewhere");
    }

    #[test]
    fn a_secret_that_was_seen_elsewhere_is_told_once_and_not_as_one_that_may_be_there_too() {
        let looked = secrets(&BTreeMap::new(), &BTreeMap::new(), Flavor::Vanilla);
        let seen = formerly(&looked, Flavor::Vanilla, "backup").pop();
        assert!(seen.is_some(), "{looked:?}");
        for (there, begins) in [(seen, "One lies as"), (None, "The original also found one as")] {
            let fix = missing(&looked, Flavor::Vanilla, "backup", there);
            assert!(fix.starts_with(Reason::VCenterSecretMissing.fix()) && fix.contains(begins), "{fix}");
            assert_eq!(fix.matches("vsphere_secret_namespace: velero").count(), 1, "{fix}");
        }
        let by_default = missing(&looked, Flavor::Vanilla, "velero", None);
        assert_eq!(by_default, Reason::VCenterSecretMissing.fix(), "it never lay elsewhere");
    }

    #[test]
    fn a_secret_that_a_setting_names_and_nobody_made_is_told_with_the_setting() {
        let place = |namespace: Option<&str>, name: &str| {
            vec![SecretPlace { namespace: namespace.map(str::to_owned), name: name.to_owned() }]
        };
        let by_default = Reason::VCenterSecretMissing.fix();
        assert_eq!(create(&place(None, names::VCENTER_SECRET)), by_default);
        let cases: [(_, &[&str]); 3] = [
            (place(None, "nope"), &["`vsphere_secret_name: nope`"]),
            (place(Some("vault"), names::VCENTER_SECRET), &["`vsphere_secret_namespace: vault`"]),
            (place(Some("vault"), "nope"), &["`vsphere_secret_name: nope`", "`vsphere_secret_namespace: vault`"]),
        ];
        for (looked, want) in cases {
            let fix = create(&looked);
            for words in want.iter().chain(&[names::CONFIG]) {
                assert!(fix.contains(words), "`{words}` in {fix}");
            }
            assert!(!fix.contains(by_default), "{fix}");
        }
    }

    #[test]
    fn the_csi_drivers_own_secret_is_looked_for_where_there_is_none_of_ours() {
        let none = BTreeMap::new();
        let own = ["vmware-system-csi/vsphere-config-secret", "vmware-system-csi/csi-vsphere-config"];
        let old = ["kube-system/vsphere-config-secret", "kube-system/csi-vsphere-config"];
        let places = |features: &BTreeMap<String, String>, flavor: Flavor| -> Vec<String> {
            let found = elsewhere(&secrets(&none, features, flavor), flavor, "velero");
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(places(&none, Flavor::Vanilla), [own, old].concat());
        let shared = BTreeMap::from([(DECOUPLED.to_owned(), "False".to_owned())]);
        assert_eq!(places(&shared, Flavor::Vanilla), old, "where it was looked for already is not told");
        assert_eq!(places(&none, Flavor::Supervisor), Vec::<String>::new());
        let there = SecretPlace { namespace: Some(CSI_NAMESPACE.to_owned()), name: "vsphere-config-secret".to_owned() };
        let fix = moved(&[there], true).unwrap_or_default();
        let set = ["vsphere_secret_namespace: vmware-system-csi", "vsphere_secret_name: vsphere-config-secret"];
        for words in set {
            assert!(fix.contains(words), "`{words}` in {fix}");
        }
        assert_eq!(switched_off(&shared, Flavor::Vanilla), Some("False"));
        let [place, _] = &secrets(&none, &shared, Flavor::Vanilla)[..] else {
            panic!("the driver's own has two names")
        };
        let told = forbidden(place, switched_off(&shared, Flavor::Vanilla));
        assert!(told.is_some_and(|told| told.contains("`decouple-vsphere-csi-driver: False`")), "who set it finds it");
        let [place] = &secrets(&none, &none, Flavor::Vanilla)[..] else { panic!("there is one place") };
        assert_eq!(forbidden(place, None), None, "nobody has set anything");
        assert_eq!((switched_off(&none, Flavor::Vanilla), switched_off(&shared, Flavor::Supervisor)), (None, None));
    }

    #[test]
    fn vcenters_secret_is_looked_for_where_settings_and_flavor_say() {
        type Set = &'static [(&'static str, &'static str)];
        const NAMESPACE: &str = "vsphere_secret_namespace";
        const NAME: &str = "vsphere_secret_name";
        let default = "velero-vsphere-config-secret in Velero's namespace";
        let of_csi = ["vmware-system-csi/vsphere-config-secret", "vmware-system-csi/csi-vsphere-config"];
        let cases: [(&str, Set, Set, Flavor, &[&str]); 12] = [
            ("nothing is set", &[], &[], Flavor::Vanilla, &[default]),
            ("empty words", &[(NAMESPACE, " "), (NAME, "")], &[], Flavor::Vanilla, &[default]),
            ("another name", &[(NAME, "mine")], &[], Flavor::Vanilla, &["mine in Velero's namespace"]),
            (
                "another namespace",
                &[(NAMESPACE, "vault")],
                &[],
                Flavor::Vanilla,
                &["vault/velero-vsphere-config-secret"],
            ),
            ("both", &[(NAMESPACE, "vault"), (NAME, "mine")], &[], Flavor::Vanilla, &["vault/mine"]),
            ("the CSI driver's own", &[(NAME, "mine")], &[(DECOUPLED, "false")], Flavor::Vanilla, &of_csi),
            ("in a word of Go", &[], &[(DECOUPLED, "F")], Flavor::Vanilla, &of_csi),
            ("in another one", &[], &[(DECOUPLED, " 0\n")], Flavor::Vanilla, &of_csi),
            ("no flag", &[], &[(DECOUPLED, "no")], Flavor::Vanilla, &[default]),
            ("not the CSI driver's", &[], &[(DECOUPLED, "true")], Flavor::Vanilla, &[default]),
            ("a Supervisor", &[(NAME, "mine")], &[(DECOUPLED, "true")], Flavor::Supervisor, &of_csi),
            ("a guest", &[(NAME, "mine")], &[], Flavor::Guest, &[]),
        ];
        let map = |set: Set| set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (situation, config, features, flavor, want) in cases {
            let found = secrets(&map(config), &map(features), flavor);
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{situation}");
        }
    }
}
