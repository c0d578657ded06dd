//! Sees to it that this process ends: when its parent goes, when it is asked to, and when the library does not return.
//! Makes no call into the library.

use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use vddk::order::Message;

use crate::underway;

/// How often the deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// The status of a process that gave up on the library.
const EXIT_HUNG: i32 = 3;

/// Deadlines of this process, and whether it is to end.
pub(crate) struct Watch {
    call_deadline: Duration,
    stop_deadline: Duration,
    heartbeat: Duration,
    /// The library's function that is running, and since when.
    running: Mutex<Option<(&'static str, Instant)>>,
    stop_requested: Mutex<Option<Instant>>,
    /// Cancelled when the access is to be ended.
    pub(crate) stop: CancellationToken,
}

/// SIGTERM waits for [`Watch::start`], and comes when the thread that started us ends.
///
/// Not SIGKILL: ending the access is what lets vCenter migrate the machine again.
pub(crate) fn follow_parent() {
    // SAFETY: the set is initialised by sigemptyset before it is used; no other thread exists yet, so all inherit it
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    // a parent that is gone already has closed standard input, which ends us too
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

impl Watch {
    /// Starts the threads that watch. They live as long as the process.
    pub(crate) fn start(call_deadline: Duration, stop_deadline: Duration, heartbeat: Duration) -> &'static Self {
        let watch: &'static Self = Box::leak(Box::new(Self {
            call_deadline,
            stop_deadline,
            heartbeat,
            running: Mutex::new(None),
            stop_requested: Mutex::new(None),
            stop: CancellationToken::new(),
        }));
        std::thread::spawn(|| watch.wait_for_end_of_input());
        std::thread::spawn(|| watch.wait_for_signal());
        std::thread::spawn(|| watch.keep_time());
        watch
    }

    /// Runs one call into the library under the deadline.
    pub(crate) fn call<T>(&self, function: &'static str, call: impl FnOnce() -> T) -> T {
        *lock(&self.running) = Some((function, Instant::now()));
        let result = call();
        *lock(&self.running) = None;
        result
    }

    /// Asks for the end. The clock for it starts.
    pub(crate) fn request_stop(&self) {
        lock(&self.stop_requested).get_or_insert_with(Instant::now);
        self.stop.cancel();
    }

    fn wait_for_end_of_input(&self) {
        let mut rest = [0; 64];
        while matches!(std::io::stdin().lock().read(&mut rest), Ok(count) if count > 0) {}
        self.request_stop();
    }

    fn wait_for_signal(&self) {
        let mut signal = 0;
        // SAFETY: the set is initialised by sigemptyset before it is used; SIGTERM is blocked in every thread
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigwait(&raw const set, &raw mut signal);
        }
        self.request_stop();
    }

    fn keep_time(&self) {
        let mut said = Instant::now();
        loop {
            std::thread::sleep(TICK.min(self.heartbeat));
            let running = *lock(&self.running);
            if let Some((function, since)) = running
                && since.elapsed() > self.call_deadline
            {
                give_up(function, since);
            }
            if let Some(since) = underway::hangs_since(self.call_deadline) {
                give_up("ReadAsync", since);
            }
            let requested = *lock(&self.stop_requested);
            if let Some(since) = requested
                && since.elapsed() > self.stop_deadline
            {
                give_up(running.map_or("ending the access", |(function, _)| function), since);
            }
            if said.elapsed() >= self.heartbeat {
                said = Instant::now();
                emit(&Message::Alive);
            }
        }
    }
}

/// Nothing can be called any more: the library is stuck, maybe with its locks held.
fn give_up(function: &str, since: Instant) -> ! {
    let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    emit(&Message::Hung { function: function.into(), millis });
    // SAFETY: no destructor and no exit handler may run; the library's would wait for the stuck call
    unsafe { libc::_exit(EXIT_HUNG) }
}

/// Tells the parent. One that is gone is told in vain.
pub(crate) fn emit(message: &Message) {
    let line = serde_json::to_string(message).expect("a message is plain data");
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
