//! Which kind of cluster this is: one with vCenter behind it, a Supervisor, or a guest cluster of one. What was read goes in; nothing
//! is asked here.
//!
//! The user's word counts (`cluster_flavor` in the ConfigMap `velero-vsphere-plugin-config`), else what the vSphere CSI driver was told,
//! else it is an ordinary cluster.

use std::fmt;

use api::Reason;
use k8s_openapi::api::core::v1::PodSpec;

use crate::Problem;

/// The setting that says it.
pub const SETTING: &str = "cluster_flavor";
/// Where the CSI driver's controller may be, in the order in which they are looked at.
pub const CONTROLLERS: [Controller; 3] = [
    Controller { kind: Kind::Deployment, namespace: "vmware-system-csi" },
    Controller { kind: Kind::Deployment, namespace: "kube-system" },
    Controller { kind: Kind::StatefulSet, namespace: "kube-system" },
];
/// What it is called there, and so is its container.
pub const CONTROLLER: &str = "vsphere-csi-controller";
/// The variable of that container that says it.
const VARIABLE: &str = "CLUSTER_FLAVOR";

/// A kind of cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// Its volumes are disks of a vCenter that we may use.
    Vanilla,
    /// The control cluster of vSphere with Tanzu: as an ordinary one, with vCenter's Secret elsewhere.
    Supervisor,
    /// A guest of a Supervisor: its volumes are claims there, and no vCenter is in reach.
    Guest,
}

impl Flavor {
    /// The word that the setting takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vanilla => "VANILLA",
            Self::Supervisor => "SUPERVISOR",
            Self::Guest => "GUEST",
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the CSI driver's controller is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Deployment.
    Deployment,
    /// A StatefulSet, as the oldest drivers.
    StatefulSet,
}

/// One place where the CSI driver's controller may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controller {
    /// What it is made as.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: &'static str,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Deployment => "Deployment",
            Kind::StatefulSet => "StatefulSet",
        };
        write!(f, "{kind} {}/{CONTROLLER}", self.namespace)
    }
}

/// How the flavor came to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The user said it.
    Setting,
    /// The CSI driver's controller was told so; `None` where nothing was said to it.
    Driver(Controller, Option<String>),
    /// Nothing says anything. In these places nobody may look.
    Nothing(Vec<Controller>),
}

/// A flavor, and how it came to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The flavor.
    pub flavor: Flavor,
    /// How it came to be known.
    pub source: Source,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(&format!("setting {SETTING} is not there")))
    }
}

impl Found {
    /// The flavor, and how it came to be known, where the user has set `word`, which is no flavor.
    pub fn in_spite_of(&self, word: &str) -> String {
        let told = self.told("the setting is not followed");
        format!("setting {SETTING} is `{word}`, which is no flavor; {told}")
    }

    /// `unset` is why the setting does not decide.
    fn told(&self, unset: &str) -> String {
        let how = match &self.source {
            Source::Setting => format!("setting {SETTING} says so"),
            Source::Driver(at, Some(word)) => format!("{at} has {VARIABLE} `{word}`"),
            Source::Driver(at, None) => format!("{at} has no {VARIABLE}"),
            Source::Nothing(hidden) if hidden.is_empty() => format!("{unset}, and no {CONTROLLER} was found"),
            Source::Nothing(hidden) => {
                let hidden: Vec<_> = hidden.iter().map(ToString::to_string).collect();
                format!("{unset}, and our account may not read {}", hidden.join(", "))
            }
        };
        format!("cluster flavor {}: {how}", self.flavor)
    }
}

/// What was seen in one place.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// There is none.
    Absent,
    /// Our account may not look.
    Hidden,
    /// Its pods.
    Pods(Box<PodSpec>),
}

/// What the user says. Only the exact words count, as with the original.
pub fn set(word: Option<&str>) -> Option<Found> {
    let flavors = [Flavor::Vanilla, Flavor::Supervisor, Flavor::Guest];
    let flavor = flavors.into_iter().find(|flavor| Some(flavor.as_str()) == word)?;
    Some(Found { flavor, source: Source::Setting })
}

/// What the CSI driver says, where the user says nothing. `seen` belongs to the first of [`CONTROLLERS`], one by one; who has found
/// something need not look further.
pub fn detected(seen: &[Seen]) -> Found {
    let places = || CONTROLLERS.into_iter().zip(seen);
    let found = places().find_map(|(at, seen)| Some((at, said_to(seen)?)));
    let Some((at, word)) = found else {
        let hidden = places().filter(|(_, seen)| **seen == Seen::Hidden).map(|(at, _)| at).collect();
        return Found { flavor: Flavor::Vanilla, source: Source::Nothing(hidden) };
    };
    let flavor = match word.as_deref() {
        Some("WORKLOAD") => Flavor::Supervisor,
        Some("GUEST_CLUSTER") => Flavor::Guest,
        _ => Flavor::Vanilla,
    };
    Found { flavor, source: Source::Driver(at, word) }
}

/// Whether what was seen in one place decides.
pub fn decides(seen: &Seen) -> bool {
    said_to(seen).is_some()
}

