//! The user's ConfigMaps: each value that is not followed as it is written, and each key that nobody reads. `doctor` tells of them,
//! and the programs in their logs: of the blocked resources the plugin alone, who reads them.
//!
//! A mistake in a setting leaves its default and fails nothing, but for `repository_format`; so nobody would see it.

use std::collections::BTreeMap;
use std::fmt;

use api::parameters::RepositoryFormat;
use api::{Reason, names};

use super::{Finding, Matter};
use crate::limits::Limits;
use crate::{admission, flag, flavor, maintenance, near, orphans};

/// How backups are written; a word that is none fails them.
const REPOSITORY_FORMAT: &str = "repository_format";
/// The resources that have no group, by their plurals.
const CORE: [&str; 17] = [
    "bindings",
    "componentstatuses",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "serviceaccounts",
    "services",
];
/// Marks, with the original, a ConfigMap with settings of the disk library, whatever its name.
pub const LIBRARY_LABEL: &str = "velero.io/vddk-config";

/// The data of a ConfigMap.
type Map = BTreeMap<String, String>;

/// A key that is read.
struct Key {
    map: &'static str,
    name: &'static str,
    /// What is wrong with a value, and what counts in its place. The map is the whole [`names::CONFIG`].
    wrong: fn(&str, &str, &Map) -> Option<String>,
}

const fn config(name: &'static str, wrong: fn(&str, &str, &Map) -> Option<String>) -> Key {
    Key { map: names::CONFIG, name, wrong }
}

const fn feature(name: &'static str, wrong: fn(&str, &str, &Map) -> Option<String>) -> Key {
    Key { map: names::FEATURES, name, wrong }
}

/// Every key of both.
static KEYS: [Key; 17] = [
    config(flavor::SETTING, no_flavor),
    config("vsphere_secret_namespace", no_name),
    config("vsphere_secret_name", no_name),
    config("upload-cr-retry-max", no_retries),
    config(REPOSITORY_FORMAT, no_format),
    config("transfer-rate-limit", no_limits),
    config("uploads-per-datastore", no_budget),
    config("uploads-per-host", no_budget),
    config("complete_after_snapshot", no_flag_off),
    config("maintenance-interval", no_interval),
    config("maintenance-grace", no_grace),
    config("allow-short-grace", no_flag_off),
    config("orphan-age", no_age),
    config("orphaned-restore-points", no_fate),
    feature("local-mode", no_flag_off),
    feature("csi-migrated-volume-support", no_flag_off),
    feature("decouple-vsphere-csi-driver", no_flag_on),
];

/// Something in a ConfigMap that is not followed as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The ConfigMap.
    pub map: &'static str,
    /// The key as it is written.
    pub key: String,
    /// The key that it is, or may have been meant.
    pub meant: Option<&'static str>,
    /// Whether the key is read, and its value is what is wrong.
    pub is_read: bool,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigMap {}: {}", self.map, self.what)
    }
}

/// All mistakes in the data of [`names::CONFIG`] and [`names::FEATURES`]. An empty value counts as absent.
pub fn mistakes(config: &Map, features: &Map) -> Vec<Mistake> {
    let maps = [(names::CONFIG, config), (names::FEATURES, features)];
    let written =
        maps.into_iter().flat_map(|(map, data)| data.iter().map(move |(key, value)| (map, key, value.trim())));
    written.filter_map(|(map, key, value)| mistake(map, key, value, config)).collect()
}

