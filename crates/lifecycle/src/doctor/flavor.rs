//! Of which flavor the cluster is, and how that came to be known.

use api::Reason;

use super::{Finding, Matter};
use crate::flavor::{Flavor, Found, Source, unknown_word};

/// The finding. `word` is what the user's setting says.
pub fn judge(found: &Found, word: Option<&str>) -> Finding {
    let seen = found.to_string();
    let say = "Set cluster_flavor in ConfigMap velero-vsphere-plugin-config to VANILLA, SUPERVISOR or GUEST.";
    if found.flavor == Flavor::Guest {
        let reason = Reason::GuestCluster;
        return Finding::problem(Matter::Settings, seen, reason.meaning(), reason.fix()).because(reason);
    }
    if let Some(word) = word.filter(|_| found.source != Source::Setting) {
        let seen = found.in_spite_of(word);
        let why = "It is not followed as it is written.";
        return Finding::warning(Matter::Settings, seen, why, say).because(Reason::SettingsInvalid);
    }
    if unknown_word(found).is_some() {
        let why = "Nobody here knows that word, so the cluster counts as an ordinary one.";
        return Finding::warning(Matter::Settings, seen, why, say);
    }
    if matches!(&found.source, Source::Nothing(hidden) if !hidden.is_empty()) {
        let why = "A Supervisor or a guest cluster would be taken for an ordinary one.";
        return Finding::warning(Matter::Settings, seen, why, say).because(Reason::ClusterForbidden);
    }
    Finding::ok(Matter::Settings, seen)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::flavor::{CONTROLLERS, detected, set};

    #[test]
    fn the_flavor_is_told_with_where_it_came_from_and_a_guess_is_a_warning() {
        let driver = |word: &str| Found {
            flavor: Flavor::Vanilla,
            source: Source::Driver(CONTROLLERS[0], Some(word.to_owned())),
        };
        let hidden = Found { flavor: Flavor::Vanilla, source: Source::Nothing(vec![CONTROLLERS[1]]) };
        let guest = Found { flavor: Flavor::Guest, source: Source::Setting };
        let chosen = set(Some("SUPERVISOR")).expect("a flavor");
        let cases = [
            ("the user says it", chosen, Some("SUPERVISOR"), Verdict::Ok, "flavor SUPERVISOR: setting cluster_flavor"),
            ("nobody says anything", detected(&[]), None, Verdict::Ok, "flavor VANILLA"),
            ("the driver says it", driver("VANILLA"), None, Verdict::Ok, "Deployment vmware-system-csi/"),
            ("in small letters", detected(&[]), Some("guest"), Verdict::Warning, "`guest`, which is no flavor"),
            (
                "in small letters",
                detected(&[]),
                Some("vanilla"),
                Verdict::Warning,
                "VANILLA: the setting is not followed",
            ),
            ("a new word", driver("MOON"), None, Verdict::Warning, "`MOON`"),
            ("nobody may look", hidden, None, Verdict::Warning, "may not read Deployment kube-system/"),
            ("a guest", guest, Some("GUEST"), Verdict::Problem, "flavor GUEST"),
        ];
        for (situation, found, word, verdict, words) in cases {
            let finding = judge(&found, word);
            assert_eq!(finding.verdict, verdict, "{situation}");
            assert!(finding.seen.contains(words), "{situation}: {}", finding.seen);
        }
    }
}
