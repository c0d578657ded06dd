//! One lab, started and stopped through its command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::process::Command;

use crate::{Control, DEADLINE, Namespace};

/// Pause between two looks at what sends no event.
pub(crate) const LOOK: Duration = Duration::from_millis(300);

/// Whether Velero's server and the scheduler are part of a lab. It starts faster without, and takes our custom resources
/// from whoever writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// They run.
    Runs,
    /// They do not.
    Absent,
}

/// A lab by its name, as its command line is called for it.
#[derive(Clone)]
struct Lab {
    name: String,
    velero: Server,
    /// The name of the lab whose S3 server it uses, where that is not its own.
    s3_of: Option<String>,
}

/// A running lab. [`World::stop`] ends it; `LAB_KEEP=1` leaves it to be looked at.
#[derive(Clone)]
pub struct World {
    lab: Lab,
    env: BTreeMap<String, String>,
    client: kube::Client,
}

impl World {
    /// Starts the lab of that name (or joins it when it runs) with nothing of an earlier run left in it.
    ///
    /// # Errors
    /// When the `lab` program is missing or a part of the lab does not become ready in time.
    pub async fn start(name: &str, velero: Server) -> Result<Self> {
        let lab = Lab { name: name.to_owned(), velero, s3_of: None };
        lab.run(&["clean"]).await?;
        Self::enter(lab).await
    }

    /// Starts a second, empty cluster: another API server and another vCenter, with Velero, on this lab's S3 server. It has
    /// what the documentation says a user has to carry over: the key of the repositories and the storage locations.
    ///
    /// # Errors
    /// As [`World::start`].
    pub async fn second_cluster(&self) -> Result<Self> {
        let name = format!("{}-far", self.lab.name);
        let lab = Lab { name, velero: Server::Runs, s3_of: Some(self.lab.name.clone()) };
        lab.run(&["clean"]).await?;
        Self::enter(lab).await
    }

    /// Starts the lab of that name with its data of an earlier run, or joins it when it runs.
    ///
    /// # Errors
    /// As [`World::start`].
    pub async fn join(name: &str, velero: Server) -> Result<Self> {
        Self::enter(Lab { name: name.to_owned(), velero, s3_of: None }).await
    }

