//! The library's C types, with their sizes checked when this is compiled. x86-64 Linux.

use std::ffi::{c_char, c_long, c_void};
use std::mem::{offset_of, size_of};

/// 0 is success; the number is in the lower 16 bits.
pub(crate) type VixError = u64;
pub(crate) type Connection = *mut c_void;
pub(crate) type Handle = *mut c_void;

/// Bytes per sector, everywhere in this interface.
pub(crate) const SECTOR: u64 = 512;

pub(crate) const CREDENTIALS_USER: i32 = 1;
pub(crate) const SPEC_STORAGE_OBJECT: i32 = 1;
/// Port of the hosts' disk service.
pub(crate) const NFC_PORT: u32 = 902;

/// Flags of `Open`.
pub(crate) const OPEN_UNBUFFERED: u32 = 1;
pub(crate) const OPEN_READ_ONLY: u32 = 4;

/// `VixDiskLibConnectParams`. Allocated by the library only: fields of its own lie around ours.
#[repr(C)]
pub(crate) struct ConnectParams {
    pub(crate) vmx_spec: *const c_char,
    pub(crate) server_name: *const c_char,
    pub(crate) thumbprint: *const c_char,
    pub(crate) private_use: c_long,
    pub(crate) credentials_type: i32,
    pub(crate) credentials: Credentials,
    pub(crate) port: u32,
    pub(crate) nfc_host_port: u32,
    pub(crate) vim_api_version: *const c_char,
    pub(crate) reserved: [u8; 8],
    pub(crate) state: *mut c_void,
    pub(crate) spec: StorageObject,
    pub(crate) spec_type: i32,
}

/// The arm for user and password of a union of 24 bytes.
#[repr(C)]
pub(crate) struct Credentials {
    pub(crate) user: *const c_char,
    pub(crate) password: *const c_char,
    pub(crate) other_arms: *const c_char,
}

/// The arm for first-class disks of a union of 24 bytes.
#[repr(C)]
pub(crate) struct StorageObject {
    pub(crate) id: *const c_char,
    pub(crate) datastore: *const c_char,
    pub(crate) snapshot: *const c_char,
}

/// The part of `VixDiskLibInfo` that all versions have. Allocated by the library.
#[repr(C)]
pub(crate) struct Info {
    pub(crate) bios_geometry: [u32; 3],
    pub(crate) physical_geometry: [u32; 3],
    /// Sectors.
    pub(crate) capacity: u64,
    pub(crate) adapter_type: i32,
    pub(crate) links: i32,
}

/// `VixDiskLibBlockList`: `count` blocks follow. Allocated by the library.
#[repr(C)]
pub(crate) struct BlockList {
    pub(crate) count: u32,
    pub(crate) blocks: [Block; 0],
}

/// One allocated range, in sectors.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

const _: () = {
    assert!(size_of::<ConnectParams>() == 128);
    assert!(offset_of!(ConnectParams, credentials) == 40);
    assert!(offset_of!(ConnectParams, port) == 64);
    assert!(offset_of!(ConnectParams, state) == 88);
    assert!(offset_of!(ConnectParams, spec) == 96);
    assert!(offset_of!(ConnectParams, spec_type) == 120);
    assert!(offset_of!(Info, capacity) == 24);
    assert!(offset_of!(BlockList, blocks) == 8);
};
