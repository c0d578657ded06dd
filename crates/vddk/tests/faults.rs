//! What the library does to us: refuses, fails, hangs, aborts, is not there. Each is an error with a cause, and
//! nothing stays.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise

mod stage;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nbd::{Errno, Fua};
use rustix::process::{Pid, Signal, kill_process};
use stage::{DISK, MIB, Stage, client, eventually, helper_binary, is_running, options, snapshot, writable_disk};
use tokio::io::AsyncWriteExt;
use vddk::catalogue::Advice;
use vddk::order::Order;
use vddk::{Access, Connection, Error, Kind, LaunchOptions};

#[tokio::test]
async fn without_the_library_there_is_one_clear_reason() {
    let stage = Stage::new();
    fs::remove_dir_all(stage.path("vddk")).unwrap();
    let error = stage.launch(snapshot()).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), (Kind::LibraryMissing, Advice::GiveUp));
    assert!(error.to_string().contains("libvixDiskLib.so"), "{error}");
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn a_file_that_is_no_library_is_named() {
    let stage = Stage::new();
    let file = stage.path("vddk/lib64/libvixDiskLib.so.9");
    fs::write(&file, "not a library").unwrap();
    let error = stage.launch(snapshot()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LibraryBroken, "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn another_library_of_that_name_is_told_apart() {
    let stage = Stage::new();
    // a real shared library without the functions
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
    fs::copy(libc.unwrap(), stage.path("vddk/lib64/libvixDiskLib.so.9")).unwrap();
    let error = stage.launch(snapshot()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LibraryBroken, "{error}");
    assert!(error.to_string().contains("VixDiskLib_"), "{error}");
    stage.assert_clean(None).await;
}

/// Nobody could say that a restored disk is stable; every library that knows first-class disks has the function.
#[tokio::test]
async fn a_library_that_cannot_flush_is_refused_before_anything_is_written() {
    let stage = Stage::new();
    let mut library = fs::read(stage.path("vddk/lib64/libvixDiskLib.so.8")).unwrap();
    let name = b"\0VixDiskLib_Flush\0";
    let at: Vec<_> =
        library.windows(name.len()).enumerate().filter(|(_, bytes)| bytes == name).map(|(at, _)| at).collect();
    assert!(!at.is_empty(), "the stand-in has it");
    at.into_iter().for_each(|at| library[at + name.len() - 2] = b'x');
    fs::write(stage.path("vddk/lib64/libvixDiskLib.so.9"), library).unwrap();
    let error = stage.launch(writable_disk()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LibraryBroken, "{error}");
    assert!(error.to_string().contains("it has no function VixDiskLib_Flush"), "{error}");
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn a_library_that_does_not_start_is_broken() {
    let stage = Stage::new();
    stage.script(r#"{"function":"InitEx","action":"fail","code":6}"#);
    let error = stage.launch(snapshot()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LibraryBroken, "{error}");
    assert!(error.to_string().contains("InitEx"), "{error}");
}

#[tokio::test]
async fn a_refused_open_is_explained() {
    let stage = Stage::new();
    for (code, name, cause) in
        [(3014, "HOST_USER_PERMISSIONS", "may not read"), (14009, "HOST_NETWORK_CONN_REFUSED", "902")]
    {
        stage.script(&format!(r#"{{"disk":"{DISK}","function":"Open","action":"fail","code":{code}}}"#));
        let error = stage.launch(snapshot()).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::OpenFailed, Some(code)));
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(cause) && text.contains("Open"), "{text}");
        stage.assert_clean(None).await;
        assert_eq!(stage.open_accesses(), 0, "the access is ended though opening failed");
    }
}

#[tokio::test]
async fn wrong_credentials_thumbprint_and_disk_are_told_apart() {
    let stage = Stage::new();
    let wrong_password = Connection { password: "guess".into(), ..stage.connection() };
    let wrong_thumbprint = Connection { thumbprint: "00:11".into(), ..stage.connection() };
    let missing = vddk::Target { snapshot: Some("gone".parse().unwrap()), ..snapshot() };
    let cases = [
        (wrong_password, snapshot(), 18000, "login"),
        (wrong_thumbprint, snapshot(), 1, "thumbprint"),
        (stage.connection(), missing, 4, "does not exist"),
    ];
    for (connection, target, code, words) in cases {
        let error = stage.launch_with(connection, target, options()).await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn a_bad_spot_fails_its_read_and_no_other() {
    let stage = Stage::new();
    let spot = 5 * MIB + 4096;
    stage.script(&format!(r#"{{"function":"Read","atOffset":{spot},"action":"fail","code":16000}}"#));
    let helper = stage.launch(snapshot()).await.unwrap();
    let disk = client(&helper).await;
    let error = disk.read(5 * MIB, 1 << 20).await.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::Io));
    assert!(error.to_string().contains("16000 (DISK_INVAL)") && !error.is_connection_dead(), "{error}");
    assert_eq!(disk.read(5 * MIB, 4096).await.unwrap().len(), 4096, "just before it");
    assert_eq!(disk.read(6 * MIB, 1 << 20).await.unwrap().len(), 1 << 20, "after it");
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn restore_reports_a_failed_write_and_a_failed_flush() {
    let stage = Stage::new();
    stage.script(
        r#"{"function":"Write","atOffset":0,"action":"fail","code":8}, {"function":"Flush","action":"fail","code":7}"#,
    );
    let helper = stage.launch(writable_disk()).await.unwrap();
    let disk = client(&helper).await;
    let full = disk.write(0, Bytes::from_static(&[1; 512]), Fua::No).await.unwrap_err();
    assert_eq!(full.errno(), Some(Errno::NoSpace), "{full}");
    disk.write(MIB, Bytes::from_static(&[1; 512]), Fua::No).await.unwrap();
    let flush = disk.flush().await.unwrap_err();
    assert!(flush.to_string().contains("Flush failed with 7 (FILE_ERROR)"), "{flush}");
    let unstable = disk.write(MIB, Bytes::from_static(&[1; 512]), Fua::Yes).await;
    assert!(unstable.is_err(), "a write that must be stable is not");
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn restore_reports_a_failed_close_and_still_ends_the_access() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Close","action":"fail","code":7}"#);
    let helper = stage.launch(writable_disk()).await.unwrap();
    let process = helper.process_id();
    let error = helper.stop().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::CloseFailed, Some(7)), "{error}");
    stage.assert_clean(Some(process)).await;
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn a_read_that_hangs_ends_the_helper_and_says_so() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Read","atOffset":1048576,"action":"hang"}"#);
    let quick = LaunchOptions { call_deadline: Duration::from_secs(1), ..options() };
    let helper = stage.launch_with(stage.connection(), snapshot(), quick).await.unwrap();
    let disk = client(&helper).await;
    let started = Instant::now();
    let read = disk.read(MIB, 4096).await.unwrap_err();
    assert!(read.is_connection_dead(), "{read}");
    let cause = helper.exited().await;
    assert!(matches!(&cause, Error::Hung { act, .. } if act == "ReadAsync"), "{cause}");
    assert_eq!(cause.advice(), Advice::Reopen);
    assert!(started.elapsed() < Duration::from_secs(30));
    stage.assert_clean(Some(helper.process_id())).await;
    let stopped = helper.stop().await.unwrap_err();
    assert_eq!(stopped.kind(), Kind::Hung, "who stops learns it too");
}

#[tokio::test]
async fn an_open_that_hangs_meets_the_start_deadline() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Open","action":"hang"}"#);
    let quick = LaunchOptions { start_deadline: Duration::from_secs(2), ..options() };
    let error = stage.launch_with(stage.connection(), snapshot(), quick).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Hung, "{error}");
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn a_close_that_hangs_meets_the_stop_deadline() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Close","action":"hang"}"#);
    let quick = LaunchOptions { stop_deadline: Duration::from_secs(2), ..options() };
    let helper = stage.launch_with(stage.connection(), snapshot(), quick).await.unwrap();
    let process = helper.process_id();
    let error = helper.stop().await.unwrap_err();
    assert!(matches!(&error, Error::Hung { act, .. } if act == "Close"), "{error}");
    stage.assert_clean(Some(process)).await;
}

#[tokio::test]
async fn an_abort_is_reported_with_its_last_words() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Read","action":"abort"}"#);
    let helper = stage.launch(snapshot()).await.unwrap();
    assert!(client(&helper).await.read(0, 512).await.unwrap_err().is_connection_dead());
    let cause = helper.exited().await;
    let Error::Crashed { how, last_log } = &cause else { panic!("{cause}") };
    assert!(how.contains("SIGABRT"), "{how}");
    assert!(last_log.iter().any(|line| line.contains("aborting in Read")), "{last_log:?}");
    assert!(cause.to_string().contains("aborting in Read"), "{cause}");
    stage.assert_clean(Some(helper.process_id())).await;
}

