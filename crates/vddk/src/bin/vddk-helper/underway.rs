//! Reads that the library carries out while more are asked for (`VixDiskLib_ReadAsync`): asked for by the main thread, ended
//! by callbacks on whichever thread the library likes. One disk is open in a process, so there is one list.
//!
//! A buffer stays in the list until its callback comes. When that does not come in time the process ends
//! ([`crate::watch`]), so the library never writes into memory that was given back.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use crate::api::Failed;
use crate::layout::VixError;

/// Reads under way at once: one for each buffer of a disk's session (`vixDiskLib.nfcAio.Session.BufCount`). More would only
/// wait in the library, and keep a disk that is to be closed.
const MOST: usize = 4;

/// What `ReadAsync` gives when the callback will tell the rest (`VIX_ASYNC`).
const ACCEPTED: VixError = 25_000;

/// Who waits for a read.
pub(crate) type Reply = oneshot::Sender<Result<Bytes, Failed>>;

/// The function that the library calls at the end of a read.
pub(crate) type Callback = unsafe extern "C" fn(data: *mut c_void, result: VixError);

static READS: Reads = Reads {
    state: Mutex::new(State { under_way: BTreeMap::new(), last_ended: None }),
    asked: AtomicUsize::new(0),
    ended: Condvar::new(),
};

struct Reads {
    state: Mutex<State>,
    /// How many so far; no number comes twice.
    asked: AtomicUsize,
    ended: Condvar,
}

struct State {
    /// By number, in the order in which they were asked for.
    under_way: BTreeMap<usize, Read>,
    last_ended: Option<Instant>,
}

struct Read {
    data: BytesMut,
    length: usize,
    since: Instant,
    reply: Reply,
}

/// Has `ask` begin a read of `length` bytes: it is given the place for them, the callback, and what to hand to that. Waits
/// while too many are under way.
pub(crate) fn begin(length: usize, reply: Reply, ask: impl FnOnce(*mut u8, Callback, *mut c_void) -> VixError) {
    let mut state = wait_until(|under_way| under_way.len() < MOST);
    let number = READS.asked.fetch_add(1, Relaxed);
    let mut data = BytesMut::with_capacity(length);
    let into = data.as_mut_ptr(); // on the heap: it does not move with the list
    state.under_way.insert(number, Read { data, length, since: Instant::now(), reply });
    drop(state); // the callback may come before the call returns
    let code = ask(into, on_end, number as *mut c_void) & 0xFFFF;
    // a library that says 0 will call back, or has: never is a buffer given up that it may still write into
    if code != ACCEPTED && code != 0 {
        end(number, code);
    }
}

/// Waits until no read is under way.
pub(crate) fn settle() {
    drop(wait_until(BTreeMap::is_empty));
}

/// Since when a read hangs, if one does: none has ended for `deadline`, or one has waited for its turn behind the others and
/// has had it long ago.
pub(crate) fn hangs_since(deadline: Duration) -> Option<Instant> {
    let state = lock();
    let oldest = state.under_way.values().map(|read| read.since).min()?;
    let quiet = state.last_ended.map_or(oldest, |last| last.max(oldest));
    let most = u32::try_from(MOST).expect("a few");
    (quiet.elapsed() > deadline || oldest.elapsed() > deadline * most).then_some(oldest)
}

/// # Safety
/// None is needed: `data` is a number, and one that is not in the list is ignored.
unsafe extern "C" fn on_end(data: *mut c_void, result: VixError) {
    end(data as usize, result & 0xFFFF);
}

fn end(number: usize, code: VixError) {
    let mut state = lock();
    let Some(read) = state.under_way.remove(&number) else { return }; // the callback came before the call returned
    state.last_ended = Some(Instant::now());
    drop(state);
    READS.ended.notify_all();
    let Read { mut data, length, reply, .. } = read;
    let answer = match code {
        0 => {
            // SAFETY: the library says that it has filled the place it was given, `length` bytes
            unsafe { data.set_len(length) };
            Ok(data.freeze())
        }
        // asking for the text here would be a call into the library from its own thread
        code => Err(Failed { function: "ReadAsync", code, text: String::new() }),
    };
    let _ = reply.send(answer); // a client that is gone does not want it
}

fn wait_until(holds: impl Fn(&BTreeMap<usize, Read>) -> bool) -> MutexGuard<'static, State> {
    READS.ended.wait_while(lock(), |state| !holds(&state.under_way)).unwrap_or_else(PoisonError::into_inner)
}

fn lock() -> MutexGuard<'static, State> {
    READS.state.lock().unwrap_or_else(PoisonError::into_inner)
}
