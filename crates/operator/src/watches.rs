//! Tells of watches that fail: what nobody is told of, nobody looks at.

use std::time::{Duration, Instant};

use api::Reason;
use kube::Resource;
use kube::runtime::controller;
use kube::runtime::watcher::{self, Event};

use crate::Metrics;
use crate::client::{ANSWER, WATCH_SECONDS};
use crate::error::chain;

/// So many errors in a row are told: they take three seconds or more where nothing can be listed, ten where watches do not begin.
const MANY_ERRORS: u32 = 5;
/// Errors in a row for so long are told, however few: an API server that hangs lets one happen in [`ANSWER`].
const LONG: Duration = Duration::from_secs(60);
/// Longest pause of kube's `default_backoff`, with its jitter, and something for the work between.
const PAUSE: Duration = Duration::from_secs(75);
/// A watch that stood so long was heard of in between: what lies in front of an API server may end silent ones once a minute.
const STOOD: Duration = Duration::from_secs(45);
// a watch that shows nothing lasts its time: that it could not begin before and cannot begin after is no row
const _: () = assert!(WATCH_SECONDS as u64 > ANSWER.as_secs() + PAUSE.as_secs());

/// The watches of a controller, or a single one. Counts their errors, and says in the log, once, that they have failed for long. That this
/// is over is said of one that shows [what it saw](Self::saw); of a controller's nobody hears that they work.
#[derive(Debug)]
pub struct Watches {
    kind: String,
    /// Of which of them nobody hears: nothing, or words behind those.
    place: &'static str,
    metrics: Metrics,
    errors: Errors,
}

impl Watches {
    /// Of objects of that kind.
    pub fn of<K: Resource<DynamicType = ()>>(metrics: &Metrics) -> Self {
        Self { kind: K::kind(&()).into_owned(), place: "", metrics: metrics.clone(), errors: Errors::new(LONG) }
    }

    /// Of those that lie in other namespaces than the one in which somebody works on them, and tells of that watch.
    pub fn in_other_namespaces(mut self) -> Self {
        self.place = " in other namespaces";
        self
    }

    /// And so many more, of what belongs to them. A controller does not say which of its watches has failed.
    pub fn with_others(mut self, others: u32) -> Self {
        self.errors.others = others;
        self
    }

    /// What a watch gave.
    pub fn saw<K>(&mut self, event: &Result<Event<K>, watcher::Error>) {
        let word = self.errors.note(event, Instant::now());
        self.tell(word, event.as_ref().err());
    }

    /// What a controller gave that watches for itself. It shows what it looks at, and that may be due by its own clock: so only that the
    /// watches fail is told. What a look has met is told elsewhere.
    pub fn looked<T, E: 'static>(&mut self, given: &Result<T, controller::Error<E, watcher::Error>>) {
        if let Err(controller::Error::QueueError(error)) = given {
            let word = self.errors.failed(error, Instant::now());
            self.tell(word, Some(error));
        }
    }

    fn tell(&self, word: Word, error: Option<&watcher::Error>) {
        let (kind, reason) = (&self.kind, error.map_or(Reason::ClusterUnreachable, reason_of));
        let place = self.place;
        if error.is_some() {
            self.metrics.watch_error(&format!("{kind}{place}"), reason); // an alarm on one is not for the other
        }
        let error = error.map(|error| chain(error)).unwrap_or_default();
        match word {
            Word::Nothing => {}
            Word::Failed => {
                tracing::debug!(kind, %reason, error, "changes{place} are not heard of at the moment; trying again");
            }
            Word::Away => {
                let failed = match self.errors.others {
                    0 => "the watch has failed",
                    _ => "watches of this kind and of what belongs to it have failed",
                };
                tracing::warn!(
                    kind,
                    %reason,
                    error,
                    "changes{place} are not heard of: {failed} {} times in a row. We try again until it works. {}",
                    self.errors.count,
                    reason.fix()
                );
            }
            Word::Back => tracing::info!(kind, "changes{place} are heard of again"),
        }
    }
}

/// What an error of a watch means.
fn reason_of(error: &watcher::Error) -> Reason {
    let code = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => status.code,
            kube::Error::HyperError(_)
            | kube::Error::Service(_)
            | kube::Error::ReadEvents(_)
            | kube::Error::Auth(_) => return Reason::ClusterUnreachable,
            _ => return Reason::Internal,
        },
        watcher::Error::WatchError(status) => status.code,
        watcher::Error::NoResourceVersion => return Reason::Internal,
    };
    match code {
        401 | 403 => Reason::ClusterForbidden,
        404 => Reason::DefinitionsMissing, // no list and no watch is of one object
        429 | 500..=504 => Reason::ClusterUnreachable,
        _ => Reason::Internal,
    }
}

