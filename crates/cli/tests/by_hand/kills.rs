//! SIGKILL after each step of both directions: everything that a backup changes in the bucket, everything that a restore
//! changes on the disk. Whatever the last one was, what is listed is whole, and the next run ends well.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::bench::{Bench, MIB, Running, Store, random, same, text, until};

const SIGKILL: i32 = 9;

/// Kills a process when it has done so many steps.
struct Killer {
    after: usize,
    seen: AtomicUsize,
    victim: OnceLock<u32>,
}

impl Killer {
    fn after(steps: usize) -> Arc<Self> {
        Arc::new(Self { after: steps, seen: AtomicUsize::new(0), victim: OnceLock::new() })
    }

    /// A step is done.
    fn step(&self) {
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.after {
            let victim = self.victim.wait().to_string();
            assert!(Command::new("kill").args(["-KILL", &victim]).status().unwrap().success());
        }
    }

    /// Runs our program to its end, whichever that is.
    fn run(&self, bench: &Bench, args: &[&str]) -> ExitStatus {
        let mut process = bench.start(args);
        self.victim.set(process.0.id()).unwrap();
        let mut said = String::new();
        process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let ended = process.0.wait().unwrap();
        assert!(ended.success() || ended.signal() == Some(SIGKILL), "{args:?}: {ended}: {said}");
        ended
    }
}

/// The S3 server behind a line on which each change that it has made is a step. Gives the line's port.
fn changes_of(port: u16, killer: &Arc<Killer>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = listener.local_addr().unwrap().port();
    let killer = killer.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, killer) = (client.unwrap(), killer.clone());
            std::thread::spawn(move || carry(client, port, &killer)); // an end that goes early is its own affair
        }
    });
    line
}

/// One request and its answer.
fn carry(mut client: TcpStream, port: u16, killer: &Killer) -> std::io::Result<()> {
    const END: &[u8] = b"\r\n\r\n";
    let (mut sent, mut part) = (Vec::new(), [0; 64 << 10]);
    let head = loop {
        if let Some(at) = sent.windows(END.len()).position(|window| window == END) {
            break String::from_utf8_lossy(&sent[..at]).into_owned();
        }
        match client.read(&mut part)? {
            0 => return Ok(()),
            length => sent.extend(&part[..length]),
        }
    };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, length)| length.trim().parse().unwrap());
    while sent.len() < head.len() + END.len() + length {
        match client.read(&mut part)? {
            0 => return Ok(()),
            length => sent.extend(&part[..length]),
        }
    }
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    server.write_all(&sent[head.len() + END.len()..])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if head.starts_with("PUT ") || head.starts_with("DELETE ") {
        killer.step();
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Write)
}

/// The NBD server behind a line on which each change that is asked for is a step. Gives the line's socket.
fn writes_to(bench: &Bench, name: &str, server: PathBuf, killer: &Arc<Killer>) -> PathBuf {
    let socket = bench.file(name);
    let listener = UnixListener::bind(&socket).unwrap();
    let killer = killer.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server, killer) = (client.unwrap(), UnixStream::connect(&server).unwrap(), killer.clone());
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || {
                let connection = server.try_clone().unwrap();
                let _ = pass_on(client, server, &killer); // ends with the client
                // the server has so many places, and one that is read from on is not given back
                connection.shutdown(Shutdown::Both)
            });
        }
    });
    socket
}

