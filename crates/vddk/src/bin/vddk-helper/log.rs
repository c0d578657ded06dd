//! The library's three log callbacks: formatted with the C library, written to standard error.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;

/// Longest log line, in bytes.
const LINE: usize = 2048;

unsafe extern "C" {
    /// On x86-64 a `va_list` is passed as a pointer, so it can go through Rust without being understood.
    fn vsnprintf(into: *mut c_char, size: usize, format: *const c_char, arguments: *mut c_void) -> c_int;
}

/// The type of the callbacks.
pub(crate) type LogFunction = unsafe extern "C" fn(format: *const c_char, arguments: *mut c_void);

pub(crate) unsafe extern "C" fn on_log(format: *const c_char, arguments: *mut c_void) {
    // SAFETY: the library hands over what it would hand to vprintf
    unsafe { write("log", format, arguments) }
}

pub(crate) unsafe extern "C" fn on_warn(format: *const c_char, arguments: *mut c_void) {
    // SAFETY: as above
    unsafe { write("warn", format, arguments) }
}

/// The library cannot go on; returning would let it go on.
pub(crate) unsafe extern "C" fn on_panic(format: *const c_char, arguments: *mut c_void) {
    // SAFETY: as above
    unsafe { write("panic", format, arguments) }
    std::process::abort();
}

/// # Safety
/// `format` is a C string, and `arguments` the `va_list` that fits it.
unsafe fn write(level: &str, format: *const c_char, arguments: *mut c_void) {
    if format.is_null() {
        return;
    }
    let mut line = [0; LINE];
    // SAFETY: the caller's promise; the size is that of the buffer, and vsnprintf ends it with a zero
    let text = unsafe {
        if vsnprintf(line.as_mut_ptr(), LINE, format, arguments) < 0 {
            return;
        }
        CStr::from_ptr(line.as_ptr())
    };
    // nowhere to report that the log cannot be written
    let _ = writeln!(std::io::stderr().lock(), "{level}: {}", text.to_string_lossy().trim_end());
}
