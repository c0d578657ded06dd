//! Whether a vCenter is who it says it is: its certificate is checked before the password is sent, unless the Secret says otherwise.

use super::{Finding, Matter};

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

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

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
