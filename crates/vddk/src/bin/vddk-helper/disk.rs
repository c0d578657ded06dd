//! One open disk: from PrepareForAccess to EndAccess, in order, whatever fails in between. Main thread only.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use bytes::{Bytes, BytesMut};
use vddk::order::Order;
use vddk::{Access, catalogue};

use crate::api::{Api, Failed, NotSend};
use crate::layout::{
    Block, CREDENTIALS_USER, ConnectParams, Connection, Handle, NFC_PORT, OPEN_READ_ONLY, OPEN_UNBUFFERED, SECTOR,
    SPEC_STORAGE_OBJECT,
};
use crate::underway::{self, Reply};

/// Allocation is asked for in chunks of this many sectors: the library's smallest.
const CHUNK: u64 = 128;
/// Chunks per question: the library's limit.
const MAX_CHUNKS: u64 = 512 << 10;
/// OPERATION_DISABLED: an earlier access was not ended.
const OPERATION_DISABLED: u64 = 20005;

/// An open disk. Reads and writes are whole sectors.
pub(crate) struct Disk<'a> {
    access: Session<'a>,
    connection: Connection,
    handle: Handle,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) transport: String,
    /// Whether the library can say what is allocated.
    pub(crate) knows_allocation: bool,
    /// Whether reads may be under way together.
    reads_together: bool,
    /// Whether a read was begun that the library was not waited for.
    begun: Cell<bool>,
}

impl<'a> Disk<'a> {
    /// Opens the disk. An access that somebody left behind under our identity is ended, and then it is tried once more.
    pub(crate) fn open(api: &'a Api, order: &Order) -> Result<Self, Failed> {
        match Self::open_once(api, order) {
            Err(failed) if failed.code == OPERATION_DISABLED => {
                eprintln!("an earlier access was left behind; it was ended, trying once more");
                Self::open_once(api, order)
            }
            result => result,
        }
    }

    /// Whatever fails, everything before it is undone: `Session` ends the access when it is dropped.
    fn open_once(api: &'a Api, order: &Order) -> Result<Self, Failed> {
        let access = Session::begin(api, order)?;
        let read_only = order.access == Access::Read;
        let modes = text(&order.transport_modes);
        let mut connection = null_mut();
        // SAFETY: the parameters live in `access`, the texts until the call returns
        api.call("ConnectEx", || unsafe {
            let read_only = i8::from(read_only);
            (api.connect_ex)(access.params, read_only, null(), modes.as_ptr(), &raw mut connection)
        })?;
        let flags = if read_only { OPEN_READ_ONLY } else { OPEN_UNBUFFERED };
        let mut handle = null_mut();
        // SAFETY: the connection is open; a first-class disk has no path
        let opened = api.call("Open", || unsafe { (api.open)(connection, null(), flags, &raw mut handle) });
        if let Err(failed) = opened {
            disconnect(api, connection, "Disconnect").ok();
            return Err(failed);
        }
        let transport = transport_mode(api, handle);
        // with the other modes the library reads before it returns, whatever it was asked
        let reads_together = read_only && api.read_async.is_some() && transport.starts_with("nbd");
        let (size, knows_allocation) = (0, false);
        let mut disk = Self {
            access,
            connection,
            handle,
            size,
            transport,
            knows_allocation,
            reads_together,
            begun: Cell::new(false),
        };
        match disk.capacity() {
            Ok(sectors) => disk.size = sectors * SECTOR,
            Err(failed) => {
                disk.close();
                return Err(failed);
            }
        }
        // what was just written may show as free, so writers do not ask
        disk.knows_allocation = read_only && disk.size >= CHUNK * SECTOR && disk.query(0, CHUNK).is_ok();
        Ok(disk)
    }

    /// Ends everything in order, whatever fails; what failed.
    pub(crate) fn close(self) -> Vec<Failed> {
        let api = self.access.api;
        self.settle();
        // SAFETY: the handle is open and not used afterwards
        let closed = api.call("Close", || unsafe { (api.close)(self.handle) });
        let disconnected = disconnect(api, self.connection, "Disconnect");
        let ended = self.access.end();
        [closed, disconnected, ended].into_iter().filter_map(Result::err).collect()
    }

