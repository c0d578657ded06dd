//! The library's functions, found at run time, behind calls that return `Result`. Every call is under the watch.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::layout::{BlockList, ConnectParams, Connection, Handle, Info, VixError};
use crate::log::{LogFunction, on_log, on_panic, on_warn};
use crate::underway::Callback;
use crate::watch::Watch;

/// Versions of the interface to ask for, in this order: a library accepts older ones than its own.
const VERSIONS: [(u32, u32); 3] = [(6, 7), (7, 0), (8, 0)];

/// The library said no.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) function: &'static str,
    /// As returned; the number is in the lower 16 bits.
    pub(crate) code: VixError,
    pub(crate) text: String,
}

type InitEx = unsafe extern "C" fn(
    major: u32,
    minor: u32,
    log: LogFunction,
    warn: LogFunction,
    panic: LogFunction,
    library_dir: *const c_char,
    config: *const c_char,
) -> VixError;
type Exit = unsafe extern "C" fn();
type AllocateConnectParams = unsafe extern "C" fn() -> *mut ConnectParams;
type FreeConnectParams = unsafe extern "C" fn(*mut ConnectParams);
type Access = unsafe extern "C" fn(*const ConnectParams, identity: *const c_char) -> VixError;
type ConnectEx = unsafe extern "C" fn(
    *const ConnectParams,
    read_only: c_char,
    snapshot: *const c_char,
    modes: *const c_char,
    *mut Connection,
) -> VixError;
type Disconnect = unsafe extern "C" fn(Connection) -> VixError;
type Open = unsafe extern "C" fn(Connection, path: *const c_char, flags: u32, *mut Handle) -> VixError;
type Close = unsafe extern "C" fn(Handle) -> VixError;
type GetTransportMode = unsafe extern "C" fn(Handle) -> *const c_char;
type GetInfo = unsafe extern "C" fn(Handle, *mut *mut Info) -> VixError;
type FreeInfo = unsafe extern "C" fn(*mut Info);
type Read = unsafe extern "C" fn(Handle, start: u64, count: u64, into: *mut u8) -> VixError;
type ReadAsync = unsafe extern "C" fn(
    Handle,
    start: u64,
    count: u64,
    into: *mut u8,
    at_the_end: Callback,
    for_it: *mut c_void,
) -> VixError;
type Wait = unsafe extern "C" fn(Handle) -> VixError;
type Write = unsafe extern "C" fn(Handle, start: u64, count: u64, from: *const u8) -> VixError;
type Flush = unsafe extern "C" fn(Handle) -> VixError;
type QueryAllocatedBlocks =
    unsafe extern "C" fn(Handle, start: u64, count: u64, chunk: u64, *mut *mut BlockList) -> VixError;
type FreeBlockList = unsafe extern "C" fn(*mut BlockList) -> VixError;
type GetErrorText = unsafe extern "C" fn(VixError, locale: *const c_char) -> *mut c_char;
type FreeErrorText = unsafe extern "C" fn(*mut c_char);

/// The functions. Optional ones are missing in old libraries.
pub(crate) struct Api {
    pub(crate) init_ex: InitEx,
    pub(crate) exit: Exit,
    pub(crate) allocate_connect_params: AllocateConnectParams,
    pub(crate) free_connect_params: FreeConnectParams,
    pub(crate) prepare_for_access: Access,
    pub(crate) end_access: Access,
    pub(crate) connect_ex: ConnectEx,
    pub(crate) disconnect: Disconnect,
    pub(crate) open: Open,
    pub(crate) close: Close,
    pub(crate) get_transport_mode: GetTransportMode,
    pub(crate) get_info: GetInfo,
    pub(crate) free_info: FreeInfo,
    pub(crate) read: Read,
    /// With what waits for all of them.
    pub(crate) read_async: Option<(ReadAsync, Wait)>,
    pub(crate) write: Write,
    pub(crate) flush: Flush,
    pub(crate) allocated: Option<(QueryAllocatedBlocks, FreeBlockList)>,
    get_error_text: GetErrorText,
    free_error_text: FreeErrorText,
    pub(crate) watch: &'static Watch,
    /// Keeps the functions in memory.
    _library: Library,
}