/// Errors in a row.
#[derive(Debug)]
struct Errors {
    /// Told when they have lasted so long.
    long: Duration,
    /// They may be of so many watches more than one.
    others: u32,
    count: u32,
    /// The first and the last of the row.
    row: Option<(Instant, Instant)>,
    /// That this row is long was said.
    row_told: bool,
    /// That some row was long was said, and not that it is over.
    told: bool,
}

/// What is to be said of a watch.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Nothing,
    /// One more error.
    Failed,
    /// It has failed for long, which was not said of this row yet.
    Away,
    /// That is over.
    Back,
}

impl Errors {
    fn new(long: Duration) -> Self {
        Self { long, others: 0, count: 0, row: None, row_told: false, told: false }
    }

    /// Counts what the watch gave.
    fn note<K>(&mut self, event: &Result<Event<K>, watcher::Error>, now: Instant) -> Word {
        match event {
            Err(error) => self.failed(error, now),
            // the first comes before the API server is asked, the second before it is asked for the next page
            Ok(Event::Init | Event::InitApply(_)) => Word::Nothing,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                let told = self.told;
                *self = Self { others: self.others, ..Self::new(self.long) };
                if told { Word::Back } else { Word::Nothing }
            }
        }
    }

    /// One more.
    fn failed(&mut self, error: &watcher::Error, now: Instant) -> Word {
        // a watch that goes on shows nothing as long as nothing changes
        let had_begun = matches!(error, watcher::Error::WatchFailed(_) | watcher::Error::WatchError(_));
        let apart = if had_begun { STOOD } else { ANSWER + PAUSE };
        let first = match self.row {
            Some((first, last)) if now.duration_since(last) < apart => first,
            _ => {
                (self.count, self.row_told) = (0, false);
                now
            }
        };
        self.row = Some((first, now));
        self.count = self.count.saturating_add(1);
        // what breaks off all of them at once counts as one error; and more errors than watches: one has failed twice
        let many = self.count >= MANY_ERRORS.saturating_add(self.others);
        let long = self.count.saturating_sub(1) > self.others && now.duration_since(first) >= self.long;
        if self.row_told || !(many || long) {
            return Word::Failed;
        }
        (self.row_told, self.told) = (true, true);
        Word::Away
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::convert::Infallible;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::http::{Request, Response};
    use futures::{Stream, StreamExt as _, stream};
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::client::{AuthError, ClientBuilder};
    use kube::runtime::reflector::ObjectRef;
    use kube::runtime::{WatchStreamExt as _, watcher};
    use kube::{Api, Client};
    use serde::de::DeserializeOwned;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::Word::{Away, Back, Failed, Nothing};
    use super::*;
    use crate::client::{answered_within, watching};

    type Seen = Result<Event<Lease>, watcher::Error>;

    fn silent() -> Seen {
        Err(watcher::Error::InitialListFailed(kube::Error::Service("no answer".into())))
    }

    fn broken_off() -> Seen {
        Err(watcher::Error::WatchFailed(kube::Error::Service("reset by peer".into())))
    }

    fn not_begun() -> Seen {
        Err(watcher::Error::WatchStartFailed(kube::Error::Service("no answer".into())))
    }

    /// What is said of what a watch gives, each so many seconds after the beginning.
    fn said(given: impl IntoIterator<Item = (u64, Seen)>) -> Vec<Word> {
        said_with_others(0, given)
    }

    /// And of one watch and so many others.
    fn said_with_others(others: u32, given: impl IntoIterator<Item = (u64, Seen)>) -> Vec<Word> {
        let (mut errors, begun) = (Errors { others, ..Errors::new(LONG) }, Instant::now());
        given.into_iter().map(|(seconds, event)| errors.note(&event, begun + Duration::from_secs(seconds))).collect()
    }

    #[test]
    fn an_api_server_that_shows_nothing_for_long_is_told_of_once_and_when_it_is_back() {
        let fast = [0, 1, 3, 6, 13, 26].map(|second| (second, silent()));
        assert_eq!(said(fast), [Failed, Failed, Failed, Failed, Away, Failed], "it refuses");
        let hangs = [65, 131, 198, 270, 400].map(|second| (second, silent()));
        assert_eq!(said(hangs), [Failed, Away, Failed, Failed, Failed], "it is silent until it is given up");
        let over = [
            (65, silent()),
            (131, silent()),
            (132, Ok(Event::Init)), // nobody has answered yet
            (198, silent()),
            (199, Ok(Event::InitDone)),
            (200, Ok(Event::InitDone)),
        ];
        assert_eq!(said(over), [Failed, Away, Nothing, Failed, Back, Nothing]);
    }

    /// A list has pages: the first may come each time, and the second never.
    #[test]
    fn a_list_that_never_comes_to_its_end_is_told_of() {
        let page = |second: u64| -> [(u64, Seen); 2] {
            [(second, Ok(Event::Init)), (second + 1, Ok(Event::InitApply(Lease::default())))]
        };
        let given = [(0, silent())].into_iter().chain(page(1)).chain([(62, silent())]).chain(page(64));
        let said = said(given.chain([(66, Ok(Event::InitDone))]));
        assert_eq!(said, [Failed, Nothing, Nothing, Away, Nothing, Nothing, Back]);
    }

    /// The watch works and nothing changes: nothing shows that a row is over, but the next error is none of it.
    #[test]
    fn the_end_of_a_silence_is_told_also_where_nothing_changed_for_long() {
        let given = [
            (0, silent()),
            (66, silent()),
            (4_000, broken_off()),
            (4_001, Ok(Event::InitDone)),
            (20_000, silent()),
            (20_066, silent()),
            (40_000, silent()),
            (40_066, silent()), // another row, of which nobody has heard
            (40_067, Ok(Event::InitDone)),
        ];
        assert_eq!(said(given), [Failed, Away, Failed, Back, Failed, Away, Failed, Away, Back]);
    }

    #[test]
    fn nobody_is_warned_of_watches_that_something_ends_once_a_minute_or_that_fail_now_and_then() {
        let minutes = (0..20).map(|minute| (minute * 60, broken_off()));
        assert!(said(minutes).iter().all(|word| *word == Failed), "a proxy ends what is silent");
        let hours = (0..20).map(|hour| (hour * 3_600, silent()));
        assert!(said(hours).iter().all(|word| *word == Failed), "now and then is not for long");
        let one_apart = [(0, not_begun()), (u64::from(WATCH_SECONDS) + 1, not_begun())];
        assert_eq!(said(one_apart), [Failed, Failed], "it stood all its time in between");
        let at_once = [0, 1, 3, 6, 13].map(|second| (second, broken_off()));
        assert_eq!(said(at_once), [Failed, Failed, Failed, Failed, Away], "it begins and breaks off each time");
    }

    /// The errors of a controller's watches are one row, and none of them says that it works again.
    #[test]
    fn nobody_is_warned_of_several_watches_that_each_failed_once_or_were_broken_off_together() {
        let one_each = [(0, not_begun()), (70, not_begun())];
        assert_eq!(said_with_others(1, one_each), [Failed, Failed], "the first may well work again");
        let again = [(0, not_begun()), (70, not_begun()), (130, not_begun())];
        assert_eq!(said_with_others(1, again), [Failed, Failed, Away], "one of them has failed twice");
        let reset = [0, 1, 3, 6].map(|second| (second, broken_off()));
        assert_eq!(said_with_others(3, reset), [Failed, Failed, Failed, Failed], "all connections were reset once");
        let hang = [0, 2, 5, 12, 67].map(|second| (second, not_begun()));
        assert_eq!(said_with_others(3, hang), [Failed, Failed, Failed, Failed, Away], "one is given up once more");
        let refused = [0, 1, 3, 6, 13, 26, 51, 55].map(|second| (second, not_begun()));
        let (last, before) = (said_with_others(3, refused), [Failed, Failed, Failed, Failed, Failed, Failed, Failed]);
        assert_eq!(last.split_last(), Some((&Away, before.as_slice())), "many, for less than a minute yet");
    }

    #[test]
    fn an_error_of_a_watch_is_told_with_the_word_that_says_what_helps() {
        let status = |code| kube::core::Status { code, ..kube::core::Status::default() }.boxed();
        let cases = [
            (watcher::Error::InitialListFailed(kube::Error::Api(status(403))), Reason::ClusterForbidden),
            (watcher::Error::WatchStartFailed(kube::Error::Api(status(503))), Reason::ClusterUnreachable),
            (watcher::Error::WatchError(status(500)), Reason::ClusterUnreachable),
            (watcher::Error::InitialListFailed(kube::Error::Service("hangs".into())), Reason::ClusterUnreachable),
            (watcher::Error::InitialListFailed(kube::Error::Api(status(404))), Reason::DefinitionsMissing),
            (watcher::Error::WatchStartFailed(kube::Error::Api(status(404))), Reason::DefinitionsMissing),
            (watcher::Error::NoResourceVersion, Reason::Internal),
            (
                watcher::Error::WatchStartFailed(kube::Error::Auth(AuthError::AuthExec("it has ended".to_owned()))),
                Reason::ClusterUnreachable,
            ),
        ];
        for (error, want) in cases {
            assert_eq!(reason_of(&error), want, "{error:?}");
        }
    }

    /// What is logged on one thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// Takes what this thread logs until the guard is dropped.
        fn listen(&self) -> tracing::subscriber::DefaultGuard {
            let log = self.clone();
            let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).without_time();
            tracing::subscriber::set_default(lines.with_writer(move || log.clone()).finish())
        }

        /// The lines of this file since the last time; each begins with how heavy it is.
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            let of_us = text.lines().filter(|line| line.contains("operator::watches"));
            of_us.map(|line| line.trim_start().to_owned()).collect()
        }
    }

    /// Runs a controller of that kind, with so many other watches, where nobody answers until a warning is logged; what was logged.
    async fn told_where_nobody_answers<K>(log: &Log, metrics: &Metrics, others: u32) -> Vec<String>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap()); // a port that nobody has
        let objects: Api<K> = Api::all(Client::try_from(nowhere).unwrap());
        let mut controller = controller::Controller::new(objects.clone(), watching());
        for _ in 0..others {
            controller = controller.watches(objects.clone(), watching(), |_: K| None::<ObjectRef<K>>);
        }
        let given = controller.run(
            |_, _| async { Ok::<_, crate::Error>(controller::Action::await_change()) },
            |_, _, _| controller::Action::await_change(),
            Arc::new(()),
        );
        let (mut given, mut lines) = (pin!(given), Vec::new());
        let mut watches = Watches::of::<K>(metrics).with_others(others);
        while !lines.iter().any(|line: &String| line.starts_with("WARN")) {
            watches.looked(&given.next().await.expect("a controller goes on for ever"));
            lines.extend(log.lines());
        }
        lines
    }

    /// Nobody else says that restores, claims of repositories and maintenance stand still.
    #[tokio::test(start_paused = true)]
    async fn a_controller_that_hears_of_no_changes_says_so_once_of_which_kind_and_why() {
        let (log, metrics) = (Log::default(), Metrics::new("backup-driver"));
        let _listening = log.listen();
        let hour = Duration::from_secs(3600); // of the runtime's clock
        let told = async {
            [
                ("CloneFromSnapshot", 3, told_where_nobody_answers::<api::CloneFromSnapshot>(&log, &metrics, 3).await),
                (
                    "BackupRepositoryClaim",
                    1,
                    told_where_nobody_answers::<api::BackupRepositoryClaim>(&log, &metrics, 1).await,
                ),
                ("BackupRepository", 0, told_where_nobody_answers::<api::BackupRepository>(&log, &metrics, 0).await),
            ]
        };
        for (kind, others, lines) in tokio::time::timeout(hour, told).await.expect("it is told") {
            let warned = lines.iter().filter(|line| line.starts_with("WARN")).count();
            let (tried, want) = (lines.iter().filter(|line| line.starts_with("DEBUG")).count(), 4 + others);
            assert_eq!((tried, warned), (want, 1), "{lines:?}");
            for line in &lines {
                assert!(line.contains(&format!("kind=\"{kind}\"")) && !line.contains("error=\"\""), "{line}");
            }
            let (warning, reason) = (lines.last().unwrap(), Reason::ClusterUnreachable);
            assert!(warning.contains("changes are not heard of") && warning.contains(reason.fix()), "{warning}");
            assert_eq!(warning.contains("and of what belongs to it"), others > 0, "{warning}");
            let counted = format!(
                r#"watch_errors_total{{kind="{kind}",reason="{reason}",component="backup-driver"}} {}"#,
                tried + warned
            );
            assert!(metrics.text().contains(&counted), "{counted} in {}", metrics.text());
        }
    }

    /// A look may be due by the controller's own clock, and what it has met is told elsewhere.
    #[test]
    fn what_a_look_gives_is_neither_an_error_of_the_watch_nor_its_end() {
        let gone = || controller::Error::ObjectNotFound(Box::new(ObjectRef::<Lease>::new("l").erase()));
        let failed = || controller::Error::QueueError(watcher::Error::NoResourceVersion);
        let (log, mut watches) = (Log::default(), Watches::of::<Lease>(&Metrics::new("driver")));
        let _listening = log.listen();
        for _ in 0..=MANY_ERRORS {
            let given: [Result<(), controller::Error<crate::Error, watcher::Error>>; 3] =
                [Ok(()), Err(gone()), Err(failed())];
            for given in &given {
                watches.looked(given);
            }
        }
        let lines = log.lines();
        let levels: Vec<_> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(levels, ["DEBUG", "DEBUG", "DEBUG", "DEBUG", "WARN", "DEBUG"], "{lines:?}");
    }

    /// The driver may lack the right to all namespaces and have the one to its own: who reads of Uploads alone looks at the wrong role.
    #[test]
    fn a_watch_of_other_namespaces_that_is_refused_says_which_right_is_lacking_and_when_it_is_there() {
        let log = Log::default();
        let _listening = log.listen();
        let mut watches = Watches::of::<Lease>(&Metrics::new("driver")).in_other_namespaces();
        let refused = kube::core::Status { code: 403, ..kube::core::Status::default() }.boxed();
        let refused: Seen = Err(watcher::Error::InitialListFailed(kube::Error::Api(refused)));
        for _ in 0..MANY_ERRORS {
            watches.saw(&refused);
        }
        watches.saw(&Ok(Event::<Lease>::InitDone));
        let lines = log.lines();
        let told: Vec<_> = lines.iter().filter(|line| !line.starts_with("DEBUG")).collect();
        let [away, back] = told[..] else { panic!("one warning, and its end: {lines:?}") };
        let words = ["WARN", "changes in other namespaces are not heard of", "Lease", Reason::ClusterForbidden.fix()];
        assert!(words.iter().all(|word| away.contains(word)), "{away}");
        assert!(back.contains("INFO") && back.contains("changes in other namespaces are heard of again"), "{back}");
    }

    /// Waits until that the watch is away is said, for so long at most; the error.
    async fn away(seen: impl Stream<Item = Seen>, long: Duration, within: Duration) -> String {
        let (mut seen, mut errors) = (pin!(seen), Errors::new(long));
        let told = async {
            loop {
                let event = seen.next().await.unwrap();
                if errors.note(&event, tokio::time::Instant::now().into_std()) == Away {
                    break chain(&event.unwrap_err());
                }
            }
        };
        tokio::time::timeout(within, told).await.expect("it is told in time")
    }

    /// Over a real connection, with short times; nothing has to be quick in it.
    #[tokio::test]
    async fn an_api_server_that_takes_connections_and_never_answers_is_told_of() {
        const SECOND: Duration = Duration::from_secs(1);
        const DEADLINE: Duration = Duration::from_secs(60);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = kube::Config::new(url.parse().unwrap());
        let client = ClientBuilder::try_from(config).unwrap().with_layer(&answered_within(SECOND)).build();
        let leases: Api<Lease> = Api::namespaced(client, "velero");
        let hanging = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        let error = away(watcher(leases.clone(), watching()).default_backoff(), SECOND, DEADLINE).await;
        assert!(error.contains("the API server gave no answer within 1s"), "{error}");
        let asked = tokio::time::timeout(DEADLINE, leases.get("l")).await.expect("a look ends too");
        assert!(matches!(asked, Err(kube::Error::Service(_))), "{asked:?}");
        hanging.abort();
    }

    /// Its lists work, and so does its first watch; then nothing comes from it any more, not even the end of that watch. All times are
    /// those of our programs, on a clock that goes on by itself.
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_falls_silent_under_a_watch_is_told_of() {
        let as_documented = Duration::from_secs(300); // docs/velero.md
        let watched = Arc::new(AtomicU32::new(0));
        let watching_it = watched.clone();
        let server = tower::service_fn(move |asked: Request<kube::client::Body>| {
            let is_watch = asked.uri().query().is_some_and(|query| query.contains("watch=true"));
            let watch = is_watch.then(|| watching_it.fetch_add(1, Ordering::Relaxed));
            async move {
                let body = match watch {
                    None => Body::from(json!({ "metadata": { "resourceVersion": "1" }, "items": [] }).to_string()),
                    Some(0) => Body::from_stream(stream::pending::<Result<String, std::io::Error>>()),
                    Some(_) => std::future::pending().await,
                };
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let client = ClientBuilder::new(server, "velero").with_layer(&answered_within(ANSWER)).build();
        let leases: Api<Lease> = Api::namespaced(client, "velero");
        let error = away(watcher(leases, watching()).default_backoff(), LONG, as_documented).await;
        assert!(error.contains("failed to start watching object"), "lists are answered: {error}");
        assert_eq!(watched.load(Ordering::Relaxed), 3, "the silent one was given up, and asked for twice more");
    }
}