    /// Answers with exactly `length` bytes from `offset`, both multiples of a sector: at once, or when the library has them.
    pub(crate) fn answer_read(&self, offset: u64, length: u32, reply: Reply) {
        let api = self.access.api;
        let Some((read_async, _)) = api.read_async.filter(|_| self.reads_together) else {
            let _ = reply.send(self.read(offset, length));
            return;
        };
        let (start, count) = (offset / SECTOR, u64::from(length) / SECTOR);
        self.begun.set(true);
        underway::begin(length as usize, reply, |into, at_the_end, for_it| {
            // SAFETY: the handle is open until all reads have ended, other calls on it wait for that, and the place has
            // room for `count` sectors and stays until `at_the_end` is called
            api.watch.call("ReadAsync", || unsafe { read_async(self.handle, start, count, into, at_the_end, for_it) })
        });
    }

    /// Waits for the reads under way: no other call on the handle may run beside them. The library itself is asked, also when
    /// all answers are there: it may not be done with a read that it has answered.
    fn settle(&self) {
        let api = self.access.api;
        if let Some((_, wait)) = api.read_async.filter(|_| self.begun.take()) {
            // SAFETY: the handle is open; what fails here has been told to whoever reads
            let _ = api.call("Wait", || unsafe { wait(self.handle) });
        }
        underway::settle();
    }

    fn read(&self, offset: u64, length: u32) -> Result<Bytes, Failed> {
        let api = self.access.api;
        let length = length as usize;
        let mut data = BytesMut::with_capacity(length);
        let (start, count) = (offset / SECTOR, length as u64 / SECTOR);
        // SAFETY: the handle is open, calls on it are serial as `self` stays on one thread, and the library writes
        // `count` sectors, which is the buffer's capacity
        api.call("Read", || unsafe { (api.read)(self.handle, start, count, data.as_mut_ptr()) })?;
        // SAFETY: the library has filled these bytes
        unsafe { data.set_len(length) };
        Ok(data.freeze())
    }

    /// Writes all of `data`, whole sectors, at `offset`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Failed> {
        self.settle();
        let api = self.access.api;
        let (start, count) = (offset / SECTOR, data.len() as u64 / SECTOR);
        // SAFETY: as in `read`; the library reads `count` sectors, which is at most the slice
        api.call("Write", || unsafe { (api.write)(self.handle, start, count, data.as_ptr()) })
    }

    /// Returns once everything written is stable.
    pub(crate) fn flush(&self) -> Result<(), Failed> {
        self.settle();
        let api = self.access.api;
        // SAFETY: the handle is open
        api.call("Flush", || unsafe { (api.flush)(self.handle) })
    }

    /// The allocated ranges among the chunks that lie wholly in the given bytes, rounded out to chunks, and up to
    /// where they are valid. `None` when no whole chunk can be asked for there.
    pub(crate) fn allocated(&self, offset: u64, length: u64) -> Result<Option<(Vec<Block>, u64)>, Failed> {
        let first = offset / SECTOR / CHUNK * CHUNK;
        let whole_chunks = self.size / SECTOR / CHUNK * CHUNK;
        let end = (offset + length).div_ceil(SECTOR * CHUNK) * CHUNK;
        let end = end.min(whole_chunks).min(first + MAX_CHUNKS * CHUNK);
        if end <= first {
            return Ok(None);
        }
        let blocks = self.query(first, end - first)?;
        let to_bytes = |block: Block| Block {
            offset: block.offset.saturating_mul(SECTOR),
            length: block.length.saturating_mul(SECTOR),
        };
        Ok(Some((blocks.into_iter().map(to_bytes).collect(), end * SECTOR)))
    }

    /// Allocated ranges, in sectors; start and count are multiples of a chunk.
    fn query(&self, start: u64, count: u64) -> Result<Vec<Block>, Failed> {
        let api = self.access.api;
        let whole = vec![Block { offset: start, length: count }];
        let Some((query, free)) = api.allocated else { return Err(no_allocation()) };
        self.settle();
        let mut list = null_mut();
        // SAFETY: the handle is open
        api.call("QueryAllocatedBlocks", || unsafe { query(self.handle, start, count, CHUNK, &raw mut list) })?;
        if list.is_null() {
            return Ok(whole);
        }
        // SAFETY: the library says how many blocks follow; they are copied before the list is given back
        unsafe {
            let blocks = (&raw const (*list).blocks).cast::<Block>();
            let blocks = std::slice::from_raw_parts(blocks, (*list).count as usize).to_vec();
            api.call("FreeBlockList", || free(list))?;
            Ok(blocks)
        }
    }

    fn capacity(&self) -> Result<u64, Failed> {
        let api = self.access.api;
        let mut info = null_mut();
        // SAFETY: the handle is open
        api.call("GetInfo", || unsafe { (api.get_info)(self.handle, &raw mut info) })?;
        if info.is_null() {
            return Err(Failed { function: "GetInfo", code: 1, text: "no information".into() });
        }
        // SAFETY: the library filled it; the field is read before it is given back
        unsafe {
            let sectors = (*info).capacity;
            (api.free_info)(info);
            Ok(sectors)
        }
    }
}

