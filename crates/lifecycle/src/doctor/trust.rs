//! Whether a vCenter is who it says it is: its certificate is checked before the password is sent, unless the Secret says otherwise.

use super::{Finding, Matter};
use crate::Problem;

/// How a certificate was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate<'c> {
    /// By its CA, or by its thumbprint.
    Verified,
    /// Any would have been taken: `insecure-flag` is set.
    Unchecked {
        /// Secret and key that say so.
        source: &'c str,
        /// The section that it counts for.
        section: &'c str,
        /// The thumbprint of the one that was shown, where it is known.
        presented: Option<&'c str>,
    },
}

/// The finding about a vCenter that answers.
pub fn judge(server: &str, api_version: &str, certificate: Certificate<'_>) -> Finding {
    let Certificate::Unchecked { source, section, presented } = certificate else {
        let seen = format!("vCenter {server} answers and its certificate is trusted: API {api_version}");
        return Finding::ok(Matter::VCenter, seen);
    };
    let seen = format!(
        "vCenter {server} answers, and its certificate is not checked: `insecure-flag` is true for [VirtualCenter \"{section}\"] in \
         {source}; API {api_version}"
    );
    let why = "Whoever answers in its place gets the password. The original checked no certificate, whatever the Secret said.";
    let pin = presented.map(|thumbprint| format!(" = \"{thumbprint}\"")).unwrap_or_default();
    let fix = format!(
        "Set `ca-file` (the CA that signed it) there or, after comparing it with the server's, `thumbprint`{pin}: either counts more than \
         `insecure-flag`, which may go then."
    );
    Finding::warning(Matter::VCenter, seen, why, fix)
}

/// A `ca-file` that cannot be read where doctor runs says nothing of the programs: each of them reads its own.
pub fn unread_here(problem: Problem, file: &str) -> Problem {
    let here = format!(
        "`{file}` was looked for where doctor runs. The backup-driver and the data-managers look for it in their own pods: where it is in \
         them, this says nothing against this vCenter, and doctor can look at it from there only."
    );
    let fix = problem.fix.as_deref().map(|fix| format!("{here} Where it is not: {fix}"));
    problem.with_fix(Some(fix.unwrap_or(here)))
}

/// The findings about names in the vCenter Secret that nobody reads, each with its line and the name that may be meant, and about values in
/// quotes that are none.
pub fn judge_slips(source: &str, slips: &[String]) -> Vec<Finding> {
    let tell = |slip: &String| {
        let why = "What that line sets has not the effect that was meant.";
        Finding::warning(Matter::VCenter, format!("{source}, {slip}"), why, "Correct that line.")
    };
    slips.iter().map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slip_in_the_secret_is_a_warning_with_its_place() {
        let slip = "line 6: nobody reads `thumprint`; `thumbprint` may be meant".to_owned();
        let [told] = &judge_slips("Secret velero/mine, key `csi-vsphere.conf`", std::slice::from_ref(&slip))[..] else {
            panic!("one finding")
        };
        assert_eq!((told.verdict, told.matter), (Verdict::Warning, Matter::VCenter));
        assert!(told.seen.contains("velero/mine") && told.seen.contains(&slip), "{}", told.seen);
    }

    #[test]
    fn a_ca_file_that_is_not_where_doctor_runs_is_not_said_to_be_missing_in_the_pods() {
        let problem = Problem::passing(api::Reason::VCenterSecretInvalid, "read the file `/etc/ca.crt`: not found");
        let told = unread_here(problem.clone(), "/etc/ca.crt");
        assert!(told.message().contains("`/etc/ca.crt` was looked for where doctor runs"), "{}", told.message());
        let advised = unread_here(problem.with_fix(Some("Put it into the Secret.".to_owned())), "/etc/ca.crt");
        assert!(!told.message().contains("works"), "whether the vCenter can be used is not known: {}", told.message());
        assert!(advised.message().ends_with("Where it is not: Put it into the Secret."), "{}", advised.message());
        assert_eq!((advised.reason, &advised.cause), (told.reason, &told.cause), "what was met stays as it is");
    }

    #[test]
    fn w32_a_certificate_that_nobody_checks_is_not_called_trusted() {
        let checked = judge("vc.lab:443", "8.0.3.0", Certificate::Verified);
        assert_eq!(checked.verdict, Verdict::Ok);
        assert!(checked.seen.contains("its certificate is trusted"), "{}", checked.seen);
        let source = "Secret velero/mine, key `csi-vsphere.conf`";
        for (presented, pin) in [(Some("AA:BB"), "`thumbprint` = \"AA:BB\""), (None, "`thumbprint`")] {
            let certificate = Certificate::Unchecked { source, section: "vc.lab", presented };
            let told = judge("vc.lab:443", "8.0.3.0", certificate);
            assert_eq!(told.verdict, Verdict::Warning);
            assert!(!told.seen.contains("trusted"), "{}", told.seen);
            for words in [source, "[VirtualCenter \"vc.lab\"]", "insecure-flag"] {
                assert!(told.seen.contains(words), "`{words}` in {}", told.seen);
            }
            assert!(told.fix.contains("ca-file") && told.fix.contains(pin), "{}", told.fix);
        }
    }
}
