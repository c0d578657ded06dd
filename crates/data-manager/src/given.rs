//! The vCenter that the command line names in place of a Secret: so are data-managers started that run outside of the cluster, on
//! virtual machines beside a Supervisor. Names of flags and variable are the original's, but for those that say whom to trust.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use vsphere::{Config, Thumbprint, Trust, Vcenter};

/// The variable that holds the password.
pub(crate) const PASSWORD: &str = "VC_PASSWORD";

/// vCenter without a Secret.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "vCenter without its Secret")]
pub struct Given {
    /// `--use-secret=false`: vCenter is the one that the flags below name, with the password in variable `VC_PASSWORD`. Else its
    /// Secret says which.
    // a flag of Go's: its value stands behind `=` or not at all
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = word)]
    use_secret: Option<bool>,
    /// vCenter's name or address.
    #[arg(long, value_name = "HOST")]
    vcenter_address: Option<String>,
    /// Its port. Absent: 443.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    vcenter_port: Option<u16>,
    /// The account, as `name@domain`.
    #[arg(long, value_name = "USER")]
    vcenter_user: Option<String>,
    /// SHA-1 or SHA-256 thumbprint of the one certificate to trust.
    #[arg(long, value_name = "AA:BB:…")]
    vcenter_thumbprint: Option<Thumbprint>,
    /// File with the certificates of the authorities to trust, in PEM. Absent: the system's.
    #[arg(long, value_name = "FILE")]
    vcenter_ca_file: Option<PathBuf>,
    /// Trusts any certificate: whoever sits between learns the password.
    // the capital is the original's
    #[arg(
        long = "insecure-Flag",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = word
    )]
    insecure_flag: Option<bool>,
}

/// A boolean as Go reads it.
fn word(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

impl Given {
    /// The vCenter that the flags name, with this password; `None` where its Secret says which it is.
    ///
    /// # Errors
    /// When something is missing that only the flags can say, or cannot be used.
    pub fn vcenter(&self, password: Option<OsString>) -> Result<Option<Vcenter>> {
        if self.use_secret != Some(false) {
            return Ok(None);
        }
        let missing = |what: &str| format!("--use-secret=false needs {what}");
        let host = self.vcenter_address.as_deref().filter(|host| !host.is_empty());
        let host = host.with_context(|| missing("--vcenter-address"))?;
        let user = self.vcenter_user.as_deref().filter(|user| !user.is_empty());
        let user = user.with_context(|| missing("--vcenter-user"))?;
        let Some(password) = password.filter(|password| !password.is_empty()) else {
            bail!(missing(&format!("the password in variable {PASSWORD}")));
        };
        let Ok(password) = password.into_string() else { bail!("variable {PASSWORD} is no text") };
        let trust = match (&self.vcenter_thumbprint, &self.vcenter_ca_file) {
            (Some(thumbprint), _) => Trust::Thumbprint(*thumbprint),
            (None, Some(file)) => {
                let read = std::fs::read_to_string(file);
                Trust::CaFile(read.with_context(|| format!("read --vcenter-ca-file {}", file.display()))?)
            }
            (None, None) if self.insecure_flag == Some(true) => Trust::Insecure,
            (None, None) => Trust::SystemRoots,
        };
        let config = Config { port: self.vcenter_port.unwrap_or(443), trust, ..Config::new(host, user, password) };
        Vcenter::new(config).map(Some).with_context(|| match &self.vcenter_ca_file {
            Some(file) => format!("use the vCenter that the flags name, with --vcenter-ca-file {}", file.display()),
            None => "use the vCenter that the flags name".to_owned(),
        })
    }

    /// What a user would miss who names a vCenter without saying that it counts; a sentence for the log.
    pub fn missed(&self) -> Option<&'static str> {
        let names_one = self.vcenter_address.is_some() || self.vcenter_user.is_some();
        (names_one && self.use_secret != Some(false)).then_some(
            "vCenter's address and account come from its Secret: --vcenter-address, --vcenter-port, --vcenter-user and VC_PASSWORD \
             have an effect with --use-secret=false only",
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        given: Given,
    }

    const WHOLE: &str = "--use-secret=false --vcenter-address vc.lab --vcenter-port 8443 --vcenter-user me@lab";

    fn given(line: &str) -> Given {
        Line::try_parse_from(std::iter::once("datamgr").chain(line.split_whitespace())).unwrap().given
    }

    #[test]
    fn m11_1_a_data_manager_outside_of_the_cluster_has_the_vcenter_that_its_flags_name() {
        let thumbprint = ["AB"; 20].join(":");
        let cases = [
            (WHOLE.to_owned(), "vc.lab:8443", Trust::SystemRoots),
            (WHOLE.replace(" --vcenter-port 8443", ""), "vc.lab:443", Trust::SystemRoots),
            (format!("{WHOLE} --insecure-Flag=true"), "vc.lab:8443", Trust::Insecure),
            (format!("{WHOLE} --insecure-Flag=false"), "vc.lab:8443", Trust::SystemRoots),
            (
                format!("{WHOLE} --insecure-Flag --vcenter-thumbprint {thumbprint}"),
                "vc.lab:8443",
                Trust::Thumbprint(thumbprint.parse().unwrap()),
            ),
        ];
        for (line, server, trust) in cases {
            let found = given(&line).vcenter(Some("pw".into())).unwrap().unwrap();
            assert_eq!((found.config().server().as_str(), &found.config().trust), (server, &trust), "{line}");
        }
        for line in ["", "--use-secret", "--use-secret=true --vcenter-address vc.lab"] {
            assert!(given(line).vcenter(Some("pw".into())).unwrap().is_none(), "{line}");
        }
        assert!(given("--vcenter-address vc.lab").missed().is_some_and(|words| words.contains("--use-secret=false")));
        assert_eq!(given(WHOLE).missed(), None);
    }

    #[test]
    fn what_the_flags_leave_out_is_named_and_the_password_is_not() {
        let cases = [
            (WHOLE.replace("--vcenter-address vc.lab", ""), Some("hunter2"), "--vcenter-address"),
            (WHOLE.replace("--vcenter-user me@lab", ""), Some("hunter2"), "--vcenter-user"),
            (WHOLE.to_owned(), None, "VC_PASSWORD"),
            (WHOLE.to_owned(), Some(""), "VC_PASSWORD"),
            (format!("{WHOLE} --vcenter-ca-file /nowhere/ca.pem"), Some("hunter2"), "/nowhere/ca.pem"),
        ];
        for (line, password, words) in cases {
            let said = format!("{:#}", given(&line).vcenter(password.map(OsString::from)).unwrap_err());
            assert!(said.contains(words) && !said.contains("hunter2"), "{line}: {said}");
        }
        assert!(Line::try_parse_from(["datamgr", "--use-secret=perhaps"]).is_err());
        let shown = format!("{:?}", given(WHOLE).vcenter(Some("hunter2".into())).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