/// What the client says: its flags, options, then requests (NBD protocol, "Transmission phase").
fn pass_on(mut client: UnixStream, mut server: UnixStream, killer: &Killer) -> std::io::Result<()> {
    const OPTION: &[u8] = b"IHAVEOPT";
    const REQUEST: [u8; 4] = 0x2560_9513_u32.to_be_bytes();
    const WRITE: u16 = 1;
    const CHANGES: [u16; 4] = [WRITE, 3, 4, 6]; // and flush, trim, write zeroes
    let mut flags = [0; 4];
    client.read_exact(&mut flags)?;
    server.write_all(&flags)?;
    loop {
        let mut message = vec![0; 16];
        client.read_exact(&mut message)?;
        let (length, change) = if message.starts_with(OPTION) {
            (u32::from_be_bytes(message[12..16].try_into().unwrap()), false)
        } else {
            assert_eq!(message[..4], REQUEST);
            message.resize(28, 0);
            client.read_exact(&mut message[16..])?;
            let kind = u16::from_be_bytes(message[6..8].try_into().unwrap());
            let length = u32::from_be_bytes(message[24..28].try_into().unwrap());
            (if kind == WRITE { length } else { 0 }, CHANGES.contains(&kind))
        };
        let head = message.len();
        message.resize(head + usize::try_from(length).unwrap(), 0);
        client.read_exact(&mut message[head..])?;
        server.write_all(&message)?;
        if change {
            killer.step();
        }
    }
}

#[test]
fn a_backup_killed_after_any_change_of_the_bucket_leaves_nothing_untrue_and_is_made_again() {
    let mut bench = Bench::new();
    let store = Store::start(&mut bench);
    let source = bench.raw("disk.raw", 22 * MIB, &[(MIB, &random(20 << 20))]);
    let mut left = Vec::new();
    for steps in 1.. {
        let killer = Killer::after(steps);
        let path = format!("bucket/killed-{steps}");
        bench.place = format!("s3:http://127.0.0.1:{}/{path}", changes_of(store.port, &killer));
        let ended = killer.run(&bench, &["backup", "disk.raw"]);
        bench.place = store.place(&path);
        if ended.success() {
            break;
        }
        bench.done(&["backup", "disk.raw"]);
        let listed = bench.document(&["list"], 0);
        let points = listed.as_array().unwrap();
        for point in points {
            bench.done(&["verify", point["id"].as_str().unwrap(), "--against", text(&source)]);
        }
        bench.restic(&["check", "--read-data", "--no-lock"]); // the lock of the one that was killed is still there
        left.push(points.len() - 1);
    }
    // config, key, lock, two packs, trees, index, restore point, the lock's end
    assert!(left.len() >= 7, "only {} steps", left.len());
    assert!(left.contains(&0) && left.contains(&1), "one before the restore point counts, one after: {left:?}");
}

#[test]
fn a_restore_killed_after_any_write_is_made_again() {
    const SIZE: u64 = 6 * MIB;
    let bench = Bench::new();
    let source = bench.raw("disk.raw", SIZE, &[(MIB, &random(2 << 20)), (5 * MIB, &random(1000))]);
    bench.done(&["backup", "disk.raw"]);
    let target = bench.raw("target.raw", SIZE, &[]);
    let disk = std::fs::File::options().write(true).open(&target).unwrap();
    let socket = bench.file("target.sock");
    let mut server = Command::new("qemu-nbd");
    server.args(["--persistent", "--shared=16", "--format=raw", "--socket"]).arg(&socket).arg(&target);
    let _server = Running(server.spawn().unwrap());
    until("qemu-nbd", || UnixStream::connect(&socket).is_ok());
    let uri = |socket: &PathBuf| format!("nbd+unix:///?socket={}", socket.display());
    let mut killed = 0;
    for steps in 1.. {
        disk.write_all_at(&vec![0xAA; 6 << 20], 0).unwrap(); // what was there must not shine through
        let killer = Killer::after(steps);
        let line = writes_to(&bench, &format!("line-{steps}.sock"), socket.clone(), &killer);
        if killer.run(&bench, &["restore", "latest", &uri(&line), "--force"]).success() {
            break;
        }
        killed += 1;
        bench.done(&["restore", "latest", &uri(&socket), "--force"]);
        assert!(same(&source, &target), "came back differently after {steps} steps");
    }
    assert!(same(&source, &target), "came back differently");
    assert!(killed >= 6, "only {killed} steps");
}