#[tokio::test]
async fn an_access_that_a_killed_helper_left_behind_is_ended_by_the_next() {
    for target in [snapshot(), writable_disk()] {
        let stage = Stage::new();
        let helper = stage.launch(target.clone()).await.unwrap();
        let process = helper.process_id();
        kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::KILL).unwrap();
        let cause = helper.exited().await;
        assert!(matches!(&cause, Error::Crashed { how, .. } if how.contains("SIGKILL")), "{cause}");
        stage.assert_clean(Some(process)).await;
        assert_eq!(stage.open_accesses(), 1, "as a crash leaves it");
        let next = stage.launch(target).await.unwrap();
        next.stop().await.unwrap();
        assert_eq!(stage.open_accesses(), 0);
    }
}

#[tokio::test]
async fn an_open_that_is_disabled_once_is_tried_again_and_no_more() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Open","count":1,"action":"fail","code":20005}"#);
    stage.launch(snapshot()).await.unwrap().stop().await.unwrap();
    stage.script(r#"{"function":"Open","count":2,"action":"fail","code":20005}"#);
    let error = stage.launch(snapshot()).await.unwrap_err();
    assert_eq!((error.code(), error.advice()), (Some(20005), Advice::WaitAndRetry), "{error}");
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn a_helper_that_is_frozen_is_noticed() {
    let stage = Stage::new();
    let quick = LaunchOptions { silence_deadline: Duration::from_secs(2), ..options() };
    let helper = stage.launch_with(stage.connection(), snapshot(), quick).await.unwrap();
    let process = helper.process_id();
    kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::STOP).unwrap();
    let cause = helper.exited().await;
    assert_eq!(cause.kind(), Kind::Hung, "{cause}");
    stage.assert_clean(Some(process)).await;
}

