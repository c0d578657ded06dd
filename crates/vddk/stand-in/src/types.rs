//! The interface's C types. Written from the public header's facts, apart from the helper's own copy on purpose: a
//! mistake in one of them shows in the tests.

use std::ffi::{c_char, c_long, c_void};

pub(crate) type VixError = u64;

pub(crate) const OK: VixError = 0;
/// The callback will tell the rest.
pub(crate) const ASYNC: VixError = 25_000;
pub(crate) const FAIL: VixError = 1;
pub(crate) const INVALID_ARG: VixError = 3;
pub(crate) const FILE_NOT_FOUND: VixError = 4;
pub(crate) const NOT_SUPPORTED: VixError = 6;
pub(crate) const FILE_ERROR: VixError = 7;
pub(crate) const FILE_READ_ONLY: VixError = 11;
pub(crate) const FILE_ALREADY_LOCKED: VixError = 15;
pub(crate) const OUT_OF_RANGE: VixError = 16007;
pub(crate) const CANNOT_CONNECT: VixError = 18000;
pub(crate) const OPERATION_DISABLED: VixError = 20005;

pub(crate) const SECTOR: u64 = 512;
/// The caller's largest request, in sectors: 2 MiB.
pub(crate) const MAX_SECTORS: u64 = 4096;

#[repr(C)]
pub(crate) struct ConnectParams {
    pub(crate) vmx_spec: *const c_char,
    pub(crate) server_name: *const c_char,
    pub(crate) thumbprint: *const c_char,
    pub(crate) private_use: c_long,
    pub(crate) cred_type: u32,
    pub(crate) user: *const c_char,
    pub(crate) password: *const c_char,
    pub(crate) third_credential: *const c_char,
    pub(crate) port: u32,
    pub(crate) nfc_host_port: u32,
    pub(crate) vim_api_ver: *const c_char,
    pub(crate) reserved: [u8; 8],
    pub(crate) state: *mut c_void,
    pub(crate) object_id: *const c_char,
    pub(crate) datastore: *const c_char,
    pub(crate) snapshot: *const c_char,
    pub(crate) spec_type: u32,
}

#[repr(C)]
pub(crate) struct Info {
    pub(crate) bios_geometry: [u32; 3],
    pub(crate) physical_geometry: [u32; 3],
    pub(crate) capacity: u64,
    pub(crate) adapter_type: u32,
    pub(crate) num_links: u32,
    pub(crate) parent_file_name_hint: *const c_char,
    pub(crate) uuid: *const c_char,
    pub(crate) logical_sector_size: u32,
    pub(crate) physical_sector_size: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

#[repr(C)]
pub(crate) struct BlockList {
    pub(crate) count: u32,
    pub(crate) padding: u32,
    /// `count` of them really follow.
    pub(crate) blocks: [Block; 1],
}

const _: () = {
    assert!(size_of::<ConnectParams>() == 128);
    assert!(size_of::<Info>() == 64);
    assert!(size_of::<BlockList>() == 24);
};