/// What the controller's container was told; the outer `None` is that there is no such container.
fn said_to(seen: &Seen) -> Option<Option<String>> {
    let Seen::Pods(pods) = seen else { return None };
    let container = pods.containers.iter().find(|container| container.name == CONTROLLER)?;
    let variable = container.env.iter().flatten().find(|variable| variable.name == VARIABLE);
    Some(variable.and_then(|variable| variable.value.clone()).filter(|word| !word.is_empty()))
}

/// A word of the CSI driver that nobody knows here, so that the cluster counts as an ordinary one.
pub fn unknown_word(found: &Found) -> Option<&str> {
    match &found.source {
        Source::Driver(_, Some(word)) => {
            Some(word.as_str()).filter(|word| !["VANILLA", "WORKLOAD", "GUEST_CLUSTER"].contains(word))
        }
        _ => None,
    }
}

/// Why nothing can be done for volumes of this cluster; `None` where something can. `act` is what was asked for.
pub fn refusal(found: &Found, act: &str) -> Option<Problem> {
    (found.flavor == Flavor::Guest).then(|| {
        let cause = format!(
            "{act}: this is a guest cluster ({found}): its volumes are claims of the Supervisor and no disks of a vCenter \
             in reach, and requests to a Supervisor are not supported yet"
        );
        Problem::lasting(Reason::GuestCluster, cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, EnvVar};

    fn pods(container: &str, word: Option<&str>) -> Seen {
        let variable =
            |word: &str| EnvVar { name: VARIABLE.to_owned(), value: Some(word.to_owned()), value_from: None };
        let container = Container {
            name: container.to_owned(),
            env: word.map(|word| vec![variable(word)]),
            ..Container::default()
        };
        Seen::Pods(Box::new(PodSpec { containers: vec![container], ..PodSpec::default() }))
    }

    #[test]
    fn only_the_exact_words_of_the_setting_count() {
        let cases = [
            (Some("VANILLA"), Some(Flavor::Vanilla)),
            (Some("SUPERVISOR"), Some(Flavor::Supervisor)),
            (Some("GUEST"), Some(Flavor::Guest)),
            (Some("guest"), None),
            (Some("GUEST_CLUSTER"), None),
            (None, None),
        ];
        for (word, want) in cases {
            assert_eq!(set(word).map(|found| found.flavor), want, "{word:?}");
        }
    }

    #[test]
    fn the_first_controller_of_the_csi_driver_says_what_the_cluster_is() {
        use Flavor::{Guest, Supervisor, Vanilla};
        use Seen::{Absent, Hidden};
        let of = |word| pods(CONTROLLER, word);
        let cases: [(&str, &[Seen], Flavor, &str); 9] = [
            ("there is no driver", &[Absent, Absent, Absent], Vanilla, "no vsphere-csi-controller was found"),
            ("it was told nothing", &[of(None)], Vanilla, "Deployment vmware-system-csi/vsphere-csi-controller has no"),
            ("an empty word", &[of(Some(""))], Vanilla, "has no CLUSTER_FLAVOR"),
            ("a Supervisor", &[of(Some("WORKLOAD"))], Supervisor, "has CLUSTER_FLAVOR `WORKLOAD`"),
            ("a guest", &[of(Some("GUEST_CLUSTER"))], Guest, "has CLUSTER_FLAVOR `GUEST_CLUSTER`"),
            ("a word nobody knows", &[of(Some("MOON"))], Vanilla, "`MOON`"),
            ("in kube-system", &[Absent, of(Some("GUEST_CLUSTER"))], Guest, "Deployment kube-system/"),
            (
                "another container, and the oldest driver",
                &[pods("sidecar", Some("WORKLOAD")), Absent, of(Some("GUEST_CLUSTER"))],
                Guest,
                "StatefulSet kube-system/",
            ),
            (
                "nobody may look",
                &[Hidden, Absent, Absent],
                Vanilla,
                "may not read Deployment vmware-system-csi/vsphere-csi-controller",
            ),
        ];
        for (situation, seen, want, words) in cases {
            let found = detected(seen);
            assert_eq!(found.flavor, want, "{situation}");
            assert!(found.to_string().contains(words), "{situation}: {found}");
        }
        assert_eq!(unknown_word(&detected(&[of(Some("MOON"))])), Some("MOON"));
        assert_eq!(unknown_word(&detected(&[of(Some("WORKLOAD"))])), None);
    }

    #[test]
    fn m11_2_a_guest_cluster_is_refused_with_a_reason_and_no_other() {
        let guest = detected(&[pods(CONTROLLER, Some("GUEST_CLUSTER"))]);
        let problem = refusal(&guest, "back up claim shop/data").expect("it is refused");
        assert_eq!((problem.reason, problem.again), (Reason::GuestCluster, crate::Again::Never));
        for words in ["back up claim shop/data: this is a guest cluster", "GUEST_CLUSTER", "cluster_flavor"] {
            assert!(problem.message().contains(words), "`{words}` is not in {}", problem.message());
        }
        assert_eq!(refusal(&set(Some("SUPERVISOR")).expect("a flavor"), "back up"), None);
        assert_eq!(refusal(&detected(&[]), "back up"), None);
    }
}
