//! A real S3 server over a folder, for tests: started, waited for and ended here.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Credentials, S3Options};
use tempfile::TempDir;

const ID: &str = "tester";
const SECRET: &str = "only for this test";
const BUCKET: &str = "backups";
const START: Duration = Duration::from_secs(30);

/// A running server; ends with its value.
pub(crate) struct Versitygw {
    child: Child,
    folder: TempDir,
    port: u16,
    ca_pem: Option<String>,
}

impl Versitygw {
    /// With one empty bucket, without TLS.
    pub(crate) fn start() -> Self {
        Self::start_with(TempDir::new().unwrap(), None, "us-east-1")
    }

    /// The same in another region.
    #[allow(dead_code)] // not every user of this file travels
    pub(crate) fn start_in(region: &str) -> Self {
        Self::start_with(TempDir::new().unwrap(), None, region)
    }

    /// The same behind TLS, with a certificate that only [`Versitygw::options`] knows.
    pub(crate) fn start_with_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self::start_with(folder, Some(made.cert.pem()), "us-east-1")
    }

    fn start_with(folder: TempDir, ca_pem: Option<String>, region: &str) -> Self {
        std::fs::create_dir_all(folder.path().join("root").join(BUCKET)).unwrap();
        let deadline = Instant::now() + START;
        loop {
            // another process may take the port before the server does: then the server ends, and the next port is tried
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = spawn(folder.path(), port, ca_pem.is_some(), region);
            while child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "versitygw does not answer within {START:?}");
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, folder, port, ca_pem };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// How to reach its bucket.
    pub(crate) fn options(&self, prefix: &str) -> S3Options {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://127.0.0.1:{}", self.port).parse().unwrap();
        let credentials = Credentials::Given { id: ID.to_owned(), secret: SECRET.into(), token: None };
        S3Options { credentials, ca_pem: self.ca_pem.clone(), ..S3Options::new(Some(endpoint), BUCKET, prefix) }
    }

    /// Where the bucket's objects lie as files.
    #[allow(dead_code)] // not every user of this file looks
    pub(crate) fn bucket(&self) -> PathBuf {
        self.folder.path().join("root").join(BUCKET)
    }

    /// What restic needs to reach the same place.
    #[allow(dead_code)] // not every user of this file has restic
    pub(crate) fn restic(&self, prefix: &str) -> (String, Vec<(String, String)>) {
        let repository = format!("s3:http://127.0.0.1:{}/{BUCKET}/{prefix}", self.port);
        let environment = [("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        (repository, environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// Ends it; the objects stay.
    #[allow(dead_code)] // not every user of this file kills it
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, port: u16, tls: bool, region: &str) -> Child {
    let mut command = Command::new(program());
    command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "--region", region]);
    if tls {
        command.arg("--cert").arg(folder.join("cert.pem")).arg("--key").arg(folder.join("key.pem"));
    }
    command.arg("posix").arg(folder.join("root"));
    command.env("ROOT_ACCESS_KEY", ID).env("ROOT_SECRET_KEY", SECRET).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("versitygw can be started")
}

/// The lab's: built from a pinned module, once for all.
fn program() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    lab::peer("versitygw").and_then(|peer| peer.build(&workspace)).expect("the lab can build versitygw")
}
