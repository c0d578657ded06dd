//! Our server with clients of other people, and with clients that misbehave.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test stops at the first surprise; small sizes

mod peers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use disk::ByteRange;
use nbd::memory::Memory;
use nbd::{BlockSizes, Errno, Error, Export, Failure, Features, Fua, Kind};
use peers::{MIB, Ours, noise, read, run, try_run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A disk in memory with data at the start, in the middle and at the end.
fn disk(size: u64) -> Arc<Memory> {
    let memory = Memory::new(size);
    memory.put(0, &noise(300_000));
    memory.put(size / 2, &noise(2_000_000));
    memory.put(size - 512, &noise(512));
    Arc::new(memory)
}

fn whole(memory: &Memory) -> Bytes {
    memory.get(ByteRange::new(0, memory.size()))
}

#[tokio::test]
async fn nbdinfo_sees_what_we_serve() {
    let ours = Ours::serve(disk(33 * MIB));
    let uri = ours.uri().to_string();
    let text = run("nbdinfo", &["--json", &uri]).await;
    let squeezed: String = text.split_whitespace().collect();
    for fact in [
        r#""protocol":"newstyle-fixed""#,
        r#""structured":true"#,
        r#""export-name":"disk""#,
        r#""export-size":34603008"#,
        r#""is_read_only":false"#,
        r#""can_multi_conn":true"#,
        r#""can_trim":true"#,
        r#""can_fua":true"#,
        r#""can_zero":true"#,
        r#""block_size_minimum":1"#,
        r#""base:allocation""#,
    ] {
        assert!(squeezed.contains(fact), "{fact} in {text}");
    }
    let list = run("nbdinfo", &["--list", "--json", &uri]).await;
    assert!(list.contains(r#""disk""#), "{list}");
    let map = run("nbdinfo", &["--map", &uri]).await;
    assert!(map.lines().any(|line| line.contains("hole")), "{map}");
    let total: u64 = map.lines().map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(total, 33 * MIB);
}

#[tokio::test]
async fn an_unknown_export_is_refused_by_name() {
    let ours = Ours::serve(disk(MIB * 8));
    let uri = nbd::Uri::unix(ours.file("nbd.sock"), "other");
    assert!(!try_run("nbdinfo", &[&uri.to_string()]).await.status.success());
    assert!(run("nbdinfo", &["--size", &ours.uri().to_string()]).await.contains("8388608"), "the right name works");
    let error = nbd::Client::connect(&uri, nbd::ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("called `disk`"), "{error}");
}

#[tokio::test]
async fn nbdcopy_copies_from_us_and_to_us() {
    let memory = disk(33 * MIB);
    let ours = Ours::serve(memory.clone());
    let target = Arc::new(Memory::new(33 * MIB));
    let theirs = Ours::serve(target.clone());
    let file = ours.file("copy.raw");
    let (uri, path) = (ours.uri().to_string(), file.to_str().unwrap());
    run("nbdcopy", &["--connections=4", &uri, path]).await;
    assert!(read(&file) == whole(&memory));
    run("nbdcopy", &["--connections=4", "--flush", path, &theirs.uri().to_string()]).await;
    assert!(whole(&target) == whole(&memory));
    assert!(target.allocated() < 4 * MIB, "holes stay holes: {}", target.allocated());
}

#[tokio::test]
async fn qemu_img_converts_from_us_and_to_us_and_finds_no_difference() {
    let memory = disk(33 * MIB);
    let (ours, target) = (Ours::serve(memory.clone()), Arc::new(Memory::new(33 * MIB)));
    let theirs = Ours::serve(target.clone());
    let (uri, copy) = (ours.uri().to_string(), ours.file("copy.qcow2"));
    let path = copy.to_str().unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, path]).await;
    let same = run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &uri, path]).await;
    assert!(same.contains("identical"), "{same}");
    run("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", path, &theirs.uri().to_string()]).await;
    assert!(whole(&target) == whole(&memory));
    target.put(20 * MIB, b"x");
    let other = try_run("qemu-img", &["compare", "-f", "raw", &uri, &theirs.uri().to_string()]).await;
    assert_eq!(other.status.code(), Some(1), "the comparison can fail");
}

