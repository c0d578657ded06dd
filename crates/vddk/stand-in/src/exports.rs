//! The C functions, under the names of the public header.
#![allow(unreachable_pub)] // reached from C

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;

use crate::library::{self, Handle, Library, text, with, with_designated};
use crate::log::{self, Callbacks, LogFunction, violation};
use crate::script::Call;
use crate::store::{Image, note_access, remove_access_note};
use crate::types::{
    ASYNC, Block, BlockList, CANNOT_CONNECT, ConnectParams, FAIL, FILE_READ_ONLY, INVALID_ARG, Info, MAX_SECTORS,
    NOT_SUPPORTED, OK, OUT_OF_RANGE, SECTOR, VixError,
};

const OPEN_READ_ONLY: u32 = 4;
const SPEC_STORAGE_OBJECT: u32 = 1;
const CREDENTIALS_USER: u32 = 1;
const MIN_CHUNK: u64 = 128;
const MAX_CHUNKS: u64 = 512 << 10;

fn code(result: Result<(), VixError>) -> VixError {
    result.err().unwrap_or(OK)
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_InitEx(
    major: u32,
    _minor: u32,
    log: Option<LogFunction>,
    warn: Option<LogFunction>,
    _panic: Option<LogFunction>,
    _lib_dir: *const c_char,
    config_file: *const c_char,
) -> VixError {
    if library::is_started() {
        violation("InitEx twice");
    }
    if !(6..=8).contains(&major) {
        return NOT_SUPPORTED;
    }
    log::install(Callbacks { log, warn });
    // SAFETY: the caller's text
    if let Err(problem) = read_config(unsafe { text(config_file) }.as_deref()) {
        log::warn(&problem);
        return INVALID_ARG;
    }
    let library = match Library::prepare() {
        Ok(library) => library,
        Err(problem) => {
            log::warn(&problem);
            return FAIL;
        }
    };
    let call = Call { function: "InitEx", disk: None, snapshot: None, size: None, range: None };
    if let Some(code) = library.script.play(call) {
        return code;
    }
    log::log(&format!("serving disks of {} 100%", library.settings.store.display()));
    library::start(library);
    OK
}

/// Refuses a configuration with a line that is no setting, or a setting that stands there twice.
fn read_config(file: Option<&str>) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    let lines = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let mut names = std::collections::BTreeSet::new();
    for line in lines.lines() {
        let (name, value) = line.split_once('=').ok_or_else(|| format!("{file}: no setting: {line}"))?;
        if value.is_empty() || !names.insert(name) {
            return Err(format!("{file}: without value, or twice: {line}"));
        }
    }
    Ok(())
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Exit() {
    library::end();
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ListTransportModes() -> *const c_char {
    c"file:nbdssl:nbd".as_ptr()
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_AllocateConnectParams() -> *mut ConnectParams {
    with("AllocateConnectParams", |library| {
        // SAFETY: the layout is not empty
        let params = unsafe { alloc_zeroed(Layout::new::<ConnectParams>()) }.cast::<ConnectParams>();
        library.params.push(params as usize);
        params
    })
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeConnectParams(params: *mut ConnectParams) {
    with("FreeConnectParams", |library| {
        own(library, params, "FreeConnectParams");
        library.params.retain(|known| *known != params as usize);
        // SAFETY: allocated above with this layout, and not freed before
        unsafe { dealloc(params.cast(), Layout::new::<ConnectParams>()) }
    });
}

fn own(library: &Library, params: *const ConnectParams, function: &str) {
    if !library.params.contains(&(params as usize)) {
        violation(&format!("{function} with parameters that AllocateConnectParams did not make"));
    }
}

/// Disk and identity of an access.
///
/// # Safety
/// `params` is ours, `identity` a C string.
unsafe fn access(params: *const ConnectParams, identity: *const c_char) -> Result<(String, String), VixError> {
    // SAFETY: the caller's promise
    let (disk, identity) = unsafe { (text((*params).object_id), text(identity)) };
    let (disk, identity) = disk.zip(identity).ok_or(INVALID_ARG)?;
    if identity.len() > 50 {
        violation("an identity of more than 50 characters");
    }
    Ok((disk, identity))
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_PrepareForAccess(
    params: *const ConnectParams,
    identity: *const c_char,
) -> VixError {
    with_designated("PrepareForAccess", |library| {
        own(library, params, "PrepareForAccess");
        // SAFETY: the parameters are ours, the identity is the caller's
        let access = match unsafe { access(params, identity) } {
            Ok(access) => access,
            Err(code) => return code,
        };
        let noted = note_access(&library.settings.store, &access.0, &access.1);
        // a failed preparation is to be ended too: some machines may have been announced
        library.accesses.push(access);
        code(noted)
    })
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_EndAccess(params: *const ConnectParams, identity: *const c_char) -> VixError {
    with_designated("EndAccess", |library| {
        own(library, params, "EndAccess");
        // SAFETY: as above
        let access = match unsafe { access(params, identity) } {
            Ok(access) => access,
            Err(code) => return code,
        };
        if library.connections.values().any(|connection| connection.disk == access.0) {
            violation("EndAccess before Disconnect");
        }
        library.accesses.retain(|known| *known != access);
        code(remove_access_note(&library.settings.store, &access.0, &access.1))
    })
}

/// The modes that work wherever there is a network; nobody has prepared this machine for others.
fn over_the_network(mode: &str) -> Option<&'static CStr> {
    match mode {
        "nbdssl" => Some(c"nbdssl"),
        "nbd" => Some(c"nbd"),
        _ => None,
    }
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ConnectEx(
    params: *const ConnectParams,
    read_only: c_char,
    snapshot_ref: *const c_char,
    modes: *const c_char,
    connection: *mut *mut c_void,
) -> VixError {
    with_designated("ConnectEx", |library| own(library, params, "ConnectEx"));
    // SAFETY: the parameters are ours, and their texts the caller's until EndAccess
    let (facts, user, password) = unsafe {
        if text(snapshot_ref).is_some() {
            violation("a snapshot reference for a first-class disk");
        }
        let params = &*params;
        if (params.spec_type, params.cred_type) != (SPEC_STORAGE_OBJECT, CREDENTIALS_USER) {
            return NOT_SUPPORTED;
        }
        let required = text(params.object_id).filter(|_| text(params.datastore).is_some());
        let Some(disk) = required.filter(|_| text(params.server_name).is_some()) else { return INVALID_ARG };
        let modes = text(modes).unwrap_or_else(|| "nbdssl:nbd".to_owned());
        let Some(transport) = modes.split(':').find_map(over_the_network) else { return NOT_SUPPORTED };
        let facts = library::Connection {
            disk,
            transport,
            snapshot: text(params.snapshot),
            thumbprint: text(params.thumbprint).unwrap_or_default(),
            read_only: read_only != 0,
        };
        (facts, text(params.user).unwrap_or_default(), text(params.password).unwrap_or_default())
    };
    let (disk, snapshot) = (Some(facts.disk.as_str()), facts.snapshot.as_deref());
    let call = Call { function: "ConnectEx", disk, snapshot, size: None, range: None };
    if let Err(code) = library::play(call) {
        return code;
    }
    with_designated("ConnectEx", |library| {
        if !library.accesses.iter().any(|(disk, _)| *disk == facts.disk) {
            violation("ConnectEx without PrepareForAccess");
        }
        if !library.settings.admits(&user, &password) {
            log::warn(&format!("cannot log in {user}"));
            return CANNOT_CONNECT;
        }
        let id = library.new_id();
        library.connections.insert(id, facts);
        // SAFETY: the caller's pointer; the number is never followed
        unsafe { *connection = id as *mut c_void };
        OK
    })
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Disconnect(connection: *mut c_void) -> VixError {
    with_designated("Disconnect", |library| {
        if library.handles.values().any(|handle| handle.connection == connection as usize) {
            violation("Disconnect with an open handle");
        }
        if library.connections.remove(&(connection as usize)).is_none() {
            violation("Disconnect of a connection that is not open");
        }
        OK
    })
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Open(
    connection: *mut c_void,
    path: *const c_char,
    flags: u32,
    handle: *mut *mut c_void,
) -> VixError {
    let facts = with_designated("Open", |library| library.connection(connection, "Open"));
    // SAFETY: the caller's text
    if unsafe { text(path) }.is_some_and(|path| path != facts.disk) {
        return INVALID_ARG;
    }
    let (disk, snapshot) = (Some(facts.disk.as_str()), facts.snapshot.as_deref());
    if let Err(code) = library::play(Call { function: "Open", disk, snapshot, size: None, range: None }) {
        return code;
    }
    with_designated("Open", |library| {
        let settings = &library.settings;
        let trusted = |wanted: &String| wanted.eq_ignore_ascii_case(&facts.thumbprint);
        if !settings.thumbprint.as_ref().is_none_or(trusted) {
            log::warn("the thumbprint is not that of the server");
            return FAIL;
        }
        let writable = flags & OPEN_READ_ONLY == 0;
        if writable && facts.read_only {
            return FILE_READ_ONLY;
        }
        match Image::open(&settings.store, &facts.disk, facts.snapshot.as_deref(), writable) {
            Ok(image) => {
                let id = library.new_id();
                library.handles.insert(id, Arc::new(Handle::new(connection as usize, &facts, image)));
                // SAFETY: the caller's pointer; the number is never followed
                unsafe { *handle = id as *mut c_void };
                OK
            }
            Err(code) => code,
        }
    })
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Close(id: *mut c_void) -> VixError {
    let handle = library::handle(id, "Close");
    let played = handle.alone("Close", || library::play(handle.call("Close", None)));
    // the handle is gone even when closing fails
    with_designated("Close", |library| library.handles.remove(&(id as usize)));
    code(played)
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetTransportMode(id: *mut c_void) -> *const c_char {
    library::handle(id, "GetTransportMode").transport.as_ptr()
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetInfo(id: *mut c_void, info: *mut *mut Info) -> VixError {
    let handle = library::handle(id, "GetInfo");
    let filled = Info {
        bios_geometry: [0; 3],
        physical_geometry: [0; 3],
        capacity: handle.image.sectors,
        adapter_type: 0,
        num_links: 1,
        parent_file_name_hint: std::ptr::null(),
        uuid: std::ptr::null(),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    // SAFETY: the caller's pointer; it gives the box back to FreeInfo
    unsafe { *info = Box::into_raw(Box::new(filled)) };
    OK
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeInfo(info: *mut Info) {
    // SAFETY: made by GetInfo
    drop(unsafe { Box::from_raw(info) });
}

/// Checks a request and plays the script for it.
fn request(handle: &Handle, function: &'static str, start: u64, count: u64) -> Result<usize, VixError> {
    let length = sectors(handle, function, start, count)?;
    library::play(handle.call(function, Some((start * SECTOR, count * SECTOR))))?;
    Ok(length)
}

/// Checks a request; its bytes.
fn sectors(handle: &Handle, function: &'static str, start: u64, count: u64) -> Result<usize, VixError> {
    if count == 0 || count > MAX_SECTORS {
        violation(&format!("{function} of {count} sectors"));
    }
    if start.checked_add(count).is_none_or(|end| end > handle.image.sectors) {
        return Err(OUT_OF_RANGE);
    }
    usize::try_from(count * SECTOR).map_err(|_| INVALID_ARG)
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Read(id: *mut c_void, start: u64, count: u64, buffer: *mut u8) -> VixError {
    let handle = library::handle(id, "Read");
    code(handle.alone("Read", || {
        let length = request(&handle, "Read", start, count)?;
        // SAFETY: the caller's buffer has room for `count` sectors
        handle.image.read(start, unsafe { std::slice::from_raw_parts_mut(buffer, length) })
    }))
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_ReadAsync(
    id: *mut c_void,
    start: u64,
    count: u64,
    buffer: *mut u8,
    callback: unsafe extern "C" fn(*mut c_void, VixError),
    data: *mut c_void,
) -> VixError {
    let handle = library::handle(id, "ReadAsync");
    let length = match handle.one_at_a_time("ReadAsync", || sectors(&handle, "ReadAsync", start, count)) {
        Ok(length) => length,
        Err(code) => return code,
    };
    handle.read_begins();
    let (buffer, data) = (buffer as usize, data as usize);
    std::thread::spawn(move || {
        // the way to the host, which many requests may be on, and then the host
        let range = Some((start * SECTOR, count * SECTOR));
        let travelled = library::play(handle.call("Travel", range));
        let turn = handle.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = travelled.and_then(|()| library::play(handle.call("Read", range))).and_then(|()| {
            // SAFETY: the caller's buffer has room for `count` sectors, and is ours until the callback
            handle.image.read(start, unsafe { std::slice::from_raw_parts_mut(buffer as *mut u8, length) })
        });
        drop(turn);
        // SAFETY: the caller's function, with what it gave for it
        unsafe { callback(data as *mut c_void, code(read)) };
        handle.read_ended();
    });
    ASYNC
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Wait(id: *mut c_void) -> VixError {
    library::handle(id, "Wait").wait();
    OK
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Write(id: *mut c_void, start: u64, count: u64, buffer: *const u8) -> VixError {
    let handle = library::handle(id, "Write");
    code(handle.alone("Write", || {
        if !handle.image.writable {
            return Err(FILE_READ_ONLY);
        }
        let length = request(&handle, "Write", start, count)?;
        // SAFETY: the caller's buffer holds `count` sectors
        handle.image.write(start, unsafe { std::slice::from_raw_parts(buffer, length) })
    }))
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_Flush(id: *mut c_void) -> VixError {
    let handle = library::handle(id, "Flush");
    code(handle.alone("Flush", || {
        library::play(handle.call("Flush", None))?;
        handle.image.flush()
    }))
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_QueryAllocatedBlocks(
    id: *mut c_void,
    start: u64,
    count: u64,
    chunk: u64,
    list: *mut *mut BlockList,
) -> VixError {
    let handle = library::handle(id, "QueryAllocatedBlocks");
    code(handle.alone("QueryAllocatedBlocks", || {
        let aligned = chunk >= MIN_CHUNK && start.is_multiple_of(chunk) && count.is_multiple_of(chunk);
        let inside = start.checked_add(count).is_some_and(|end| end <= handle.image.sectors);
        if !aligned || !inside || count == 0 || count / chunk > MAX_CHUNKS {
            return Err(INVALID_ARG);
        }
        let blocks = handle.image.allocated(start, count, chunk)?;
        // SAFETY: the caller's pointer; it gives the list back to FreeBlockList
        unsafe { *list = new_list(&blocks) };
        Ok(())
    }))
}

fn list_layout(count: usize) -> Layout {
    let bytes = 8 + count * size_of::<Block>();
    Layout::from_size_align(bytes, 8).expect("a list of at most half a million blocks")
}

fn new_list(blocks: &[Block]) -> *mut BlockList {
    // SAFETY: the layout is not empty, and has room for the count and all blocks
    unsafe {
        let list = alloc_zeroed(list_layout(blocks.len())).cast::<BlockList>();
        (&raw mut (*list).count).write(u32::try_from(blocks.len()).expect("at most half a million blocks"));
        let first = (&raw mut (*list).blocks).cast::<Block>();
        std::ptr::copy_nonoverlapping(blocks.as_ptr(), first, blocks.len());
        list
    }
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeBlockList(list: *mut BlockList) -> VixError {
    // SAFETY: made by new_list, whose layout the count gives
    unsafe {
        let count = (&raw const (*list).count).read();
        dealloc(list.cast(), list_layout(count as usize));
    }
    OK
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_GetErrorText(error: VixError, _locale: *const c_char) -> *mut c_char {
    CString::new(format!("stand-in error {}", error & 0xFFFF)).expect("no zero byte").into_raw()
}

/// # Safety
/// As in the public header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn VixDiskLib_FreeErrorText(text: *mut c_char) {
    // SAFETY: made by GetErrorText
    drop(unsafe { CString::from_raw(text) });
}
