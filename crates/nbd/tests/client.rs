//! Our client against servers of other people, well behaved and not.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test stops at the first surprise; small sizes

mod peers;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::Ranges;
use nbd::{Client, ConnectOptions, Errno, Error, Fua, Kind, Uri, Zeroes};
use peers::{MIB, Peer, noise, read, sparse_disk};
use rustix::process::{Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// The whole map of a disk, asked for piece by piece.
async fn holes(disk: &Client) -> Ranges {
    let (mut at, mut holes) = (0, Ranges::new());
    while at < disk.size() {
        for extent in disk.block_status(at, disk.size() - at).await.unwrap() {
            assert_eq!(extent.range.offset, at, "without gaps");
            at = extent.range.end();
            if extent.kind != Kind::Data {
                holes.insert(extent.range);
            }
        }
    }
    holes
}

#[tokio::test]
async fn a_disk_of_qemu_nbd_is_read_whole_and_its_holes_are_known() {
    let (folder, want) = sparse_disk(33 * MIB);
    let peer = Peer::qemu_nbd(folder, &["--read-only"]).await;
    let disk = peer.client().await;
    assert_eq!(disk.size(), 33 * MIB);
    assert!(disk.read_only() && disk.can_block_status());
    assert!(disk.read(0, 33 << 20).await.unwrap() == want, "one read, split at the largest block");
    // reads across the border of data and hole come back in several chunks
    for (offset, length) in [(299_000, 5000), (16 * MIB, 2 << 20), (33 * MIB - 1000, 1000), (17, 1), (5, 0)] {
        let got = disk.read(offset, length).await.unwrap();
        assert!(got == want[offset as usize..offset as usize + length], "{offset} {length}");
    }
    let holes = holes(&disk).await;
    assert!(holes.bytes() > 30 * MIB, "{holes:?}");
    for hole in holes.iter() {
        assert!(want[hole.offset as usize..hole.end() as usize].iter().all(|byte| *byte == 0));
    }
    disk.disconnect().await.unwrap();
}

#[tokio::test]
async fn what_is_written_to_qemu_nbd_is_in_its_file() {
    let (folder, mut want) = sparse_disk(33 * MIB);
    let peer = Peer::qemu_nbd(folder, &["--discard=unmap", "--detect-zeroes=off"]).await;
    let disk = peer.client().await;
    assert!(disk.can_fua() && disk.can_trim() && disk.can_write_zeroes() && disk.can_flush());
    let before = peer.file("disk.raw").metadata().unwrap().blocks();
    let data = noise(20 << 20);
    disk.write(MIB + 4096, Bytes::from(data.clone()), Fua::No).await.unwrap();
    want[(MIB + 4096) as usize..(21 * MIB + 4096) as usize].copy_from_slice(&data);
    disk.write(0, Bytes::from(vec![5; 512]), Fua::Yes).await.unwrap();
    want[..512].fill(5);
    disk.flush().await.unwrap();
    assert!(read(&peer.file("disk.raw")) == want);
    let full = peer.file("disk.raw").metadata().unwrap().blocks();
    assert!(full > before);
    disk.write_zeroes(2 * MIB, 4 * MIB, Zeroes::MayTrim, Fua::No).await.unwrap();
    want[(2 * MIB) as usize..(6 * MIB) as usize].fill(0);
    disk.trim(8 * MIB, 8 * MIB).await.unwrap();
    disk.flush().await.unwrap();
    assert!(peer.file("disk.raw").metadata().unwrap().blocks() < full, "space came back");
    let after = read(&peer.file("disk.raw"));
    assert!(after[..8 << 20] == want[..8 << 20] && after[16 << 20..] == want[16 << 20..]);
    disk.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_refused_export_is_named_with_the_servers_words() {
    let (folder, _) = sparse_disk(2 * MIB);
    let peer = Peer::qemu_nbd(folder, &[]).await;
    let uri = Uri::unix(peer.file("nbd.sock"), "other");
    let error = Client::connect(&uri, ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { export, .. } if export == "other"), "{error}");
    assert!(error.to_string().contains("no such export"), "{error}");
}

#[tokio::test]
async fn every_offset_of_a_huge_disk_is_the_right_one() {
    // the pattern plugin serves, at each multiple of 8, that number
    let peer = Peer::nbdkit(&["pattern", "size=64T"]).await;
    let disk = peer.client().await;
    for offset in [0u64, 8, 1 << 31, (1 << 32) + 8, (1 << 46) - 4096] {
        let got = disk.read(offset, 4096).await.unwrap();
        let numbers = got.chunks(8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        assert!(numbers.eq((0..512).map(|index| offset + index * 8)), "{offset}");
    }
    let many = (0..200u64).map(|index| disk.read(index << 34, 4096));
    for (index, got) in futures::future::join_all(many).await.into_iter().enumerate() {
        assert_eq!(got.unwrap()[..8], ((index as u64) << 34).to_be_bytes(), "answers are matched to requests");
    }
    let beyond = disk.read((1 << 46) - 8, 16).await.unwrap_err();
    assert!(beyond.to_string().contains("beyond"), "{beyond}");
}

#[tokio::test]
async fn old_servers_without_structured_replies_or_options_are_read_too() {
    for arguments in [&["--no-sr"][..], &["--mask-handshake=0"], &["--mask-handshake=1"], &["--mask-handshake=2"]] {
        let peer = Peer::nbdkit(&[arguments, &["data", "1 2 3 @0x100000 255", "size=2M"]].concat()).await;
        let disk = peer.client().await;
        assert_eq!(disk.size(), 2 * MIB, "{arguments:?}");
        assert_eq!(disk.read(0, 4).await.unwrap(), &[1, 2, 3, 0][..], "{arguments:?}");
        assert_eq!(disk.read(MIB, 1).await.unwrap()[0], 255, "{arguments:?}");
        let status = disk.block_status(0, 2 * MIB).await.unwrap();
        assert_eq!(disk.can_block_status(), status.len() > 1 || status[0].kind != Kind::Data, "{arguments:?}");
        disk.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn several_connections_see_the_same_disk() {
    let peer = Peer::nbdkit(&["memory", "64M"]).await;
    let (one, two) = (peer.client().await, peer.client().await);
    assert!(one.can_multi_conn());
    let data = Bytes::from(noise(3 << 20));
    one.write(MIB, data.clone(), Fua::No).await.unwrap();
    two.flush().await.unwrap();
    assert_eq!(two.read(MIB, 3 << 20).await.unwrap(), data);
    assert_eq!(holes(&two).await.bytes(), 61 * MIB);
    two.write_zeroes(MIB, 3 * MIB, Zeroes::MayTrim, Fua::No).await.unwrap();
    assert_eq!(holes(&one).await.bytes(), 64 * MIB);
}

#[tokio::test]
async fn a_write_that_must_be_stable_is_flushed_where_the_server_cannot_promise_it() {
    for native in [true, false] {
        let can_fua = if native { "can_fua=echo native" } else { "can_fua=echo none" };
        let log = ["--filter=log", "eval", "logfile={dir}/log", "get_size=echo 1M", "pread=exit 1"];
        let writes = ["can_write=exit 0", "can_zero=exit 0", "pwrite=cat >/dev/null", "zero=exit 0"];
        let arguments = [&log[..], &writes[..], &["can_flush=exit 0", "flush=exit 0", can_fua]].concat();
        let peer = Peer::nbdkit(&arguments).await;
        let disk = peer.client().await;
        assert_eq!(disk.can_fua(), native);
        disk.write(0, Bytes::from_static(&[1; 512]), Fua::Yes).await.unwrap();
        disk.write_zeroes(512, 512, Zeroes::KeepAllocated, Fua::Yes).await.unwrap();
        disk.disconnect().await.unwrap();
        let log = String::from_utf8(read(&peer.file("log"))).unwrap();
        let flushes = log.lines().filter(|line| line.contains(" Flush ") && !line.contains("return")).count();
        if native {
            assert_eq!(log.matches("fua=1").count(), 2, "{log}");
        } else {
            assert_eq!(flushes, 2, "{log}");
        }
    }
}

#[tokio::test]
async fn limits_of_the_server_are_kept() {
    let limits = ["blocksize-minimum=4096", "blocksize-preferred=64K", "blocksize-maximum=1M"];
    let policy = ["--filter=blocksize-policy", "memory", "16M", "blocksize-error-policy=error"];
    let peer = Peer::nbdkit(&[&policy[..], &limits[..]].concat()).await;
    let disk = peer.client().await;
    assert_eq!((disk.minimum_block(), disk.preferred_block(), disk.max_block()), (4096, 64 << 10, 1 << 20));
    let data = Bytes::from(noise(5 << 20));
    disk.write(4096, data.clone(), Fua::No).await.unwrap();
    assert_eq!(disk.read(4096, 5 << 20).await.unwrap(), data);
    let error = disk.read(512, 4096).await.unwrap_err();
    assert!(matches!(error, Error::BadRequest { .. }) && error.to_string().contains("aligned"), "{error}");
}

#[tokio::test]
async fn nothing_is_written_to_a_read_only_disk() {
    let peer = Peer::nbdkit(&["--readonly", "memory", "1M"]).await;
    let disk = peer.client().await;
    assert!(disk.read_only());
    for error in [
        disk.write(0, Bytes::from_static(b"x"), Fua::No).await.unwrap_err(),
        disk.write_zeroes(0, 512, Zeroes::MayTrim, Fua::No).await.unwrap_err(),
        disk.trim(0, 512).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("read-only"), "{error}");
    }
}

#[tokio::test]
async fn an_error_at_one_place_says_where_and_costs_nothing_else() {
    let pread = r#"pread=if [ "$4" -le 1048576 -a $(($4 + $3)) -gt 1048576 ]; then echo EIO bad spot >&2; exit 1; fi
        dd if=/dev/zero bs=$3 count=1 status=none"#;
    let peer = Peer::nbdkit(&["eval", "get_size=echo 4194304", pread]).await;
    let disk = peer.client().await;
    let (before, bad, after) = tokio::join!(disk.read(0, 1 << 20), disk.read(MIB, 4096), disk.read(2 * MIB, 1 << 20));
    assert_eq!((before.unwrap().len(), after.unwrap().len()), (1 << 20, 1 << 20));
    let bad = bad.unwrap_err();
    assert_eq!(bad.errno(), Some(Errno::Io));
    assert!(bad.to_string().contains("read 4096 bytes at 1048576"), "{bad}");
    assert!(!bad.is_connection_dead() && !disk.is_dead());
}

#[tokio::test]
async fn a_failed_flush_is_an_error() {
    let eval = ["eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 0", "pwrite=cat >/dev/null"];
    let rest = ["pread=exit 1", "flush=echo ENOSPC full >&2; exit 1"];
    let peer = Peer::nbdkit(&[&eval[..], &rest[..]].concat()).await;
    let disk = peer.client().await;
    disk.write(0, Bytes::from_static(&[1; 512]), Fua::No).await.unwrap();
    assert_eq!(disk.flush().await.unwrap_err().errno(), Some(Errno::NoSpace));
}

#[tokio::test]
async fn errors_now_and_then_are_reported_and_the_rest_arrives() {
    let peer = Peer::nbdkit(&["--filter=error", "memory", "8M", "error-pread=EIO", "error-pread-rate=50%"]).await;
    let disk = peer.client().await;
    let reads = futures::future::join_all((0..400).map(|_| disk.read(0, 4096))).await;
    let failed = reads.iter().filter(|read| read.is_err()).count();
    assert!((50..350).contains(&failed), "{failed} of 400");
    assert!(reads.iter().filter_map(|read| read.as_ref().err()).all(|error| error.errno() == Some(Errno::Io)));
    assert!(!disk.is_dead());
}

#[tokio::test]
async fn a_slow_server_that_answers_is_not_given_up() {
    let peer = Peer::nbdkit(&["--filter=delay", "memory", "8M", "rdelay=300ms"]).await;
    // 32 reads by nbdkit's 16 threads: all together take longer than the deadline of each
    let disk = peer.client_with_deadline(Duration::from_millis(550)).await;
    for read in futures::future::join_all((0..32).map(|_| disk.read(0, 512))).await {
        read.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_named_at_the_deadline() {
    let peer = Peer::nbdkit(&["--filter=delay", "memory", "8M", "rdelay=100000"]).await;
    let disk = peer.client_with_deadline(Duration::from_secs(1)).await;
    let started = Instant::now();
    let (one, two) = tokio::join!(disk.read(0, 512), disk.read(512, 512));
    assert!(started.elapsed() < Duration::from_secs(20));
    let socket = peer.file("nbd.sock").display().to_string();
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        assert!(error.is_connection_dead() && error.to_string().contains(&socket), "{error}");
    }
    assert!(matches!(disk.read(0, 512).await.unwrap_err(), Error::Silent { .. }), "later calls learn the cause");
}

#[tokio::test]
async fn a_frozen_server_cannot_hold_a_writer() {
    let peer = Peer::nbdkit(&["memory", "256M"]).await;
    let disk = peer.client_with_deadline(Duration::from_secs(1)).await;
    kill_process(peer.process_id(), Signal::STOP).unwrap();
    // more than the socket's buffers take: the request cannot even be sent
    let error = disk.write(0, Bytes::from(vec![1; 64 << 20]), Fua::No).await.unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    let options = ConnectOptions { connect_deadline: Duration::from_secs(1), ..ConnectOptions::default() };
    let error = Client::connect(&peer.uri(), options).await.unwrap_err();
    assert!(matches!(error, Error::ConnectDeadline { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_ends_every_request_at_once() {
    let mut peer = Peer::nbdkit(&["--filter=delay", "memory", "64M", "rdelay=100000"]).await;
    let disk = peer.client().await;
    let reads: Vec<_> = (0..20u64)
        .map(|index| {
            let disk = disk.clone();
            tokio::spawn(async move { disk.read(index * MIB, 1 << 20).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let started = Instant::now();
    peer.process.kill().await.unwrap();
    for read in reads {
        let error = read.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Lost { .. }) && error.is_connection_dead(), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "not at the deadline of 60 s");
    assert!(disk.is_dead() && disk.flush().await.is_err());
}

#[tokio::test]
async fn a_peer_that_is_no_nbd_server_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let uri = Uri::unix(folder.path().join("nbd.sock"), "");
    let error = Client::connect(&uri, ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let greetings: [(&[u8], &str); 3] = [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian", "first bytes"),
        (b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53", "oldstyle"),
        (b"NBDM", "lost the connection"),
    ];
    let listener = UnixListener::bind(folder.path().join("nbd.sock")).unwrap();
    for (greeting, words) in greetings {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting).await.unwrap();
        };
        let (error, ()) = tokio::join!(Client::connect(&uri, ConnectOptions::default()), serve);
        let error = error.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_client_lets_the_server_go() {
    // exits when the last client has left
    let mut peer = Peer::nbdkit(&["--filter=exitlast", "memory", "1M"]).await;
    let disk = peer.client().await;
    drop(disk.read(0, 512)); // never polled
    let clone = disk.clone();
    drop(disk);
    assert_eq!(clone.read(0, 512).await.unwrap().len(), 512, "a clone keeps the connection");
    drop(clone);
    let left = tokio::time::timeout(Duration::from_secs(20), peer.process.wait()).await;
    assert!(left.expect("the server saw the client leave").unwrap().success());
}
