//! What is refused, and that the message and the advice are true.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::bench::{Bench, MIB, Running, until};

#[test]
fn a_repository_of_a_kind_we_do_not_know_makes_no_folder() {
    let mut bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    for place in ["b2:x", "gs:x", "azure:x", "rclone:x:y", "sftp:x", "rest:x", "swift:x"] {
        bench.place = place.to_owned();
        bench.refused(&["backup", "disk.raw"], 2, &["not supported", "a folder, or s3:", "./"]);
        assert!(!bench.file(place).exists(), "{place} became a folder");
    }
    bench.place = "./b2:x".to_owned();
    bench.done(&["backup", "disk.raw"]);
    assert!(bench.file("b2:x/config").exists());
    bench.place = "s3:http://127.0.0.1:9/bucket?versionId=1".to_owned();
    bench.refused(&["list"], 2, &["would be ignored"]);
}

#[test]
fn keys_in_an_address_are_not_repeated_on_the_terminal() {
    let mut bench = Bench::new();
    bench.place = "s3:http://user:pw12345@host/bucket".to_owned();
    let output = bench.run(&["list", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("pw12345"), "{}", String::from_utf8_lossy(&said));
    assert!(String::from_utf8_lossy(&said).contains("holds keys"));
}

#[test]
fn a_bucket_without_a_key_to_it_is_said_to_be_so() {
    let mut bench = Bench::new();
    bench.place = "s3:http://127.0.0.1:9/bucket".to_owned();
    // nothing of this machine's, should it have some
    let nowhere = bench.file("home").display().to_string();
    bench.variables.extend([("HOME", nowhere), ("AWS_EC2_METADATA_DISABLED", "true".to_owned())]);
    bench.refused(&["list"], 1, &["there is no key to the bucket"]);
}

#[test]
fn who_has_no_key_reads_two_lines_and_not_a_page_of_the_sdk() {
    let mut bench = Bench::new();
    bench.place = "s3:http://127.0.0.1:9/bucket".to_owned();
    let home = bench.file("home").display().to_string();
    let metadata = format!("http://{}", refusing());
    bench.variables.extend([("HOME", home), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)]);
    let said = String::from_utf8(bench.run(&["list"]).stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    let [failure, fix] = lines[..] else { panic!("two lines: {said}") };
    assert!(failure.contains("there is no key to the bucket") && failure.len() < 400, "{failure}");
    assert!(fix.starts_with("  to do: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{fix}");
    bench.variables.push(("RUST_LOG", "aws_config=debug".to_owned()));
    bench.refused(&["list"], 1, &["Ec2InstanceMetadata"]); // as the advice says
}

#[test]
fn half_a_pair_of_keys_is_not_told_as_none() {
    let mut bench = Bench::new();
    bench.place = "s3:http://127.0.0.1:9/bucket".to_owned();
    let home = bench.file("home").display().to_string();
    bench.variables.extend([("HOME", home), ("AWS_EC2_METADATA_DISABLED", "true".to_owned())]);
    std::fs::create_dir_all(bench.file("home/.aws")).unwrap();
    let profile = bench.file("home/.aws/credentials");
    std::fs::write(&profile, "[default]\naws_access_key_id = AKIAHALF\n").unwrap();
    bench.refused(&["list"], 1, &["there is no key to the bucket", "missing aws_secret_access_key", "RUST_LOG"]);
    std::fs::remove_file(profile).unwrap();
    bench.variables.push(("AWS_ACCESS_KEY_ID", "AKIAHALF".to_owned()));
    bench.refused(&["list"], 1, &["there is no key to the bucket", "without AWS_SECRET_ACCESS_KEY"]);
}

#[test]
fn whose_key_is_refused_is_not_told_to_look_for_one() {
    let mut bench = Bench::new();
    bench.keys_of_a_bucket();
    bench.place = format!("s3:http://{}/bucket", refusing());
    let said = String::from_utf8(bench.run(&["list"]).stderr).unwrap();
    assert!(said.contains("(status 403)") && said.contains("to do: set AWS_ACCESS_KEY_ID"), "{said}");
    assert!(!said.contains("RUST_LOG") && !said.contains("there is no key"), "{said}");
}

/// A machine's metadata service that lets nobody have a role, or a store that lets nobody in.
fn refusing() -> SocketAddr {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    std::thread::spawn(move || {
        for asked in service.incoming() {
            let mut asked = asked.unwrap();
            let mut request = [0; 4096];
            // what is asked makes no difference
            if asked.read(&mut request).unwrap() == 0 {
                continue;
            }
            let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            asked.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn a_kubeconfig_that_cannot_be_read_is_said_with_what_helps() {
    let bench = Bench::new();
    for command in [&["list"][..], &["status"], &["tracking", "status"]] {
        let mut run = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        run.args(command).env("KUBECONFIG", bench.file("nowhere")).env_remove("KUBERNETES_SERVICE_HOST");
        let output = run.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        for words in ["nowhere", "to do: let --kubeconfig or KUBECONFIG name a kubeconfig that can be read"] {
            assert!(said.contains(words), "{command:?}: `{words}` is missing in: {said}");
        }
        assert_eq!(said.contains("`list` takes --repository"), command == ["list"], "{command:?}: {said}");
    }
}

#[test]
fn whose_cloud_login_does_not_work_is_not_sent_to_another_kubeconfig() {
    let bench = Bench::new();
    let expired = "echo pw12345; echo >&2; echo 'the session has expired' >&2; exit 3";
    let plugins = [
        ("/nowhere", "", "run `/nowhere`: No such file"),
        ("/bin/sh", expired, "`/bin/sh` failed with exit status: 3: the session has expired"),
        ("/bin/sh", "echo pw12345", "what `/bin/sh` printed is no credential"),
    ];
    for (plugin, script, why) in plugins {
        std::fs::write(bench.file("kubeconfig"), with_plugin(plugin, script)).unwrap();
        for (command, takes_a_repository) in [
            (&["list"][..], true),
            (&["status"][..], false),
            (&["tracking", "status"][..], false),
            (&["doctor"][..], false),
        ] {
            let mut run = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
            let output = run.args(command).env("KUBECONFIG", bench.file("kubeconfig")).output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
            for words in [why, "og in to the cluster as kubectl does"] {
                assert!(said.contains(words), "{command:?}: `{words}` is missing in: {said}");
            }
            assert!(!said.contains("pw12345") && !said.contains("can be read"), "{command:?}: {said}");
            assert_eq!(said.contains("`list` takes --repository"), takes_a_repository, "{command:?}: {said}");
        }
    }
}

#[test]
fn a_login_that_ends_in_the_middle_is_called_so_and_tells_no_token() {
    let bench = Bench::new();
    // a credential that is about to end is asked for again with the first request
    let script = r#"[ -e asked ] && { echo pw12345; echo 'the session ends' >&2; exit 4; }; touch asked; echo '{"apiVersion":
        "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "pw12345",
        "expirationTimestamp": "2020-01-01T00:00:00Z"}}'"#;
    std::fs::write(bench.file("kubeconfig"), with_plugin("/bin/sh", script)).unwrap();
    for command in ["list", "doctor"] {
        let mut run = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        let output = run.arg(command).env("KUBECONFIG", bench.file("kubeconfig")).output().unwrap();
        std::fs::remove_file(bench.file("asked")).expect("it has logged in once");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        let why = "log in to the cluster: `/bin/sh` failed with exit status: 4: the session ends";
        for words in ["ClusterUnreachable", why, "Log in to the cluster as kubectl does"] {
            assert!(said.contains(words), "{command}: `{words}` is missing in: {said}");
        }
        assert!(!said.contains("pw12345"), "{command}: {said}");
    }
}

/// A kubeconfig that logs in through a program, which never asks who sits there and has a secret in its environment.
fn with_plugin(program: &str, script: &str) -> String {
    let exec = serde_json::json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": program,
        "args": ["-c", script],
        "env": [{ "name": "PASSWORD", "value": "pw12345" }],
        "interactiveMode": "Never",
    });
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:9" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": { "exec": exec } }],
    });
    kubeconfig.to_string()
}