fn mistake(map: &'static str, key: &str, value: &str, config: &Map) -> Option<Mistake> {
    let exact = KEYS.iter().find(|known| known.name == key);
    if let Some(known) = exact.filter(|known| known.map == map) {
        let what = Some(value).filter(|value| !value.is_empty()).and_then(|value| (known.wrong)(key, value, config))?;
        return Some(Mistake { map, key: key.to_owned(), meant: Some(known.name), is_read: true, what });
    }
    // its value is not repeated: nobody knows what it is
    let meant = exact.or_else(|| near(key));
    let elsewhere = |known: &Key| if known.map == map { String::new() } else { format!(" in ConfigMap {}", known.map) };
    let what = match meant {
        Some(known) => format!("nobody reads the key {key}; {}{} may be meant", known.name, elsewhere(known)),
        None => format!("nobody reads the key {key}"),
    };
    Some(Mistake { map, key: key.to_owned(), meant: meant.map(|known| known.name), is_read: false, what })
}

/// Whether an entry without a group blocks a kind of Kubernetes' own: by its plural, or as Velero takes it, too, its singular.
fn is_core(entry: &str) -> bool {
    CORE.iter().any(|plural| plural.strip_prefix(entry).is_some_and(|ending| matches!(ending, "" | "s" | "es")))
}

/// The mistakes in the data of [`names::BLOCKED_RESOURCES`]: entries that are neither switched on nor off, which are blocked, and entries
/// that no resource is called. An entry without a value is blocked, too, and means no more than that.
pub fn blocked_mistakes(data: &Map) -> Vec<Mistake> {
    let told = |(entry, value): (&String, &String)| {
        let value = value.trim();
        if !entry.contains('.') && !is_core(entry) && flag::read(value) != Some(false) {
            let shown = near::shown(entry);
            let what = format!(
                "no resource of Kubernetes is called {shown}, and it blocks nothing: expected `<plural>.<group>`"
            );
            return Some(Mistake {
                map: names::BLOCKED_RESOURCES,
                key: entry.clone(),
                meant: None,
                is_read: false,
                what,
            });
        }
        let value = Some(value).filter(|value| !value.is_empty())?;
        let what = format!("{}, and it is blocked", no_flag(entry, value, true)?);
        Some(Mistake { map: names::BLOCKED_RESOURCES, key: entry.clone(), meant: None, is_read: true, what })
    };
    data.iter().filter_map(told).collect()
}

/// Findings about that ConfigMap, where there is one.
pub fn judge_blocked(data: Option<&Map>) -> Vec<Finding> {
    data.map(blocked_mistakes).unwrap_or_default().iter().map(finding).collect()
}

/// The findings about both ConfigMaps. What is wrong with the cluster's flavor has a finding of its own.
pub fn judge(config: &Map, features: &Map) -> Vec<Finding> {
    let mut findings: Vec<Finding> = mistakes(config, features)
        .iter()
        .filter(|mistake| !(mistake.is_read && mistake.key == flavor::SETTING))
        .map(finding)
        .collect();
    if findings.is_empty() {
        let seen = format!("ConfigMaps {} and {} can be followed", names::CONFIG, names::FEATURES);
        findings.push(Finding::ok(Matter::Settings, seen));
    }
    findings
}

fn finding(mistake: &Mistake) -> Finding {
    let (seen, reason) = (mistake.to_string(), Reason::SettingsInvalid);
    if mistake.is_read && mistake.key == REPOSITORY_FORMAT {
        let why = "No backup is written whose repository does not name a format itself.";
        return Finding::problem(Matter::Settings, seen, why, reason.fix()).because(reason);
    }
    let why = if mistake.is_read { "It is not followed as it is written." } else { "It has no effect." };
    Finding::warning(Matter::Settings, seen, why, reason.fix()).because(reason)
}

/// Findings about the ConfigMaps that have [`LIBRARY_LABEL`], by their names.
pub fn judge_library_maps(names_of_maps: &[String]) -> Vec<Finding> {
    let others = names_of_maps.iter().filter(|name| *name != names::VDDK_CONFIG);
    let tell = |name: &String| {
        let seen = format!("ConfigMap {name} has label {LIBRARY_LABEL}, and nobody reads it");
        let why = "Settings of the disk library are read from the one ConfigMap of that name, whatever its label: no account of ours \
                   may list ConfigMaps.";
        let fix = format!("Put what it sets into ConfigMap {}, and delete it.", names::VDDK_CONFIG);
        Finding::warning(Matter::Settings, seen, why, fix).because(Reason::SettingsInvalid)
    };
    others.map(tell).collect()
}