    async fn enter(lab: Lab) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default(); // a second lab finds it installed
        lab.run(&["up"]).await?;
        let file = folder_of(&lab.name).join("env");
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let env = exports(&text);
        let kubeconfig = env.get("KUBECONFIG").context("the lab's env has no KUBECONFIG")?;
        let config =
            kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default())
                .await?;
        Ok(Self { lab, env, client: kube::Client::try_from(config)? })
    }

    /// Stops the lab and forgets its data, unless `LAB_KEEP` is set.
    ///
    /// # Errors
    /// When a process of the lab does not end.
    pub async fn stop(&self) -> Result<()> {
        if std::env::var_os("LAB_KEEP").is_some() {
            return Ok(());
        }
        self.lab.run(&["clean"]).await.map(drop)
    }

    /// A client with every right.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// A variable of the lab's `env` file.
    ///
    /// # Panics
    /// When the lab does not have it: its face is fixed.
    pub fn var(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("the lab's env has no {name}"))
    }

    /// All variables of the lab's `env` file.
    pub fn vars(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The Velero namespace.
    pub fn velero(&self) -> &str {
        self.var("VELERO_NAMESPACE")
    }

    /// Faults and facts of the vCenter double and of the stand-in for VDDK.
    pub fn control(&self) -> Control {
        Control::new(self.var("LAB_CONTROL_URL"))
    }

    /// A namespace of its own for one scenario, with a repository for its claims.
    ///
    /// # Errors
    /// When the API server refuses, or the driver does not answer the repository claim.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        Namespace::create(self, prefix).await
    }

    /// A namespace that is there already, such as one that Velero has made.
    pub fn known_namespace(&self, name: &str) -> Namespace {
        Namespace::known(self, name)
    }

    /// SIGKILL for a process of the lab: `backup-driver`, `data-manager-node-a`, `s3`, …
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn kill(&self, process: &str) -> Result<()> {
        self.lab.run(&["kill", process]).await.map(drop)
    }

    /// Starts a process that was killed.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_process(&self, process: &str) -> Result<()> {
        self.lab.run(&["start", process]).await.map(drop)
    }

    /// Starts a process that was killed, with variables added to its environment.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_process_with(&self, process: &str, env: &[(&str, &str)]) -> Result<()> {
        let variables: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = vec!["start", process];
        arguments.extend(variables.iter().map(String::as_str));
        self.lab.run(&arguments).await.map(drop)
    }

    /// Starts a process anew as the lab has it, whether it runs or not.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart(&self, process: &str) -> Result<()> {
        let _ = self.kill(process).await; // it may have ended by itself
        self.start_process(process).await
    }

    /// SIGTERM for a process of the lab, as a kubelet sends it to a container that is to go; waits until it has ended.
    ///
    /// # Errors
    /// When there is no such process, or it does not end.
    pub async fn terminate(&self, process: &str) -> Result<()> {
        let pid = self.pid(process).await?;
        self.run("kill", &["-TERM", &pid]).await?;
        self.ended(process).await
    }

    /// Starts a second one of a process that runs, with its arguments and its environment but for `env`, and with a log of
    /// its own. It is killed with the value.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn beside(&self, process: &str, env: &[(&str, &str)]) -> Result<tokio::process::Child> {
        self.beside_with(process, &[], env).await
    }

    /// As [`World::beside`], with more arguments.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn beside_with(
        &self,
        process: &str,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Result<tokio::process::Child> {
        let first = Path::new("/proc").join(self.pid(process).await?);
        let arguments = words(&first.join("cmdline"))?;
        let log = std::fs::File::create(self.folder().join(format!("logs/{process}-beside.log")))?;
        let mut second = Command::new(std::fs::read_link(first.join("exe"))?);
        second.args(arguments.iter().skip(1)).args(more).env_clear();
        second.envs(self.environment_of(process).await?).envs(env.iter().copied());
        second
            .current_dir(std::fs::read_link(first.join("cwd"))?)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        second.spawn().with_context(|| format!("start a second {process}"))
    }

    /// The variables that a process of the lab was started with.
    pub(crate) async fn environment_of(&self, process: &str) -> Result<Vec<(String, String)>> {
        let variables = words(&Path::new("/proc").join(self.pid(process).await?).join("environ"))?;
        let split =
            |variable: String| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(variables.into_iter().filter_map(split).collect())
    }

    /// What a process of ours says at `/metrics`.
    ///
    /// # Errors
    /// When it does not run or does not answer.
    pub async fn metrics(&self, process: &str) -> Result<String> {
        let environment = self.environment_of(process).await?;
        let address = environment.iter().find(|(name, _)| name == "METRICS_ADDRESS").map(|(_, value)| value);
        let address = address.with_context(|| format!("{process} has no METRICS_ADDRESS"))?;
        Ok(reqwest::get(format!("http://{address}/metrics")).await?.error_for_status()?.text().await?)
    }

    /// The program of a peer, built where it is not there yet.
    pub(crate) async fn peer(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(self.lab.run(&["peer", name]).await?.trim()))
    }

    pub(crate) async fn pid(&self, process: &str) -> Result<String> {
        let all = self.ps().await?;
        let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut of_it = lines.filter(|words| words.first() == Some(&process) && words.get(1) == Some(&"running"));
        let pid = of_it.find_map(|words| words.get(2).map(|&pid| pid.to_owned()));
        pid.with_context(|| format!("{process} does not run"))
    }

    /// Waits until a process of the lab has ended by itself.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    pub async fn ended(&self, process: &str) -> Result<()> {
        let looking = async {
            loop {
                let all = self.ps().await?;
                let line = all.lines().find(|line| line.split_whitespace().next() == Some(process));
                if line.is_none_or(|line| line.contains(" ended ")) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let looked = tokio::time::timeout(DEADLINE, looking).await;
        looked.with_context(|| format!("waited {} s until {process} ended", DEADLINE.as_secs()))?
    }

    /// The most memory that a process of the lab has held at one time since it started, in MiB (`VmHWM`, proc(5)).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn peak_memory_mib(&self, process: &str) -> Result<u64> {
        Ok(self.memory_kib(process, "VmHWM:").await? / 1024)
    }

    /// The memory that a process holds now, in KiB: its own, without the pages of its program.
    ///
    /// # Errors
    /// When the lab does not answer or the process is gone.
    pub async fn own_memory_kib(&self, process: &str) -> Result<u64> {
        self.memory_kib(process, "RssAnon:").await
    }

    async fn memory_kib(&self, process: &str, line: &str) -> Result<u64> {
        let pid = self.pid(process).await?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
        let said = status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix("kB"));
        Ok(said.with_context(|| format!("no {line} in the process's status"))?.trim().parse()?)
    }

    /// Waits until no process has a file of that disk open: its helper is gone.
    ///
    /// # Errors
    /// When one still has after three minutes: a restore whose object was deleted is stopped by a sweep.
    pub async fn lets_go_of(&self, disk: &str) -> Result<()> {
        let due = tokio::time::Instant::now() + DEADLINE;
        while let Some(process) = holder_of(disk)? {
            if tokio::time::Instant::now() > due {
                bail!("process {process} still has disk {disk} open");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The lab's own folder.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.lab.name)
    }

    /// Where the repository of a source namespace lies on the S3 server's own disk.
    pub fn repository_folder(&self, namespace: &str) -> PathBuf {
        let owner = folder_of(self.lab.s3_of.as_deref().unwrap_or(&self.lab.name));
        let bucket = owner.join("s3").join(self.var("S3_BUCKET"));
        bucket.join("plugins/vsphere-restic-repo").join(namespace)
    }

    /// What a process has logged so far.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn logs(&self, process: &str) -> Result<String> {
        self.lab.run(&["logs", process]).await
    }

    /// What `lab ps` prints.
    ///
    /// # Errors
    /// When the lab is not there.
    pub async fn ps(&self) -> Result<String> {
        self.lab.run(&["ps"]).await
    }

    /// Runs a program with the lab's environment and returns its standard output.
    ///
    /// # Errors
    /// When it ends with another code than 0; the error holds its standard error.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let out = self.output(program, arguments).await?;
        if !out.status.success() {
            bail!("{program} {arguments:?} ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Runs a program with the lab's environment, however it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn output(&self, program: &str, arguments: &[&str]) -> Result<std::process::Output> {
        let path = self.var("PATH").replace("$PATH", &std::env::var("PATH").unwrap_or_default());
        let program_path = path
            .split(':')
            .map(|folder| Path::new(folder).join(program))
            .find(|candidate| candidate.is_file())
            .with_context(|| format!("{program} is not on the lab's PATH"))?;
        let mut command = Command::new(program_path);
        command.args(arguments).envs(&self.env).env("PATH", path).env("LAB", &self.lab.name).current_dir(root());
        Ok(command.output().await?)
    }
}

/// What a file below `/proc` holds, each word ended by a zero.
fn words(file: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(std::fs::read(file).with_context(|| format!("read {}", file.display()))?)?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// A process that has a file below a folder of that name open.
fn holder_of(disk: &str) -> Result<Option<String>> {
    for process in std::fs::read_dir("/proc")?.flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue }; // it has ended meanwhile
        let holds = |link: PathBuf| link.to_string_lossy().contains(&format!("/{disk}/"));
        if open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(holds) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/e2e lies two levels deep").to_owned()
}

/// The folder with the lab's and our own programs: where this test was built.
fn programs() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.ancestors().find(|f| f.join("lab").is_file());
    Ok(folder.context("the `lab` program is not built; run `cargo build --workspace` first")?.to_owned())
}

/// The folder of the lab of that name.
fn folder_of(lab: &str) -> PathBuf {
    root().join(format!("target/lab-{lab}"))
}

impl Lab {
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let out = Command::new(programs()?.join("lab"))
            .args(arguments)
            .env("LAB", &self.name)
            .env("LAB_ROOT", root())
            .env("LAB_S3", self.s3_of.as_deref().unwrap_or("own")) // scenarios look into its folder, and kill it
            .env("LAB_VELERO", if self.velero == Server::Runs { "on" } else { "off" })
            .current_dir(root())
            .output()
            .await?;
        if !out.status.success() {
            bail!(
                "lab {arguments:?} ended with {}: {}{}",
                out.status,
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// The variables of `export NAME=value` lines; values may be quoted as a shell would.
fn exports(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}
