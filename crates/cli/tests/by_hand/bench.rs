//! What the tests stand on: a folder, our program, restic, and servers that end with their test.

use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const KEY: &str = "correct horse";
/// Longest time a server of a test may take to listen.
const START: Duration = Duration::from_secs(20);

pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    /// Variables for our program and for restic.
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) place: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("repository").display().to_string();
        Self { folder, variables: vec![("RESTIC_PASSWORD", KEY.to_owned())], place }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn raw(&self, name: &str, size: u64, parts: &[(u64, &[u8])]) -> PathBuf {
        let path = self.file(name);
        let file = std::fs::File::create_new(&path).unwrap();
        file.set_len(size).unwrap();
        parts.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
        path
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RESTIC_") || name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env_remove("RUST_LOG").env_remove("KUBECONFIG");
        command.env("RESTIC_CACHE_DIR", self.file("restic-cache")).current_dir(self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Runs our program on the test's repository.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        command.args(args).args(["--repository", &self.place]).output().unwrap()
    }

    pub(crate) fn keys_of_a_bucket(&mut self) {
        let keys = [("AWS_ACCESS_KEY_ID", "user".to_owned()), ("AWS_SECRET_ACCESS_KEY", "secret".to_owned())];
        self.variables.extend(keys);
    }

    /// Starts our program on the test's repository and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        command.args(args).args(["--repository", &self.place]).stdout(Stdio::null()).stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    }

    /// Runs it and expects this exit code; gives its one JSON document.
    pub(crate) fn document(&self, args: &[&str], code: i32) -> serde_json::Value {
        let output = self.run(&[&["--output", "json"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one document")
    }

    /// Runs it and expects success; gives its standard output.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it and expects this exit code and a message with these words, and never a backtrace.
    pub(crate) fn refused(&self, args: &[&str], code: i32, words: &[&str]) {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: `{word}` is missing in: {said}");
        }
        assert!(!said.contains("stack backtrace") && !said.contains("panicked"), "{said}");
    }

    /// Lock files in the repository, be it in a folder or in [`Store`]'s.
    pub(crate) fn locks(&self) -> usize {
        let folders = ["repository/locks", "s3/bucket/some/prefix/locks"];
        folders.iter().filter_map(|folder| std::fs::read_dir(self.file(folder)).ok()).flatten().count()
    }

    /// Overwrites a snapshot file, so that it cannot be read.
    pub(crate) fn spoil_restore_point(&self, id: &str) {
        let file = self.file(&format!("repository/snapshots/{id}"));
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "this is no snapshot file and has never been one").unwrap();
    }

    /// Changes one byte in the largest pack of the repository's folder.
    pub(crate) fn spoil_a_pack(&self) {
        let folders = std::fs::read_dir(self.file("repository/data")).unwrap().map(|folder| folder.unwrap().path());
        let packs = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|pack| pack.unwrap().path()));
        let pack = packs.max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[5000] ^= 0x40;
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, bytes).unwrap();
    }

    pub(crate) fn restic(&self, args: &[&str]) -> Output {
        let output = self.command("restic").args(["-r", &self.place]).args(args).output().unwrap();
        assert!(output.status.success(), "restic {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// What `docs/repository.md` tells a user without our program to do.
    pub(crate) fn dumped_by_restic(&self, into: &Path) {
        let line = "restic -r \"$PLACE\" dump latest /extents | tar xO | dd of=\"$INTO\" bs=1M iflag=fullblock conv=sparse status=none";
        let mut command = self.command("bash");
        command.args(["-o", "pipefail", "-c", line]).env("PLACE", &self.place).env("INTO", into);
        assert!(command.status().unwrap().success(), "restic dump failed");
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn same(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg(a).arg(b).status().unwrap().success()
}

pub(crate) fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
}

/// A process of the test; ends with its value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // ended already is fine
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let due = Instant::now() + START;
    while !ready() {
        assert!(Instant::now() < due, "{what} took too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// versitygw with one bucket, on a folder of the test.
pub(crate) struct Store {
    pub(crate) process: Running,
    pub(crate) port: u16,
}

impl Store {
    /// Starts it and points the bench's repository to it.
    pub(crate) fn start(bench: &mut Bench) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let gateway = lab::peer("versitygw").unwrap().build(&root).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::create_dir_all(bench.file("s3/bucket")).unwrap();
        let mut server = Command::new(gateway);
        server.env("ROOT_ACCESS_KEY", "user").env("ROOT_SECRET_KEY", "secret");
        server.args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix", text(&bench.file("s3"))]);
        let process = Running(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("versitygw", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        bench.keys_of_a_bucket();
        let store = Self { process, port };
        bench.place = store.place("bucket/some/prefix");
        store
    }

    pub(crate) fn place(&self, path: &str) -> String {
        format!("s3:http://127.0.0.1:{}/{path}", self.port)
    }
}

/// An NBD server of a disk that takes 20 seconds for each read, so that a backup of it is under way for long.
pub(crate) fn slow_disk(bench: &Bench) -> (Running, String) {
    delayed_disk(bench, 64 * MIB, "20")
}

/// An NBD server of a disk of so many bytes, all random, each of whose reads takes so long (`20` seconds, `300ms`).
pub(crate) fn delayed_disk(bench: &Bench, size: u64, each: &str) -> (Running, String) {
    let source = bench.raw("slow.raw", size, &[(0, &random(usize::try_from(size).expect("a small disk")))]);
    let socket = bench.file("slow.sock");
    let mut server = Command::new("nbdkit");
    server.args(["--foreground", "--exit-with-parent", "--unix"]).arg(&socket);
    let server =
        Running(server.args(["--filter=delay", "file"]).arg(&source).arg(format!("rdelay={each}")).spawn().unwrap());
    until("nbdkit", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    (server, format!("nbd+unix:///?socket={}", socket.display()))
}
