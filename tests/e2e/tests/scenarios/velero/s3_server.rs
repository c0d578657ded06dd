//! S3 servers of a scenario's own beside the lab's, on the same buckets. They end with their value.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{DEADLINE, World};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::storage_locations::Keys;

/// Pause between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(50);
/// The role of temporary keys.
const ROLE: &str = "backups";

/// A server that takes connections.
pub(super) struct S3Server {
    /// `host:port`.
    pub(super) address: String,
    _child: Child,
    _accounts: Option<Accounts>,
}

impl S3Server {
    /// With a certificate of the lab's authority, and the lab's accounts.
    pub(super) async fn behind_tls(world: &World) -> Result<Self> {
        let certificates = world.folder().join("certificates");
        let options = [
            ("--iam-dir", world.folder().join("s3-accounts")),
            ("--cert", certificates.join("server.pem")),
            ("--key", certificates.join("server-key.pem")),
        ];
        Self::start(world, &options, None).await
    }

    /// That knows no keys but these, which are for a while: they open it together with their token alone.
    pub(super) async fn for_temporary(world: &World, keys: &Keys) -> Result<Self> {
        let accounts = Accounts::start(world, keys).await?;
        Self::start(world, &[("--iam-standalone-endpoint", accounts.endpoint())], Some(accounts)).await
    }

    async fn start(world: &World, options: &[(&str, PathBuf)], accounts: Option<Accounts>) -> Result<Self> {
        let due = Instant::now() + DEADLINE;
        loop {
            // another process may take the port before the server does: then the server ends, and the next port is tried
            let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
            let mut command = versitygw(world)?;
            command.args(["--port", &address, "--region", world.var("AWS_REGION"), "--quiet"]);
            for (name, path) in options {
                command.arg(name).arg(path);
            }
            let mut child = command.arg("posix").arg(world.folder().join("s3")).spawn()?;
            while child.try_wait()?.is_none() {
                if TcpStream::connect(&address).await.is_ok() {
                    return Ok(Self { address, _child: child, _accounts: accounts });
                }
                ensure!(Instant::now() < due, "versitygw does not answer at {address}");
                tokio::time::sleep(LOOK).await;
            }
            ensure!(Instant::now() < due, "versitygw ends as soon as it is started");
        }
    }
}

/// The service that an S3 server asks whose keys those are, and for which token.
struct Accounts {
    folder: TempDir,
    _child: Child,
}

impl Accounts {
    /// Knows one session, as AssumeRole would have given it out: there is nobody here to assume a role.
    async fn start(world: &World, keys: &Keys) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let role = format!("arn:aws:iam::000000000000:role/{ROLE}");
        let policy =
            json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
        let known = json!({
            "roles": {ROLE: {"Path": "/", "RoleName": ROLE, "RoleID": "AROA0", "Arn": role,
                "Policies": {"inline": [{"PolicyName": "all", "PolicyDocument": policy.to_string()}]}}},
            "sessions": {&keys.id: {"accessKeyId": keys.id, "secretAccessKey": keys.secret, "sessionToken": keys.token,
                "roleArn": role, "roleName": ROLE, "roleId": "AROA0", "roleSessionName": "velero",
                "createDate": "2026-01-01T00:00:00Z", "expiration": "2999-01-01T00:00:00Z"}},
        });
        std::fs::write(folder.path().join("iam.json"), known.to_string())?;
        let mut command = versitygw(world)?;
        command.arg("--port").arg(folder.path().join("public")).args(["--quiet", "iam", "--dir"]).arg(folder.path());
        let child = command.arg("--private-ports").arg(folder.path().join("private")).spawn()?;
        let accounts = Self { folder, _child: child };
        let due = Instant::now() + DEADLINE;
        while UnixStream::connect(accounts.endpoint()).await.is_err() {
            ensure!(Instant::now() < due, "the service of accounts does not answer");
            tokio::time::sleep(LOOK).await;
        }
        Ok(accounts)
    }

    fn endpoint(&self) -> PathBuf {
        self.folder.path().join("private")
    }
}

fn versitygw(world: &World) -> Result<Command> {
    let mut program = world.var("PATH").split(':').map(|folder| Path::new(folder).join("versitygw"));
    let program = program.find(|file| file.is_file()).context("versitygw is on the lab's PATH")?;
    let mut command = Command::new(program);
    command.env("ROOT_ACCESS_KEY", "root-of-a-scenario").env("ROOT_SECRET_KEY", "nobody-uses-it");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Ok(command)
}
