//! A bucket that answers with errors, breaks connections, or takes a key away: what passes by itself costs nothing, what stays
//! is named at once, and the next backup is whole.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use futures::future::join_all;
use repository::store::{ErrorKind as StoreErrorKind, S3Store, Store};
use repository::{Error, ErrorKind, Reader};

use crate::bucket::{ATTEMPTS, Bucket, STALLED, fine};
use crate::damage::chain;
use crate::judge::{MIB, TestDisk};
use crate::line::{Rule, Trouble};
use crate::versitygw::Versitygw;

async fn read_all(reader: &Reader) -> Result<(), Error> {
    reader.read(reader.plan(0..reader.chunk_count()), 4).try_for_each(|_| async { Ok(()) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_each_fail_once_cost_no_backup_and_no_restore() {
    let server = Versitygw::start();
    let troubles = [
        Trouble::Answer(500, "InternalError"),
        Trouble::Answer(503, "SlowDown"),
        Trouble::ResetRequest,
        Trouble::LoseAnswer,
        Trouble::ResetAnswer,
        Trouble::CutAnswer,
    ];
    join_all(troubles.into_iter().zip(1..).map(|(trouble, seed)| fails_once(&server, trouble, seed))).await;
}

async fn fails_once(server: &Versitygw, trouble: Trouble, seed: u64) {
    let bucket = Bucket::new(server, format!("once-{seed}")).await;
    bucket.line.trouble(Rule::always(trouble).first_tries_only());
    let disk = TestDisk::random(6 * MIB, seed).with(MIB, vec![0; MIB as usize]);
    let repository = fine(bucket.initialised().await, trouble);
    let lock = fine(repository.lock("upload-1").await, trouble);
    assert_eq!(lock.skipped(), None, "{trouble:?}");
    let point = fine(disk.back_up(&repository).await, trouble);
    let reader = fine(bucket.opened().await.reader(&point.id).await, trouble);
    disk.assert_is_read(&reader).await;
    fine(lock.release().await, trouble);
    for (method, part, least) in
        [("PUT", "/data/", 2), ("PUT", "/index/", 1), ("PUT", "/snapshots/", 1), ("GET", "/data/", 3)]
    {
        let struck = bucket.line.struck(method, part);
        assert!(struck >= least, "{trouble:?}: only {struck} of {method} {part} were struck");
    }
    bucket.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_goes_on_failing_ends_the_backup_after_few_tries_and_the_next_one_is_whole() {
    let server = Versitygw::start();
    let cases = [
        (Trouble::Answer(500, "InternalError"), ErrorKind::StoreFailed, "the store answers InternalError (status 500)"),
        (Trouble::Answer(503, "SlowDown"), ErrorKind::Unreachable, "the store answers SlowDown (status 503)"),
        (Trouble::ResetRequest, ErrorKind::Unreachable, "the request could not be sent"),
        (Trouble::LoseAnswer, ErrorKind::Unreachable, "the request could not be sent"),
    ];
    join_all(cases.into_iter().zip(11..).map(|(case, seed)| put_goes_on_failing(&server, case, seed))).await;
}

async fn put_goes_on_failing(server: &Versitygw, case: (Trouble, ErrorKind, &str), seed: u64) {
    let (trouble, kind, said) = case;
    let bucket = Bucket::new(server, format!("lasting-{seed}")).await;
    bucket.line.trouble(Rule::always(trouble).of("PUT", "/data/").after(1));
    let disk = TestDisk::random(20 * MIB, seed);
    let repository = bucket.initialised().await.unwrap();
    let error = disk.back_up(&repository).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", chain(&error));
    for word in ["put `data/", "bucket backups at ", said] {
        assert!(chain(&error).contains(word), "`{}` does not say `{word}`", chain(&error));
    }
    let tries = bucket.line.tries("PUT", "/data/");
    assert_eq!(tries[0], ATTEMPTS, "{trouble:?}: {tries:?}");

    bucket.line.heal();
    assert!(bucket.objects("snapshots/").await.is_empty(), "{trouble:?}");
    let point = disk.back_up(&repository).await.unwrap();
    disk.assert_is_read(&bucket.opened().await.reader(&point.id).await.unwrap()).await;
    bucket.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_goes_on_failing_ends_the_restore_after_few_tries_and_calls_nothing_damaged() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "restore").await;
    let disk = TestDisk::random(10 * MIB, 21);
    let point = disk.back_up(&bucket.initialised().await.unwrap()).await.unwrap();
    let repository = bucket.opened().await;
    let reader = repository.reader(&point.id).await.unwrap();
    let cases = [
        (Trouble::Answer(500, "InternalError"), ErrorKind::StoreFailed, "InternalError"),
        (Trouble::Answer(503, "SlowDown"), ErrorKind::Unreachable, "SlowDown"),
        (Trouble::ResetRequest, ErrorKind::Unreachable, "the request could not be sent"),
        (Trouble::CutAnswer, ErrorKind::Unreachable, "the store's answer broke off"),
        (Trouble::StallAnswer, ErrorKind::Unreachable, "the store's answer broke off"),
    ];
    for (trouble, kind, said) in cases {
        bucket.line.heal();
        bucket.line.trouble(Rule::always(trouble).of("GET", "/data/").after(1));
        let error = read_all(&reader).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", chain(&error));
        for word in ["read data/", "get `data/", "bucket backups at ", said] {
            assert!(chain(&error).contains(word), "`{}` does not say `{word}`", chain(&error));
        }
        let tries = bucket.line.tries("GET", "/data/");
        assert_eq!(tries[0], ATTEMPTS, "{trouble:?}: {tries:?}");
        let sizes = bucket.line.tries("HEAD", "/data/");
        let asked = kind != ErrorKind::Unreachable;
        assert_eq!(!sizes.is_empty(), asked, "a silent store is waited for once, not once more for a size: {sizes:?}");
    }
    bucket.line.heal();
    disk.assert_is_read(&reader).await;
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

/// A connection that is half open: the answer has begun, and no word that it will not go on ever comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stands_still_is_given_up_after_the_time_for_that_and_asked_for_again() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "stalled").await;
    let disk = TestDisk::random(2 * MIB, 22);
    let point = disk.back_up(&bucket.initialised().await.unwrap()).await.unwrap();
    let key = bucket.objects("data/").await.remove(0);
    let store = bucket.store().await;
    // a body that we read ourselves, and one of which the SDK makes an answer
    for (part, act) in [("/data/", "get `data/"), ("list-type", "list `data/")] {
        let ask = async || match part {
            "/data/" => store.get(&key).await.map(drop),
            _ => store.list("data/").await.map(drop),
        };
        bucket.line.heal();
        bucket.line.trouble(Rule::always(Trouble::StallAnswer).of("GET", part).once());
        ask().await.unwrap();
        assert_eq!(bucket.line.tries("GET", part), [2], "{part}");

        bucket.line.heal();
        bucket.line.trouble(Rule::always(Trouble::StallAnswer).of("GET", part));
        let began = Instant::now();
        let error = ask().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains(act), "{error}");
        assert_eq!(bucket.line.tries("GET", part), [ATTEMPTS], "{part}");
        let (took, most) = (began.elapsed(), STALLED * 6 * u32::try_from(ATTEMPTS).unwrap());
        assert!(took >= STALLED && took < most, "{part}: {took:?}");
    }
    bucket.line.heal();
    disk.assert_is_read(&bucket.opened().await.reader(&point.id).await.unwrap()).await;
}

fn assert_says_who_is_refused(error: &Error, what: &str) {
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{}", chain(error));
    for word in [what, "bucket backups at ", "access denied", "the store answers AccessDenied (status 403)"] {
        assert!(chain(error).contains(word), "`{}` does not say `{word}`", chain(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_taken_away_in_the_middle_of_a_backup_is_named_at_once_and_the_next_backup_is_whole() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "revoked").await;
    let repository = bucket.initialised().await.unwrap();
    let refused = Trouble::Answer(403, "AccessDenied");
    bucket.line.trouble(Rule::always(refused).of("PUT", "/data/").after(1).then_everything());
    let lock = repository.lock("upload-1").await.unwrap();
    let disk = TestDisk::random(20 * MIB, 31);
    let error = disk.back_up(&repository).await.unwrap_err();
    assert_says_who_is_refused(&error, "put `data/");
    assert_says_who_is_refused(&lock.release().await.unwrap_err(), "delete `locks/");
    assert!(bucket.line.struck("PUT", "/data/") >= 1);
    assert_eq!(bucket.line.tries("PUT", "/data/")[0], 1, "what is refused is not asked again");

    bucket.line.heal();
    assert!(bucket.objects("snapshots/").await.is_empty());
    let again = bucket.opened().await;
    assert_eq!(again.remove_locks_of("upload-1").await.unwrap(), 1);
    let lock = again.lock("upload-1").await.unwrap();
    let point = disk.back_up(&again).await.unwrap();
    lock.release().await.unwrap();
    disk.assert_is_read(&again.reader(&point.id).await.unwrap()).await;
    bucket.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_taken_away_in_the_middle_of_a_restore_is_named_at_once_and_calls_nothing_damaged() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "revoked").await;
    let disk = TestDisk::random(10 * MIB, 32);
    let point = disk.back_up(&bucket.initialised().await.unwrap()).await.unwrap();
    let repository = bucket.opened().await;
    let reader = repository.reader(&point.id).await.unwrap();
    bucket.line.heal();
    let refused = Trouble::Answer(403, "AccessDenied");
    bucket.line.trouble(Rule::always(refused).of("GET", "/data/").after(1).then_everything());
    assert_says_who_is_refused(&read_all(&reader).await.unwrap_err(), "get `data/");
    assert_eq!(bucket.line.tries("GET", "/data/")[0], 1, "what is refused is not asked again");
    assert_says_who_is_refused(&repository.reader(&point.id).await.unwrap_err(), "get `");

    bucket.line.heal();
    disk.assert_is_read(&reader).await;
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_takes_no_tries_from_another() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Versitygw::start();
    let mut options = server.options("");
    options.endpoint = Some(format!("http://{gone}").parse().unwrap());
    options.attempts = 5;
    options.first_pause = Duration::ZERO;
    let away = S3Store::new(options).await.unwrap();
    for _ in 0..30 {
        away.get("config").await.unwrap_err();
    }

    let bucket = Bucket::new(&server, "there").await;
    let store = bucket.store().await;
    store.put("config", bytes::Bytes::from_static(b"x").into()).await.unwrap();
    bucket.line.heal();
    bucket.line.trouble(Rule::always(Trouble::Answer(503, "SlowDown")).first_tries_only());
    assert_eq!(store.get("config").await.unwrap(), "x");
    assert_eq!(bucket.line.tries("GET", "config"), [2]);
}