fn no_allocation() -> Failed {
    Failed { function: "QueryAllocatedBlocks", code: 6, text: "the library does not have it".into() }
}

fn disconnect(api: &Api, connection: Connection, function: &'static str) -> Result<(), Failed> {
    // SAFETY: the connection is open and not used afterwards
    api.call(function, || unsafe { (api.disconnect)(connection) })
}

fn transport_mode(api: &Api, handle: Handle) -> String {
    // SAFETY: the handle is open; the text is the library's and copied
    api.watch.call("GetTransportMode", || unsafe {
        let mode = (api.get_transport_mode)(handle);
        if mode.is_null() { String::new() } else { CStr::from_ptr(mode).to_string_lossy().into_owned() }
    })
}

/// Connection parameters and the announced access. Ends the access when it is dropped.
struct Session<'a> {
    api: &'a Api,
    params: *mut ConnectParams,
    identity: CString,
    /// The parameters point into these.
    _texts: Vec<CString>,
    open: bool,
    _main_thread: NotSend,
}

impl<'a> Session<'a> {
    fn begin(api: &'a Api, order: &Order) -> Result<Self, Failed> {
        // SAFETY: the library is initialised
        let params = api.watch.call("AllocateConnectParams", || unsafe { (api.allocate_connect_params)() });
        if params.is_null() {
            return Err(Failed { function: "AllocateConnectParams", code: 2, text: "no memory".into() });
        }
        let mut texts = Vec::new();
        let mut keep = |value: &str| {
            texts.push(text(value));
            texts.last().expect("just pushed").as_ptr()
        };
        // SAFETY: the library allocated the parameters; the texts live in `texts`, whose heap memory does not move,
        // until the parameters are freed
        unsafe {
            let params = &mut *params;
            params.server_name = keep(&order.server);
            params.thumbprint = keep(&order.thumbprint);
            params.credentials_type = CREDENTIALS_USER;
            params.credentials.user = keep(&order.user);
            params.credentials.password = keep(&order.password);
            params.port = order.port.into();
            params.nfc_host_port = NFC_PORT;
            params.spec_type = SPEC_STORAGE_OBJECT;
            params.spec.id = keep(&order.disk);
            params.spec.datastore = keep(&order.datastore);
            params.spec.snapshot = order.snapshot.as_deref().map_or(null(), &mut keep);
        }
        let identity = text(&order.identity);
        let session = Self { api, params, identity, _texts: texts, open: true, _main_thread: NotSend::default() };
        // SAFETY: parameters and identity live in the session
        let prepared = api.call("PrepareForAccess", || unsafe {
            (api.prepare_for_access)(session.params, session.identity.as_ptr())
        });
        match prepared {
            Err(failed) if failed.code == OPERATION_DISABLED => Err(failed),
            Err(failed) => {
                // some machines may have been announced all the same; a real obstacle shows when connecting
                let meaning = catalogue::look_up(failed.code);
                eprintln!("going on though the access could not be announced: {}", meaning.cause);
                Ok(session)
            }
            Ok(()) => Ok(session),
        }
    }

    fn end(mut self) -> Result<(), Failed> {
        self.end_once()
    }

    fn end_once(&mut self) -> Result<(), Failed> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let api = self.api;
        // SAFETY: parameters and identity are still there; the parameters are not used after they are freed
        let ended = api.call("EndAccess", || unsafe { (api.end_access)(self.params, self.identity.as_ptr()) });
        api.watch.call("FreeConnectParams", || unsafe { (api.free_connect_params)(self.params) });
        ended
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // the failure that brought us here is the one to report; this one is in the log
        let _ = self.end_once();
    }
}

/// Ids and names hold no zero byte; one that does is cut there, and the library will not know it.
fn text(value: &str) -> CString {
    let bytes: Vec<u8> = value.bytes().take_while(|byte| *byte != 0).collect();
    CString::new(bytes).expect("the zero bytes are gone")
}