#[tokio::test]
async fn qemu_io_writes_zeroes_discards_and_flushes() {
    let memory = Arc::new(Memory::new(8 * MIB));
    let ours = Ours::serve(memory.clone());
    let uri = ours.uri().to_string();
    let steps =
        ["write -P 7 0 4M", "write -f -P 8 1M 4k", "write -z -u 2M 1M", "discard 3M 1M", "flush", "read -P 7 64k 64k"];
    let mut arguments = vec!["-f", "raw", "--cache=none", "--discard=unmap"];
    steps.iter().for_each(|step| arguments.extend(["-c", step]));
    arguments.push(&uri);
    let said = run("qemu-io", &arguments).await;
    assert!(!said.contains("failed"), "{said}");
    let bytes = whole(&memory);
    assert!(
        bytes[..1 << 20].iter().all(|byte| *byte == 7)
            && bytes[(1 << 20) + 4096..2 << 20].iter().all(|byte| *byte == 7)
    );
    assert!(bytes[1 << 20..(1 << 20) + 4096].iter().all(|byte| *byte == 8));
    assert!(bytes[2 << 20..].iter().all(|byte| *byte == 0));
    assert_eq!(memory.allocated(), 2 * MIB);
}

#[tokio::test]
async fn a_read_only_disk_refuses_writers() {
    let memory = Arc::new(Memory::new(MIB).into_read_only());
    let ours = Ours::serve(memory.clone());
    let refused = try_run("qemu-io", &["-f", "raw", "-c", "write 0 512", &ours.uri().to_string()]).await;
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(memory.allocated(), 0);
}

#[tokio::test]
async fn we_serve_tcp_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let memory = disk(5 * MIB);
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    tokio::spawn(nbd::server::serve(listener, memory.clone(), "disk", stop));
    let uri = nbd::Uri::tcp("127.0.0.1", port, "disk");
    assert_eq!(run("nbdinfo", &["--size", &uri.to_string()]).await.trim(), (5 * MIB).to_string());
    let client = nbd::Client::connect(&uri, nbd::ConnectOptions::default()).await.unwrap();
    assert_eq!(client.read(0, 5 << 20).await.unwrap(), whole(&memory));
}

#[tokio::test]
async fn our_client_and_our_server_agree_on_everything() {
    let memory = disk(33 * MIB);
    let ours = Ours::serve(memory.clone());
    let client = ours.client().await;
    assert_eq!(client.read(0, 33 << 20).await.unwrap(), whole(&memory));
    let extents = client.block_status(0, 33 * MIB).await.unwrap();
    assert_eq!(extents.last().unwrap().range.end(), 33 * MIB);
    assert!(extents.iter().any(|extent| extent.kind == Kind::Hole));
    client.trim(0, MIB).await.unwrap();
    assert_eq!(client.block_status(0, MIB).await.unwrap()[0].kind, Kind::Hole);
    client.disconnect().await.unwrap();
}

/// Fails, panics and waits when told to.
#[derive(Debug)]
struct Script {
    /// Reads at 4096 wait for a permit.
    gate: Semaphore,
    reads: AtomicUsize,
}

#[async_trait]
impl Export for Script {
    fn size(&self) -> u64 {
        1 << 40
    }

    fn features(&self) -> Features {
        let blocks = BlockSizes { minimum: 512, ..BlockSizes::default() };
        Features { blocks, fua: true, ..Features::default() }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Failure> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match offset {
            0 => Err(Failure::new(Errno::NoMemory, "the disk library ran out of memory")),
            512 => panic!("as the test wants"),
            1024 => Ok(Bytes::from_static(b"too short")),
            4096 => {
                self.gate.acquire().await.unwrap().forget();
                Ok(vec![4; length as usize].into())
            }
            _ => Ok(vec![1; length as usize].into()),
        }
    }

    async fn flush(&self) -> Result<(), Failure> {
        Err(Failure::new(Errno::NoSpace, "full"))
    }

    async fn write(&self, _offset: u64, _data: Bytes, _fua: Fua) -> Result<(), Failure> {
        Ok(())
    }
}

fn script() -> Arc<Script> {
    Arc::new(Script { gate: Semaphore::new(0), reads: AtomicUsize::new(0) })
}

#[tokio::test]
async fn what_goes_wrong_in_an_export_reaches_the_user_in_words() {
    let ours = Ours::serve(script());
    let client = ours.client().await;
    let error = client.read(0, 512).await.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NoMemory));
    assert!(error.to_string().contains("the disk library ran out of memory"), "{error}");
    for offset in [512, 1024] {
        assert_eq!(client.read(offset, 512).await.unwrap_err().errno(), Some(Errno::Io), "{offset}");
    }
    assert_eq!(client.flush().await.unwrap_err().errno(), Some(Errno::NoSpace));
    assert_eq!(client.read(8192, 512).await.unwrap().len(), 512, "the connection still works");
}