/// The known key that this one is a slip of the pen away from, if there is one.
fn near(key: &str) -> Option<&'static Key> {
    near::near(key, &KEYS, |known| known.name)
}

/// A key and its value, as they begin every complaint.
fn is(name: &str, value: &str) -> String {
    format!("{name} is `{}`", near::shown(value))
}

fn no_flag_off(name: &str, value: &str, _: &Map) -> Option<String> {
    no_flag(name, value, false)
}

fn no_flag_on(name: &str, value: &str, _: &Map) -> Option<String> {
    no_flag(name, value, true)
}

fn no_flag(name: &str, value: &str, default: bool) -> Option<String> {
    let counts = || format!("{}, which is neither `true` nor `false`; `{default}` counts", is(name, value));
    flag::read(value).is_none().then(counts)
}

fn no_flavor(name: &str, value: &str, _: &Map) -> Option<String> {
    let counts = || format!("{}, which is none of VANILLA, SUPERVISOR, GUEST; it counts as absent", is(name, value));
    flavor::set(Some(value)).is_none().then(counts)
}

fn no_name(name: &str, value: &str, _: &Map) -> Option<String> {
    let refused =
        || format!("{}, which nothing in Kubernetes is called: expected letters, digits and `-`", is(name, value));
    (!names::is_object_name(value)).then(refused)
}

fn no_retries(name: &str, value: &str, _: &Map) -> Option<String> {
    match value.parse::<i64>() {
        Err(_) => Some(format!("{}, which is no whole number such as `3`; 10 counts", is(name, value))),
        Ok(tries) if tries < 0 => {
            let counts = "which is less than `0`; 0 counts, and no upload that failed is tried again";
            Some(format!("{}, {counts}", is(name, value)))
        }
        Ok(_) => None,
    }
}

fn no_format(name: &str, value: &str, _: &Map) -> Option<String> {
    let refused =
        || format!("{}, which is neither `restic` nor `legacy`; backups fail until it is corrected", is(name, value));
    RepositoryFormat::from_word(value).is_none().then(refused)
}

fn no_limits(name: &str, value: &str, _: &Map) -> Option<String> {
    Limits::read(Some(value)).err().map(|wrong| format!("{name}: {wrong}; nothing is limited"))
}

fn no_budget(name: &str, value: &str, _: &Map) -> Option<String> {
    admission::budget(value)
        .is_none()
        .then(|| format!("{}, which is no whole number above 0; it bounds nothing", is(name, value)))
}

fn no_interval(_: &str, value: &str, _: &Map) -> Option<String> {
    maintenance::Settings::read(Some(value), None, false).refused.pop()
}

fn no_grace(_: &str, value: &str, config: &Map) -> Option<String> {
    let allowed = flag::set(config, "allow-short-grace", false);
    maintenance::Settings::read(None, Some(value), allowed).refused.pop()
}

fn no_age(_: &str, value: &str, _: &Map) -> Option<String> {
    orphans::Settings::read(Some(value), None).refused.pop()
}