#[tokio::test]
async fn a_terminated_helper_ends_the_access_first() {
    // what the kernel sends when the daemon dies
    let stage = Stage::new();
    let helper = stage.launch(writable_disk()).await.unwrap();
    let process = helper.process_id();
    kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(helper.exited().await.kind(), Kind::Stopped);
    stage.assert_clean(Some(process)).await;
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn a_dropped_helper_leaves_nothing() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    let process = helper.process_id();
    let disk = client(&helper).await;
    drop(helper);
    stage.assert_clean(Some(process)).await;
    eventually("the access is ended", || stage.open_accesses() == 0).await;
    assert!(disk.read(0, 512).await.is_err());
}

#[tokio::test]
async fn a_slow_library_is_not_a_hanging_one() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Read","count":2,"action":"slow","delayMs":700}"#);
    let quick = LaunchOptions { call_deadline: Duration::from_secs(20), ..options() };
    let helper = stage.launch_with(stage.connection(), snapshot(), quick).await.unwrap();
    assert_eq!(client(&helper).await.read(0, 4 << 20).await.unwrap().len(), 4 << 20);
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn when_the_daemon_dies_the_helper_ends_the_access_and_goes() {
    let stage = Stage::new();
    let scratch = stage.path("sockets/vddk-test");
    fs::create_dir(&scratch).unwrap();
    let socket = scratch.join("nbd.sock");
    let order = Order {
        library: stage.path("vddk/lib64/libvixDiskLib.so.8"),
        library_dir: stage.path("vddk"),
        server: "vcenter.example".into(),
        port: 443,
        thumbprint: stage.connection().thumbprint,
        user: stage::USER.into(),
        password: stage::PASSWORD.into(),
        datastore: "datastore-39".into(),
        disk: DISK.into(),
        snapshot: None,
        access: Access::Read,
        identity: "orphan".into(),
        transport_modes: "nbd".into(),
        ports: vddk::Ports::default(),
        library_settings: vddk::LibrarySettings::default(),
        socket: socket.clone(),
        scratch,
        export: DISK.into(),
        call_deadline_ms: 60_000,
        stop_deadline_ms: 60_000,
        heartbeat_ms: 10_000,
    };
    let mut helper = tokio::process::Command::new(helper_binary())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let process = helper.id().unwrap();
    let mut stdin = helper.stdin.take().unwrap();
    let mut line = serde_json::to_vec(&order).unwrap();
    line.push(b'\n');
    stdin.write_all(&line).await.unwrap();
    eventually("the disk is served", || socket.exists()).await;
    assert_eq!(stage.open_accesses(), 1);
    drop(stdin); // all that a daemon that dies can still do
    eventually("the helper is gone", || !is_running(process)).await;
    assert!(helper.wait().await.unwrap().success());
    assert_eq!(stage.open_accesses(), 0);
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn a_helper_without_an_order_says_what_it_is() {
    let output = tokio::process::Command::new(helper_binary()).stdin(Stdio::null()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input"));
}