#[tokio::test]
async fn requests_in_flight_are_answered_when_the_server_stops() {
    let export = script();
    let ours = Ours::serve(export.clone());
    let client = ours.client().await;
    let reading = tokio::spawn(async move { client.read(4096, 512).await });
    while export.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    ours.stop.cancel();
    export.gate.add_permits(1);
    assert_eq!(reading.await.unwrap().unwrap(), vec![4; 512]);
    ours.serving.await.unwrap().unwrap();
}

/// Into the transmission phase by the oldest way that we know, byte by byte.
async fn raw_client(ours: &Ours) -> UnixStream {
    let mut stream = UnixStream::connect(ours.file("nbd.sock")).await.unwrap();
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.write_all(&3u32.to_be_bytes()).await.unwrap();
    stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk").await.unwrap();
    stream.read_exact(&mut [0; 10]).await.unwrap();
    stream
}

fn raw_request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut request = vec![0x25, 0x60, 0x95, 0x13, 0, 0];
    request.extend(command.to_be_bytes());
    request.extend(cookie.to_be_bytes());
    request.extend(offset.to_be_bytes());
    request.extend(length.to_be_bytes());
    request
}

async fn raw_answer(stream: &mut UnixStream) -> (u32, u64) {
    assert_eq!(stream.read_u32().await.unwrap(), 0x6744_6698);
    (stream.read_u32().await.unwrap(), stream.read_u64().await.unwrap())
}

#[tokio::test]
async fn bad_requests_get_their_error_number_and_the_next_one_is_served() {
    let ours = Ours::serve(script());
    let mut stream = raw_client(&ours).await;
    let too_large_write = [raw_request(1, 5, 0, 40 << 20), vec![7; 40 << 20]].concat();
    let cases = [
        (raw_request(0, 1, 1 << 40, 512), 22, "beyond the end"),
        (raw_request(0, 2, 8192, 64 << 20), 22, "too large"),
        (raw_request(0, 3, 1, 512), 22, "not aligned"),
        (raw_request(99, 4, 0, 512), 22, "unknown command"),
        (too_large_write, 22, "a write's data is skipped"),
        ([raw_request(1, 6, (1 << 40) - 512, 1024), vec![7; 1024]].concat(), 28, "write beyond the end"),
        (raw_request(7, 7, 0, 512), 22, "block status was not agreed on"),
        (raw_request(0, 8, u64::MAX - 511, 512), 22, "across the end of numbers"),
    ];
    for (index, (request, errno, situation)) in cases.into_iter().enumerate() {
        stream.write_all(&request).await.unwrap();
        assert_eq!(raw_answer(&mut stream).await, (errno, index as u64 + 1), "{situation}");
    }
    stream.write_all(&raw_request(0, 9, 8192, 512)).await.unwrap();
    assert_eq!(raw_answer(&mut stream).await, (0, 9));
    stream.read_exact(&mut [0; 512]).await.unwrap();
}

#[tokio::test]
async fn a_client_out_of_step_is_closed_and_others_go_on() {
    let ours = Ours::serve(script());
    let other = ours.client().await;
    let mut stream = raw_client(&ours).await;
    stream.write_all(&[0xaa; 28]).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(closed.expect("closed").is_ok_and(|count| count == 0) || rest.is_empty());
    assert_eq!(other.read(8192, 512).await.unwrap().len(), 512);
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_fill_our_memory() {
    let export = script();
    let ours = Ours::serve(export.clone());
    let mut stream = raw_client(&ours).await;
    let requests: Vec<u8> = (0..2000).flat_map(|cookie| raw_request(0, cookie, 1 << 30, 1 << 20)).collect();
    stream.write_all(&requests).await.unwrap();
    // another client is served meanwhile, which takes the server longer than starting all reads would
    let other = ours.client().await;
    for _ in 0..50 {
        other.read(8192, 1 << 20).await.unwrap();
    }
    let started = export.reads.load(Ordering::SeqCst) - 50;
    assert!((1..=64).contains(&started), "{started} reads of 1 MiB, with room for 32 and a few in the socket");
}

#[tokio::test]
async fn too_many_connections_are_turned_away() {
    let export = script();
    let ours = Ours::serve(export);
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(ours.client().await);
    }
    let error = nbd::Client::connect(&ours.uri(), nbd::ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(clients[0].read(8192, 512).await.unwrap().len(), 512);
    clients.pop().unwrap().disconnect().await.unwrap();
    // the server notices the leaver a moment after the leaver is told
    let due = Instant::now() + Duration::from_secs(20);
    while nbd::Client::connect(&ours.uri(), nbd::ConnectOptions::default()).await.is_err() {
        assert!(Instant::now() < due, "a place that was left stays taken");
    }
}
