//! `env`: the file that a shell sources to use a lab. Its variables are the lab's face and do not change.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Place;
use crate::facts::{BUCKET, Facts, REGION, SCRATCH_BUCKET, VELERO_NAMESPACE, write_private};

/// Writes `<lab>/env`.
pub(crate) fn write(place: &Place, facts: &Facts, programs: &[PathBuf]) -> Result<()> {
    write_private(&place.folder.join("env"), &text(place, facts, programs)?)
}

fn text(place: &Place, facts: &Facts, programs: &[PathBuf]) -> Result<String> {
    let shown = |path: &Path| path.display().to_string();
    let variables = [
        ("LAB", place.name.clone()),
        ("LAB_ROOT", shown(&place.root)),
        ("KUBECONFIG", shown(&place.folder.join("kubeconfig"))),
        ("VELERO_NAMESPACE", VELERO_NAMESPACE.to_owned()),
        ("S3_ENDPOINT", facts.s3.endpoint.clone()),
        ("S3_BUCKET", BUCKET.to_owned()),
        ("S3_SCRATCH_BUCKET", SCRATCH_BUCKET.to_owned()),
        ("AWS_ACCESS_KEY_ID", facts.s3.user.id.clone()),
        ("AWS_SECRET_ACCESS_KEY", facts.s3.user.secret.clone()),
        ("AWS_REGION", REGION.to_owned()),
        ("VCENTER_URL", facts.vcenter_url()?),
        ("VCENTER_USER", facts.vcenter_user.clone()),
        ("VCENTER_PASSWORD", facts.vcenter_password.clone()),
        ("VCENTER_CA_FILE", shown(&place.folder.join("certificates/ca.pem"))),
        ("LAB_CONTROL_URL", facts.control_url()?),
        ("RESTIC_PASSWORD", facts.restic_password.clone()),
        ("LAB_AUDIT_LOG", shown(&crate::cluster::control_plane::audit_log(&place.folder))),
        ("LAB_S3_SECOND_BUCKET", crate::facts::SECOND_BUCKET.to_owned()),
        ("LAB_S3_SECOND_PREFIX", crate::facts::SECOND_PREFIX.to_owned()),
        ("LAB_S3_SECOND_ACCESS_KEY_ID", facts.s3.second.id.clone()),
        ("LAB_S3_SECOND_SECRET_ACCESS_KEY", facts.s3.second.secret.clone()),
    ];
    let mut text: String = variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    let mut folders: Vec<String> = Vec::new();
    for folder in programs {
        let folder = shown(folder);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    text.push_str(&format!("export PATH=\"{}:$PATH\"\n", folders.join(":")));
    Ok(text)
}

/// A word as a shell reads it back.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+,".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let value = "it's $HOME \"quoted\"";
        let script = format!("x={}; printf %s \"$x\"", quoted(value));
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), value);
    }
}
