//! Whether our programs run, and all of one version.

use api::{Reason, Timestamp};

use super::{Finding, Matter};
use crate::flavor::Flavor;

/// A Deployment or DaemonSet of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Such as `Deployment backup-driver`.
    pub name: String,
    /// What is to run; `None`: there is no such object.
    pub state: Option<State>,
}

/// What a workload says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its container's image.
    pub image: String,
    /// How many pods there are to be.
    pub wanted: i32,
    /// How many are ready.
    pub ready: i32,
    /// How many are as its template says now.
    pub current: i32,
}

/// The lease of the active driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Who has it; empty when it was given back.
    pub holder: String,
    /// Until when it lasts unless it is renewed.
    pub until: Option<Timestamp>,
}

/// One finding a workload.
pub fn judge_workload(workload: &Workload) -> Finding {
    let name = &workload.name;
    let Some(state) = &workload.state else {
        let why = "Nobody works on backups and restores: their objects stay as they are.";
        return Finding::problem(Matter::Programs, format!("{name} is not there"), why, "Install the chart.");
    };
    let State { image, wanted, ready, current } = state;
    let seen = format!("{name}: {ready} of {wanted} ready, image {image}");
    let see = format!("See `kubectl describe` of {name} and the logs of its pods.");
    if *wanted == 0 {
        let why = "None is to run: backups and restores wait.";
        return Finding::problem(Matter::Programs, seen, why, "Scale it up, or see its node selector and tolerations.");
    }
    if *ready == 0 {
        return Finding::problem(Matter::Programs, seen, "None runs: backups and restores wait.", see);
    }
    if ready < wanted {
        let why = "The others take their work; on what is missing nothing moves.";
        return Finding::warning(Matter::Programs, seen, why, see);
    }
    if current < wanted {
        let why = "An update is under way, or stands still: programs of two versions work side by side.";
        return Finding::warning(Matter::Programs, seen, why, see);
    }
    Finding::ok(Matter::Programs, seen)
}

/// The DaemonSet of the data-managers. Beside a Supervisor they run on virtual machines, and there is none.
pub fn judge_data_managers(workload: &Workload, flavor: Flavor) -> Finding {
    match (&workload.state, flavor) {
        (None, Flavor::Supervisor) => {
            let seen =
                format!("{} is not there: this is a Supervisor, whose data-managers run outside of it", workload.name);
            Finding::ok(Matter::Programs, seen)
        }
        _ => judge_workload(workload),
    }
}

/// Whether a driver is active; `now` by the clock of the API server.
pub fn judge_leader(leader: Option<&Leader>, now: Timestamp) -> Finding {
    let silent = |seen: String| {
        let why = "Nobody answers new requests: Snapshots and CloneFromSnapshots stay as they are.";
        Finding::problem(Matter::Programs, seen, why, Reason::DriverSilent.fix()).because(Reason::DriverSilent)
    };
    match leader {
        None => silent("no driver was ever active: there is no lease backup-driver".to_owned()),
        Some(Leader { holder, .. }) if holder.is_empty() => silent("no driver is active: it has stopped".to_owned()),
        Some(Leader { holder, until: Some(until) }) if *until >= now => {
            Finding::ok(Matter::Programs, format!("the active driver is {holder}"))
        }
        Some(Leader { holder, .. }) => silent(format!("no driver is active: {holder} renews its lease no more")),
    }
}

/// One finding about the images of all programs, the plugin in Velero included: `(whose, image)`.
pub fn judge_versions(images: &[(String, String)]) -> Option<Finding> {
    let (_, first) = images.first()?;
    let told = || images.iter().map(|(whose, image)| format!("{whose} {image}")).collect::<Vec<_>>().join(", ");
    if images.iter().all(|(_, image)| version(image) == version(first)) {
        return Some(Finding::ok(Matter::Programs, format!("all programs are of version {}", version(first))));
    }
    let why = "Programs of different versions were never tried together: one may not know what the other writes.";
    let fix = "Bring all to the version of the chart; the plugin with `velero plugin remove` and `velero plugin add`.";
    Some(Finding::warning(Matter::Programs, format!("programs are of different versions: {}", told()), why, fix))
}

/// What follows the name of an image: its digest, else its tag. The registry may have a port.
fn version(image: &str) -> &str {
    if let Some((_, digest)) = image.split_once('@') {
        return digest;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map_or("latest", |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::Verdict;
    use super::*;

    #[test]
    fn programs_that_do_not_run_are_told() {
        let of = |wanted, ready, current| Some(State { image: "a/b:1".to_owned(), wanted, ready, current });
        let cases = [
            ("all run", of(3, 3, 3), Verdict::Ok),
            ("not installed", None, Verdict::Problem),
            ("none is to run", of(0, 0, 0), Verdict::Problem),
            ("none runs", of(3, 0, 3), Verdict::Problem),
            ("a node lacks one", of(3, 2, 3), Verdict::Warning),
            ("an update stands still", of(3, 3, 1), Verdict::Warning),
        ];
        for (situation, state, verdict) in cases {
            let told = judge_workload(&Workload { name: "DaemonSet d".to_owned(), state });
            assert_eq!(told.verdict, verdict, "{situation}");
        }
    }

    #[test]
    fn a_supervisor_lacks_no_daemon_set_and_every_other_cluster_does() {
        let absent = Workload { name: "DaemonSet d".to_owned(), state: None };
        let verdict = |flavor| judge_data_managers(&absent, flavor).verdict;
        assert_eq!((verdict(Flavor::Supervisor), verdict(Flavor::Vanilla)), (Verdict::Ok, Verdict::Problem));
    }

    #[test]
    fn a_driver_is_active_only_while_it_renews_its_lease() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (now, later, before) = (at("2026-01-01T00:00:10Z"), at("2026-01-01T00:00:20Z"), at("2026-01-01T00:00:00Z"));
        let leader = |holder: &str, until| Leader { holder: holder.to_owned(), until: Some(until) };
        assert_eq!(judge_leader(Some(&leader("a", later)), now).verdict, Verdict::Ok);
        for silent in [None, Some(leader("a", before)), Some(leader("", later))] {
            let told = judge_leader(silent.as_ref(), now);
            assert_eq!((told.verdict, told.reason), (Verdict::Problem, Some(Reason::DriverSilent)), "{silent:?}");
        }
    }

    #[test]
    fn a_plugin_of_another_version_is_told_whatever_registry_it_comes_from() {
        let of = |all: &[&str]| {
            let images: Vec<_> = all.iter().map(|image| ("program".to_owned(), (*image).to_owned())).collect();
            judge_versions(&images).map(|finding| finding.verdict)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["here:5000/x/plugin:1.2", "there/y:1.2"]), Some(Verdict::Ok));
        assert_eq!(of(&["x:1.2", "x:1.3"]), Some(Verdict::Warning));
        assert_eq!(of(&["here:5000/x", "x:latest"]), Some(Verdict::Ok));
        assert_eq!(of(&["x:1@sha256:aa", "x:1@sha256:bb"]), Some(Verdict::Warning));
    }
}
