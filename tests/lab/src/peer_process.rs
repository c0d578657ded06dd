//! How the peers beside the cluster are started: the S3 server, the vCenter double, the provisioner. Describes processes;
//! starts none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::facts::{BUCKET, Facts, Keys, REGION, SCRATCH_BUCKET, SECOND_BUCKET, write_private};
use crate::processes::Launch;

/// A peer with the least environment; its secrets never stand in its arguments.
pub(crate) fn launch(name: &str, program: PathBuf, lab: &Path, args: impl IntoIterator<Item = String>) -> Launch {
    let env: BTreeMap<String, String> = [
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME".to_owned(), lab.join("home").display().to_string()),
    ]
    .into();
    let folder = lab.join("home");
    let (name, args) = (name.to_owned(), args.into_iter().collect());
    Launch { name, program, args, env, folder, watched: Vec::new(), takes_children_along: false }
}

/// versitygw over a folder, with its two users in place before it starts.
pub(crate) fn s3(program: PathBuf, lab: &Path, facts: &mut Facts) -> Result<Launch> {
    let address = format!("127.0.0.1:{}", facts.choose_port("s3")?);
    facts.s3.endpoint = format!("http://{address}");
    let accounts = lab.join("s3-accounts");
    let account = |keys: &Keys, role: &str| json!({"access": keys.id, "secret": keys.secret, "role": role});
    let users = json!({"accessAccounts": {
        facts.s3.user.id.clone(): account(&facts.s3.user, "userplus"),
        facts.s3.second.id.clone(): account(&facts.s3.second, "user"),
    }});
    write_private(&accounts.join("users.json"), &users.to_string())?;
    let data = lab.join("s3");
    std::fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
    let args = [
        "--port".to_owned(),
        address,
        "--region".to_owned(),
        REGION.to_owned(),
        "--iam-dir".to_owned(),
        accounts.display().to_string(),
        "--health".to_owned(),
        "/health".to_owned(),
        "--keep-alive".to_owned(),
        "posix".to_owned(),
        data.display().to_string(),
    ];
    let mut launch = launch("s3", program, lab, args);
    launch.env.insert("ROOT_ACCESS_KEY".to_owned(), facts.s3.root.id.clone());
    launch.env.insert("ROOT_SECRET_KEY".to_owned(), facts.s3.root.secret.clone());
    Ok(launch)
}

/// Makes the buckets that are missing, each with its owner.
pub(crate) async fn make_buckets(program: &Path, lab: &Path, facts: &Facts) -> Result<()> {
    let wanted = [(BUCKET, &facts.s3.user), (SCRATCH_BUCKET, &facts.s3.user), (SECOND_BUCKET, &facts.s3.second)];
    for (bucket, owner) in wanted {
        if lab.join("s3").join(bucket).is_dir() {
            continue;
        }
        let made = tokio::process::Command::new(program)
            .args(["admin", "create-bucket", "--bucket", bucket, "--owner", &owner.id])
            .env("ADMIN_ACCESS_KEY_ID", &facts.s3.root.id)
            .env("ADMIN_SECRET_ACCESS_KEY", &facts.s3.root.secret)
            .env("ADMIN_ENDPOINT_URL", &facts.s3.endpoint)
            .env("ADMIN_REGION", REGION)
            .kill_on_drop(true)
            .output();
        let made = tokio::time::timeout(Duration::from_secs(20), made).await.context("make a bucket within 20 s")??;
        if !made.status.success() {
            bail!(
                "make bucket {bucket}: {}{}",
                String::from_utf8_lossy(&made.stdout),
                String::from_utf8_lossy(&made.stderr)
            );
        }
    }
    Ok(())
}

/// The vCenter double that every lab has, and the further one that a test may start.
pub(crate) const VCENTER: &str = "vcenter";
pub(crate) const SECOND_VCENTER: &str = "second-vcenter";

/// Where a vCenter double keeps its disks. The stand-in for the disk library knows the first one's alone.
pub(crate) fn vcenter_store(lab: &Path, name: &str) -> PathBuf {
    lab.join(name)
}

fn vcenter_password(lab: &Path, facts: &Facts) -> Result<String> {
    let file = lab.join("vcenter-password");
    write_private(&file, &facts.vcenter_password)?;
    Ok(file.display().to_string())
}

/// A vCenter double.
pub(crate) fn vcenter(name: &str, program: PathBuf, lab: &Path, facts: &mut Facts) -> Result<Launch> {
    let store = vcenter_store(lab, name);
    std::fs::create_dir_all(&store).with_context(|| format!("make {}", store.display()))?;
    let certificates = lab.join("certificates");
    let args = [
        format!("--listen=127.0.0.1:{}", facts.choose_port(name)?),
        format!("--control=127.0.0.1:{}", facts.choose_port(&format!("{name}-control"))?),
        format!("--store={}", store.display()),
        format!("--cert={}", certificates.join("server.pem").display()),
        format!("--key={}", certificates.join("server-key.pem").display()),
        format!("--user={}", facts.vcenter_user),
        format!("--password-file={}", vcenter_password(lab, facts)?),
    ];
    Ok(launch(name, program, lab, args))
}

/// The stand-in for the CSI driver's controller.
pub(crate) fn provisioner(program: PathBuf, lab: &Path, facts: &Facts) -> Result<Launch> {
    let args = [
        format!("--kubeconfig={}", lab.join("kubeconfig").display()),
        format!("--vcenter={}", facts.vcenter_url()?),
        format!("--user={}", facts.vcenter_user),
        format!("--password-file={}", vcenter_password(lab, facts)?),
        format!("--ca-file={}", lab.join("certificates/ca.pem").display()),
    ];
    Ok(launch("provisioner", program, lab, args))
}
