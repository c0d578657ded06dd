//! What a process has open, and the rules of the interface: which thread, which order, how many at once.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use crate::log::violation;
use crate::script::{Call, Script};
use crate::store::{Image, Settings};
use crate::types::{SECTOR, VixError};

/// A logged-in connection to one disk.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) disk: String,
    pub(crate) snapshot: Option<String>,
    pub(crate) thumbprint: String,
    pub(crate) read_only: bool,
    /// The one that was chosen.
    pub(crate) transport: &'static CStr,
}

/// An open disk.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) connection: usize,
    pub(crate) disk: String,
    pub(crate) snapshot: Option<String>,
    pub(crate) transport: &'static CStr,
    pub(crate) image: Image,
    busy: AtomicBool,
    /// Reads that were accepted and have not ended.
    under_way: Mutex<usize>,
    ended: Condvar,
    /// The host serves one request of a disk at a time.
    pub(crate) turn: Mutex<()>,
}

impl Handle {
    pub(crate) fn new(connection: usize, facts: &Connection, image: Image) -> Self {
        let (disk, snapshot) = (facts.disk.clone(), facts.snapshot.clone());
        Self {
            connection,
            disk,
            snapshot,
            transport: facts.transport,
            image,
            busy: AtomicBool::new(false),
            under_way: Mutex::default(),
            ended: Condvar::new(),
            turn: Mutex::default(),
        }
    }

    /// Runs one call; another one at the same time is a mistake of the caller, and so is a read under way.
    pub(crate) fn alone<T>(&self, function: &str, call: impl FnOnce() -> T) -> T {
        if *self.under_way() > 0 {
            violation(&format!("{function} while reads are under way on the same handle"));
        }
        self.one_at_a_time(function, call)
    }

    /// A read is accepted.
    pub(crate) fn read_begins(&self) {
        *self.under_way() += 1;
    }

    /// Its callback has returned.
    pub(crate) fn read_ended(&self) {
        *self.under_way() -= 1;
        self.ended.notify_all();
    }

    /// Waits until no read is under way.
    pub(crate) fn wait(&self) {
        drop(self.ended.wait_while(self.under_way(), |reads| *reads > 0).unwrap_or_else(PoisonError::into_inner));
    }

    fn under_way(&self) -> MutexGuard<'_, usize> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one call, beside which reads may be under way.
    pub(crate) fn one_at_a_time<T>(&self, function: &str, call: impl FnOnce() -> T) -> T {
        if self.busy.swap(true, Ordering::SeqCst) {
            violation(&format!("{function} while another call on the same handle is running"));
        }
        let result = call();
        self.busy.store(false, Ordering::SeqCst);
        result
    }

    pub(crate) fn call<'a>(&'a self, function: &'a str, range: Option<(u64, u64)>) -> Call<'a> {
        let size = Some(self.image.sectors * SECTOR);
        Call { function, disk: Some(&self.disk), snapshot: self.snapshot.as_deref(), size, range }
    }
}

/// The library from `InitEx` to `Exit`.
#[derive(Debug)]
pub struct Library {
    pub(crate) settings: Settings,
    pub(crate) script: Script,
    thread: ThreadId,
    next: usize,
    pub(crate) params: Vec<usize>,
    /// Disk and identity.
    pub(crate) accesses: Vec<(String, String)>,
    pub(crate) connections: HashMap<usize, Connection>,
    pub(crate) handles: HashMap<usize, Arc<Handle>>,
}

static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Reads the settings beside the shared library. The library is not started yet.
    pub(crate) fn prepare() -> Result<Self, String> {
        let beside = own_folder().ok_or("cannot find myself")?.join("stand-in.json");
        let text = std::fs::read(&beside).map_err(|error| format!("{}: {error}", beside.display()))?;
        let settings: Settings =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", beside.display()))?;
        Ok(Self {
            script: Script::of(&settings.store),
            settings,
            thread: std::thread::current().id(),
            next: 1,
            params: Vec::new(),
            accesses: Vec::new(),
            connections: HashMap::new(),
            handles: HashMap::new(),
        })
    }

    /// A number that no other thing of this process has.
    pub(crate) fn new_id(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    pub(crate) fn connection(&self, id: *const c_void, function: &str) -> Connection {
        let found = self.connections.get(&(id as usize)).cloned();
        found.unwrap_or_else(|| violation(&format!("{function} on a connection that is not open")))
    }
}

fn slot() -> MutexGuard<'static, Option<Library>> {
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the library.
pub(crate) fn start(library: Library) {
    let mut slot = slot();
    if slot.is_some() {
        violation("InitEx twice");
    }
    *slot = Some(library);
}

/// Whether `InitEx` has succeeded.
pub(crate) fn is_started() -> bool {
    slot().is_some()
}

/// Ends the library.
pub(crate) fn end() {
    match slot().take() {
        Some(library) => {
            let open = (library.handles.len(), library.connections.len(), library.accesses.len());
            if open != (0, 0, 0) || !library.params.is_empty() {
                violation(&format!("Exit with (handles, connections, accesses) {open:?} or parameters left"));
            }
        }
        None => violation("Exit before InitEx"),
    }
}

/// Runs a call that any thread may make.
pub(crate) fn with<T>(function: &str, call: impl FnOnce(&mut Library) -> T) -> T {
    match slot().as_mut() {
        Some(library) => call(library),
        None => violation(&format!("{function} before InitEx")),
    }
}

/// Runs a call that only the designated thread may make.
pub(crate) fn with_designated<T>(function: &str, call: impl FnOnce(&mut Library) -> T) -> T {
    with(function, |library| {
        if library.thread != std::thread::current().id() {
            violation(&format!("{function} from another thread than InitEx"));
        }
        call(library)
    })
}

/// What the script has for a call. The lock is not held while it plays: a hang must not stop other handles.
pub(crate) fn play(call: Call<'_>) -> Result<(), VixError> {
    let store = with(call.function, |library| library.settings.store.clone());
    Script::of(&store).play(call).map_or(Ok(()), Err)
}

/// The handle behind a pointer.
pub(crate) fn handle(id: *const c_void, function: &str) -> Arc<Handle> {
    let found = with(function, |library| library.handles.get(&(id as usize)).cloned());
    found.unwrap_or_else(|| violation(&format!("{function} on a handle that is not open")))
}

/// A text of the caller; empty counts as absent.
///
/// # Safety
/// `text` is null or a C string.
pub(crate) unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}

/// The folder of this shared library.
fn own_folder() -> Option<PathBuf> {
    // SAFETY: dladdr fills the structure or returns 0; the name lives as long as the library is loaded
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(own_folder as *const c_void, &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let name = OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes());
        Path::new(name).parent().map(Path::to_owned)
    }
}