/// One function, by its name without prefix.
///
/// # Safety
/// `T` is the function's type.
unsafe fn function<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    let symbol = format!("VixDiskLib_{name}\0");
    // SAFETY: the caller's promise
    match unsafe { library.get::<T>(symbol.as_bytes()) } {
        Ok(found) => Ok(*found),
        Err(_) => Err(format!("it has no function VixDiskLib_{name}")),
    }
}

impl Api {
    /// Loads the file. The error says what is wrong with it.
    pub(crate) fn load(file: &Path, watch: &'static Watch) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers, which is what the user supplied it for
        let library = watch.call("loading the library", || unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) });
        let library = library.map_err(|error| reason(&error))?;
        // SAFETY: the types above are those of the library's public header
        unsafe {
            let allocated = function(&library, "QueryAllocatedBlocks").ok();
            let free_list = function(&library, "FreeBlockList").ok();
            let read_async = function(&library, "ReadAsync").ok();
            let wait = function(&library, "Wait").ok();
            Ok(Self {
                init_ex: function(&library, "InitEx")?,
                exit: function(&library, "Exit")?,
                allocate_connect_params: function(&library, "AllocateConnectParams")
                    .map_err(|problem| format!("{problem}, which first-class disks need: it is older than 6.7"))?,
                free_connect_params: function(&library, "FreeConnectParams")?,
                prepare_for_access: function(&library, "PrepareForAccess")?,
                end_access: function(&library, "EndAccess")?,
                connect_ex: function(&library, "ConnectEx")?,
                disconnect: function(&library, "Disconnect")?,
                open: function(&library, "Open")?,
                close: function(&library, "Close")?,
                get_transport_mode: function(&library, "GetTransportMode")?,
                get_info: function(&library, "GetInfo")?,
                free_info: function(&library, "FreeInfo")?,
                read: function(&library, "Read")?,
                read_async: read_async.zip(wait),
                write: function(&library, "Write")?,
                // in every library since 6.0; without it nobody could say that a restored disk is stable
                flush: function(&library, "Flush")?,
                allocated: allocated.zip(free_list),
                get_error_text: function(&library, "GetErrorText")?,
                free_error_text: function(&library, "FreeErrorText")?,
                watch,
                _library: library,
            })
        }
    }

    /// Starts the library, once per process, on the main thread.
    pub(crate) fn init(&self, library_dir: &Path, config: &Path) -> Result<(), Failed> {
        let library_dir = path_text(library_dir);
        let config = path_text(config);
        let mut last = Ok(());
        for (major, minor) in VERSIONS {
            // SAFETY: both texts outlive the call, and the callbacks live as long as the process
            last = self.call("InitEx", || unsafe {
                let (dir, config) = (library_dir.as_ptr(), config.as_ptr());
                (self.init_ex)(major, minor, on_log, on_warn, on_panic, dir, config)
            });
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Leaves the library; nothing may be open.
    pub(crate) fn exit(&self) {
        // SAFETY: called once, last, on the main thread
        self.watch.call("Exit", || unsafe { (self.exit)() });
    }

    /// Runs one call under the watch and turns its number into a result.
    pub(crate) fn call(&self, function: &'static str, call: impl FnOnce() -> VixError) -> Result<(), Failed> {
        match self.watch.call(function, call) {
            code if code & 0xFFFF == 0 => Ok(()),
            code => {
                let failed = Failed { function, code: code & 0xFFFF, text: self.error_text(code) };
                eprintln!("{function} failed with {}: {}", failed.code, failed.text);
                Err(failed)
            }
        }
    }

    fn error_text(&self, code: VixError) -> String {
        // SAFETY: the text is the library's until it is freed, and copied before
        self.watch.call("GetErrorText", || unsafe {
            let text = (self.get_error_text)(code, std::ptr::null());
            if text.is_null() {
                return String::new();
            }
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            (self.free_error_text)(text);
            copy
        })
    }
}

/// The loader's own words; libloading's Display leaves them to the source.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn path_text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("paths hold no zero byte")
}

/// Keeps pointer types out of the way of threads: everything here stays on the main thread.
pub(crate) type NotSend = std::marker::PhantomData<*mut c_void>;