fn no_fate(_: &str, value: &str, _: &Map) -> Option<String> {
    orphans::Settings::read(None, Some(value)).refused.pop()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_value_that_is_not_followed_is_named_with_what_was_expected() {
        let (config, features) = (names::CONFIG, names::FEATURES);
        let cases = [
            (config, "upload-cr-retry-max", "many", "no whole number such as `3`; 10 counts"),
            (config, "upload-cr-retry-max", "-1", "less than `0`; 0 counts, and no upload that failed is tried again"),
            (config, "repository_format", "foo", "neither `restic` nor `legacy`"),
            (config, "repository_format", "Legacy", "neither `restic` nor `legacy`"),
            (config, "complete_after_snapshot", "yes", "neither `true` nor `false`; `false` counts"),
            (config, "allow-short-grace", "on", "neither `true` nor `false`"),
            (config, "transfer-rate-limit", "50", "no rule such as"),
            (config, "uploads-per-host", "0", "no whole number above 0"),
            (config, "uploads-per-datastore", "few", "no whole number above 0"),
            (config, "maintenance-interval", "daily", "no time such as `36h`"),
            (config, "maintenance-grace", "1h", "shorter than 72h"),
            (config, "orphan-age", "soon", "no time of an hour or more"),
            (config, "orphaned-restore-points", "delete", "neither `keep` nor `remove`"),
            (config, "vsphere_secret_name", "My Secret", "nothing in Kubernetes is called"),
            (config, "vsphere_secret_namespace", "kube_system", "nothing in Kubernetes is called"),
            (config, "cluster_flavor", "guest", "none of VANILLA, SUPERVISOR, GUEST"),
            (features, "local-mode", "yes", "neither `true` nor `false`; `false` counts"),
            (features, "csi-migrated-volume-support", "on", "neither `true` nor `false`; `false` counts"),
            (features, "decouple-vsphere-csi-driver", "no", "neither `true` nor `false`; `true` counts"),
        ];
        for (of, key, value, expected) in cases {
            let written = map(&[(key, value)]);
            let (config, features) = if of == config { (written, Map::new()) } else { (Map::new(), written) };
            let [told] = &mistakes(&config, &features)[..] else { panic!("one mistake in {key}") };
            let text = told.to_string();
            for words in [of, key, expected] {
                assert!(text.contains(words), "`{words}` in {text}");
            }
            assert!(told.is_read, "{text}");
        }
    }

    #[test]
    fn what_can_be_followed_is_no_mistake() {
        let config = map(&[
            ("cluster_flavor", "VANILLA"),
            ("vsphere_secret_namespace", "vault"),
            ("vsphere_secret_name", "vc.secret-1"),
            ("upload-cr-retry-max", " 0\n"),
            ("repository_format", "legacy"),
            ("transfer-rate-limit", "Mon-Fri 08:00-18:00 50MiB/s; unlimited"),
            ("uploads-per-datastore", "4"),
            ("uploads-per-host", ""),
            ("complete_after_snapshot", "T"),
            ("maintenance-interval", "0s"),
            ("maintenance-grace", "1h"),
            ("allow-short-grace", "True"),
            ("orphan-age", "36h"),
            ("orphaned-restore-points", "remove"),
        ]);
        let features =
            map(&[("local-mode", "f"), ("csi-migrated-volume-support", "1"), ("decouple-vsphere-csi-driver", "0")]);
        assert_eq!(mistakes(&config, &features), Vec::<Mistake>::new());
        assert_eq!(config.len() + features.len(), KEYS.len(), "every key was tried");
        let [all_is_well] = &judge(&config, &features)[..] else { panic!("one finding") };
        assert_eq!(all_is_well.verdict, Verdict::Ok);
    }

    #[test]
    fn a_key_that_nobody_reads_is_named_with_the_one_that_may_be_meant() {
        let cases = [
            (names::CONFIG, "upload_cr_retry_max", "upload-cr-retry-max may be meant"),
            (names::CONFIG, "repository-format", "repository_format may be meant"),
            (names::CONFIG, "transfer-rate-limits", "transfer-rate-limit may be meant"),
            (names::CONFIG, "Cluster-Flavour", "cluster_flavor may be meant"),
            (names::CONFIG, "local-mode", "local-mode in ConfigMap velero-vsphere-plugin-feature-states may be meant"),
            (names::FEATURES, "localmode", "local-mode may be meant"),
            (names::FEATURES, "orphan_age", "orphan-age in ConfigMap velero-vsphere-plugin-config may be meant"),
            (names::FEATURES, "something-else", "nobody reads the key something-else"),
        ];
        for (of, key, expected) in cases {
            let written = map(&[(key, "hunter2")]);
            let (config, features) = if of == names::CONFIG { (written, Map::new()) } else { (Map::new(), written) };
            let [told] = &mistakes(&config, &features)[..] else { panic!("one mistake in {key}") };
            let text = told.to_string();
            assert!(text.contains(of) && text.contains(key) && text.ends_with(expected), "{text}");
            assert!(!told.is_read && !text.contains("hunter2"), "what it holds is not known: {text}");
        }
    }

    #[test]
    fn an_entry_of_the_blocked_resources_that_is_neither_on_nor_off_is_named_with_what_becomes_of_it() {
        let data = map(&[
            ("secrets", " maybe\n"),
            ("widgets.shop.example", "true"),
            ("orders.shop.example", "False"),
            ("events", ""),
        ]);
        let [told] = &blocked_mistakes(&data)[..] else { panic!("one mistake: {:?}", blocked_mistakes(&data)) };
        let text = told.to_string();
        for words in [names::BLOCKED_RESOURCES, "secrets is `maybe`", "neither `true` nor `false`", "it is blocked"] {
            assert!(text.contains(words), "`{words}` in {text}");
        }
        let [found] = &judge_blocked(Some(&data))[..] else { panic!("one finding") };
        assert_eq!((found.verdict, found.seen.as_str()), (Verdict::Warning, text.as_str()));
        assert!(
            crate::velero::blocked::Blocked::read(Some(&data)).entries().any(|entry| entry == "secrets"),
            "so it is"
        );
        assert!(judge_blocked(None).is_empty(), "the default list counts");
        let data = map(&[("nonsense", "true"), ("deployments", ""), ("pods", "true"), ("pod", "true"), ("x", "false")]);
        let told: Vec<String> = judge_blocked(Some(&data)).into_iter().map(|found| found.seen).collect();
        let [deployments, nonsense] = &told[..] else { panic!("two that block nothing: {told:?}") };
        assert!(deployments.contains("is called deployments, and it blocks nothing"), "{deployments}");
        assert!(nonsense.contains("is called nonsense, and it blocks nothing"), "{nonsense}");
    }

    #[test]
    fn a_word_that_fails_backups_is_a_problem_and_the_flavor_is_told_once() {
        let judged = |key: &str, value: &str| judge(&map(&[(key, value)]), &Map::new());
        let verdicts = |findings: Vec<Finding>| findings.into_iter().map(|found| found.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(judged("repository_format", "foo")), [Verdict::Problem]);
        assert_eq!(verdicts(judged("upload-cr-retry-max", "many")), [Verdict::Warning]);
        assert_eq!(verdicts(judged("cluster_flavour", "GUEST")), [Verdict::Warning]);
        assert_eq!(verdicts(judged("cluster_flavor", "guest")), [Verdict::Ok], "it has a finding of its own");
    }

    #[test]
    fn a_long_value_is_cut_and_stays_on_its_line() {
        let text = is("orphan-age", &"ä\n".repeat(100));
        assert!(text.ends_with("…`") && !text.contains('\n') && text.chars().count() < 120, "{text}");
    }

    #[test]
    fn m7_7_a_config_map_for_the_disk_library_that_nobody_reads_is_told() {
        let of = |names_of_maps: &[&str]| {
            let owned: Vec<String> = names_of_maps.iter().map(|name| (*name).to_owned()).collect();
            judge_library_maps(&owned).into_iter().map(|found| found.seen).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(of(&["vddk-config"]), Vec::<String>::new());
        let [told] = &of(&["vddk-config", "vix-settings"])[..] else { panic!("one finding") };
        assert!(told.contains("vix-settings"), "{told}");
    }
}