#[test]
fn advice_on_a_target_can_be_followed() {
    let bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    bench.done(&["backup", "disk.raw"]);
    let says_not = |target: &str, code: i32, words: &[&str], not: &str| {
        bench.refused(&["restore", "latest", target], code, words);
        let said = bench.run(&["restore", "latest", target]).stderr;
        assert!(!String::from_utf8_lossy(&said).contains(not), "{target}: {}", String::from_utf8_lossy(&said));
    };
    std::fs::create_dir(bench.file("folder")).unwrap();
    says_not("folder", 2, &["it is a folder", "name a file in it"], "--force");
    says_not("/dev/null", 2, &["neither a file nor a block device"], "--force");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    says_not(&format!("nbd://{closed}/disk"), 1, &["check the disk's address"], "sent twice");

    let socket = bench.file("read-only.sock");
    let mut server = Command::new("qemu-nbd");
    server.args(["--persistent", "--read-only", "--format=raw", "--socket"]).arg(&socket);
    let _server = Running(server.arg(bench.raw("target.raw", MIB, &[])).spawn().unwrap());
    until("qemu-nbd", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let target = format!("nbd+unix:///?socket={}", socket.display());
    says_not(&target, 2, &["refuses writes", "read-only"], "incomplete");
}

#[test]
fn a_log_in_a_file_has_no_colours() {
    let mut bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    bench.variables.push(("RUST_LOG", "debug".to_owned()));
    let output = bench.run(&["backup", "disk.raw"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("INFO"), "nothing was logged");
    assert!(!output.stderr.contains(&0x1b), "{}", String::from_utf8_lossy(&output.stderr));
}
