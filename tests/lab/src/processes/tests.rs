#![allow(clippy::unwrap_used)] // a test may stop at the first surprise
use super::*;

fn sleeper(name: &str, folder: &Path, script: &str) -> Launch {
    Launch {
        name: name.to_owned(),
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        folder: folder.to_owned(),
        watched: Vec::new(),
        takes_children_along: false,
    }
}

#[tokio::test]
async fn a_started_process_outlives_its_starter_session_and_can_be_killed() {
    let lab = tempfile::tempdir().unwrap();
    let processes = Processes::new(lab.path());
    assert!(processes.start(&sleeper("one", lab.path(), "exec sleep 1000")).unwrap());
    assert!(!processes.start(&sleeper("one", lab.path(), "exec sleep 1000")).unwrap(), "it runs already");
    let record = processes.find("one").unwrap().unwrap();
    let stat = proc::Stat::of(record.pid).unwrap();
    assert_eq!(stat.session, record.pid, "it leads a session of its own");
    processes.kill("one").await.unwrap();
    assert_eq!(record.state(), State::Ended);
}

/// A process that starts a child, and that child once it runs.
async fn parent_and_child(processes: &Processes, lab: &Path, takes_children_along: bool) -> (Record, Pid) {
    let parent = Launch { takes_children_along, ..sleeper("one", lab, "sleep 1000 & wait") };
    processes.start(&parent).unwrap();
    let record = processes.find("one").unwrap().unwrap();
    let child =
        until(Duration::from_secs(10), "the child runs", async || Ok(record.rest_of_session().first().copied()));
    let child = child.await.unwrap();
    (record, child)
}

fn runs(child: Pid) -> bool {
    proc::Stat::of(child.as_raw_nonzero().get()).is_some_and(|stat| !stat.has_ended())
}

#[tokio::test]
async fn who_kills_a_container_kills_what_runs_in_it_and_a_plain_process_leaves_its_children() {
    let lab = tempfile::tempdir().unwrap();
    let processes = Processes::new(lab.path());
    let (_, child) = parent_and_child(&processes, lab.path(), true).await;
    processes.kill("one").await.unwrap();
    until(Duration::from_secs(10), "the child is gone", async || Ok((!runs(child)).then_some(()))).await.unwrap();

    let (_, child) = parent_and_child(&processes, lab.path(), false).await;
    processes.kill("one").await.unwrap();
    assert!(runs(child), "it lives on, as after the kernel has killed one process");
    processes.end_all(Duration::ZERO, &[]).await.unwrap();
    until(Duration::from_secs(10), "the child is gone", async || Ok((!runs(child)).then_some(()))).await.unwrap();
}

#[tokio::test]
async fn a_container_that_crashed_leaves_nothing_behind_when_it_is_started_again() {
    let lab = tempfile::tempdir().unwrap();
    let processes = Processes::new(lab.path());
    let (record, child) = parent_and_child(&processes, lab.path(), true).await;
    record.signal(Signal::KILL).unwrap();
    processes.gone(&record).await.unwrap();
    assert!(runs(child));
    let (_, other) = parent_and_child(&processes, lab.path(), true).await;
    until(Duration::from_secs(10), "the old child is gone", async || Ok((!runs(child)).then_some(()))).await.unwrap();
    assert!(runs(other));
    processes.end_all(Duration::ZERO, &[]).await.unwrap();
}

#[tokio::test]
async fn a_process_that_got_an_old_pid_is_never_ended() {
    let lab = tempfile::tempdir().unwrap();
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let number = i32::try_from(stranger.id()).unwrap();
    let mut record = Record::take("one", number, Path::new("/bin/sleep"), &[]).unwrap();
    record.started_ticks -= 1; // recorded for an earlier process with the same pid
    let processes = Processes::new(lab.path());
    record.write(&processes.record_file("one")).unwrap();
    assert!(processes.kill("one").await.is_err());
    processes.end_all(Duration::ZERO, &[]).await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger still runs");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn what_a_process_has_started_does_not_outlive_the_lab() {
    let lab = tempfile::tempdir().unwrap();
    let processes = Processes::new(lab.path());
    let script = format!("sleep 1000 & echo $! > {}; wait", lab.path().join("child").display());
    processes.start(&sleeper("one", lab.path(), &script)).unwrap();
    let child = until(Duration::from_secs(10), "the child's pid is written", async || {
        Ok(fs::read_to_string(lab.path().join("child")).ok().and_then(|t| t.trim().parse::<i32>().ok()))
    })
    .await
    .unwrap();
    processes.kill("one").await.unwrap(); // the child stays, as kill promises
    assert!(proc::Stat::of(child).is_some_and(|s| !s.has_ended()));
    processes.end_all(Duration::ZERO, &[]).await.unwrap();
    let ended = until(Duration::from_secs(10), "the child ends", async || {
        Ok(proc::Stat::of(child).is_none_or(proc::Stat::has_ended).then_some(()))
    });
    ended.await.unwrap();
    assert!(processes.all().unwrap().is_empty());
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed() {
    let lab = tempfile::tempdir().unwrap();
    let processes = Processes::new(lab.path());
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    processes.start(&sleeper("stubborn", lab.path(), script)).unwrap();
    let log = processes.log_file("stubborn");
    until(Duration::from_secs(10), "it is ready", async || Ok(tail(&log, 9).contains("ready").then_some(())))
        .await
        .unwrap();
    let record = processes.find("stubborn").unwrap().unwrap();
    processes.end("stubborn", Duration::from_millis(200)).await.unwrap();
    assert_eq!(record.state(), State::Ended);
}

#[test]
fn a_rebuilt_program_is_noticed() {
    let lab = tempfile::tempdir().unwrap();
    let program = lab.path().join("program");
    fs::write(&program, "one").unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let record = Record::take("one", me, &program, std::slice::from_ref(&program)).unwrap();
    assert!(!record.is_outdated());
    fs::write(&program, "other").unwrap();
    assert!(record.is_outdated());
}

#[tokio::test]
async fn a_server_that_was_restarted_is_still_ended_after_those_who_need_it() {
    let lab = tempfile::tempdir().unwrap();
    let processes = Processes::new(lab.path());
    let told = lab.path().join("told");
    let script = |name: &str| {
        let line =
            format!("trap 'echo {name} >> {}; exit' TERM; echo ready; while :; do sleep 0.01; done", told.display());
        sleeper(name, lab.path(), &line)
    };
    for name in ["client", "server"] {
        processes.start(&script(name)).unwrap();
        let log = processes.log_file(name);
        until(Duration::from_secs(10), "it is ready", async || Ok(tail(&log, 9).contains("ready").then_some(())))
            .await
            .unwrap();
    }
    processes.end_all(Duration::from_secs(10), &["server"]).await.unwrap();
    assert_eq!(fs::read_to_string(told).unwrap(), "client\nserver\n");
}
