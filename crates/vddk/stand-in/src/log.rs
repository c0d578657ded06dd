//! Calls the caller's log functions with a real `va_list`, as the vendor's library does.

use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

pub(crate) type LogFunction = unsafe extern "C" fn(format: *const c_char, arguments: *mut c_void);

/// What the caller handed to `InitEx`.
#[derive(Clone, Copy)]
pub(crate) struct Callbacks {
    pub(crate) log: Option<LogFunction>,
    pub(crate) warn: Option<LogFunction>,
}

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

/// One `va_list` of the x86-64 System V convention: all arguments in the overflow area.
#[repr(C)]
struct VaList {
    general_offset: u32,
    float_offset: u32,
    overflow_area: *mut c_void,
    register_area: *mut c_void,
}

pub(crate) fn install(callbacks: Callbacks) {
    let _ = CALLBACKS.set(callbacks);
}

/// One line through the log callback.
pub(crate) fn log(line: &str) {
    say(CALLBACKS.get().and_then(|callbacks| callbacks.log), line);
}

/// One line through the warn callback.
pub(crate) fn warn(line: &str) {
    say(CALLBACKS.get().and_then(|callbacks| callbacks.warn), line);
}

fn say(function: Option<LogFunction>, line: &str) {
    let Some(function) = function else { return };
    let line = CString::new(line.replace('\0', " ")).expect("the zero bytes are gone");
    let mut overflow: [*const c_void; 1] = [line.as_ptr().cast()];
    let mut registers = [0u64; 22];
    // offsets behind the register areas (48 bytes of general, 128 of float) send every argument to the overflow area
    let mut list = VaList {
        general_offset: 48,
        float_offset: 176,
        overflow_area: overflow.as_mut_ptr().cast(),
        register_area: registers.as_mut_ptr().cast(),
    };
    // SAFETY: the format takes one string, which the list holds; everything lives until the call returns
    unsafe { function(c"stand-in: %s\n".as_ptr(), (&raw mut list).cast()) };
}

/// Ends the process: the caller broke a rule of the interface, which no test may overlook.
pub(crate) fn violation(what: &str) -> ! {
    eprintln!("stand-in VDDK: rule broken: {what}");
    std::process::abort()
}
