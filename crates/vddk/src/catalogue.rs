//! What the library's error numbers mean: name, usual cause, what to do. One table; everything a user reads about a
//! number comes from here.

/// Whether and how another try can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// The connection is lost: open again and go on where it stopped.
    Reopen,
    /// Something is busy, locked or short of memory: wait and try again.
    WaitAndRetry,
    /// It fails the same way every time until someone changes something.
    GiveUp,
}

/// One error number of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The number, without the upper bits that the library sometimes sets.
    pub code: u16,
    /// The constant's name without its prefix.
    pub name: &'static str,
    /// What is usually behind it.
    pub cause: &'static str,
    /// What a person can do.
    pub fix: &'static str,
    /// What a program can do.
    pub advice: Advice,
}

const fn entry(code: u16, name: &'static str, advice: Advice, cause: &'static str, fix: &'static str) -> Entry {
    Entry { code, name, cause, fix, advice }
}

const UNKNOWN: Entry = entry(
    0,
    "UNKNOWN",
    Advice::GiveUp,
    "the library gives no meaning for this number",
    "Look for the number in the library's release notes and in the log lines before it.",
);

/// Every number that has a known meaning, in rising order.
pub const ENTRIES: &[Entry] = &[
    entry(
        1,
        "FAIL",
        Advice::GiveUp,
        "general failure; when opening a disk mostly a wrong vCenter thumbprint, or the disk is of another datastore",
        "Compare the vCenter certificate's SHA-1 thumbprint with the one in use, and the host name in the vCenter Secret with the certificate.",
    ),
    entry(
        2,
        "OUT_OF_MEMORY",
        Advice::WaitAndRetry,
        "the ESXi host has no buffer memory left for disk connections",
        "Lower the number of transfers at once per host.",
    ),
    entry(
        3,
        "INVALID_ARG",
        Advice::GiveUp,
        "an id or parameter that the library does not accept",
        "Check disk, snapshot and datastore id in the Upload; report it with the log.",
    ),
    entry(
        4,
        "FILE_NOT_FOUND",
        Advice::GiveUp,
        "the disk or its snapshot does not exist on that datastore",
        "Check that the volume still exists; take a new snapshot.",
    ),
    entry(
        5,
        "OBJECT_IS_BUSY",
        Advice::WaitAndRetry,
        "another operation holds the disk",
        "Wait for snapshot, clone or migration tasks of the disk to end.",
    ),
    entry(
        6,
        "NOT_SUPPORTED",
        Advice::GiveUp,
        "this library or host cannot do that with this kind of disk",
        "Use a library of the same generation as vCenter.",
    ),
    entry(
        7,
        "FILE_ERROR",
        Advice::WaitAndRetry,
        "the host could not read or write the disk's file",
        "Look at the datastore's health and free space.",
    ),
    entry(8, "DISK_FULL", Advice::GiveUp, "the datastore is full", "Free space on the datastore."),
    entry(10, "CANCELLED", Advice::Reopen, "the operation was cancelled", "Try again."),
    entry(
        11,
        "FILE_READ_ONLY",
        Advice::GiveUp,
        "the disk was opened, or is stored, read-only",
        "Restore into a volume that is detached and has no snapshots.",
    ),
    entry(
        13,
        "FILE_ACCESS_ERROR",
        Advice::WaitAndRetry,
        "no access to the disk's file: locked by another virtual machine, missing permission, or an inactive host",
        "Detach the volume, check the datastore privileges of the vCenter user.",
    ),
    entry(
        15,
        "FILE_ALREADY_LOCKED",
        Advice::WaitAndRetry,
        "another process has locked the disk",
        "Wait for the other backup or detach the volume.",
    ),
    entry(36, "HOST_CONNECTION_LOST", Advice::Reopen, "the connection to the ESXi host broke", "Try again."),
    entry(
        3014,
        "HOST_USER_PERMISSIONS",
        Advice::GiveUp,
        "the vCenter user may not read the disk over the network",
        "Grant the user the privileges Datastore.FileManagement, VirtualMachine.Provisioning.DiskRandomRead (and DiskRandomAccess to restore) and Cryptographer.Access for encrypted disks.",
    ),
    entry(
        14008,
        "HOST_SERVER_NOT_FOUND",
        Advice::Reopen,
        "the host's name does not resolve from this pod",
        "Make the names of vCenter and of every ESXi host resolvable from the cluster.",
    ),
    entry(
        14009,
        "HOST_NETWORK_CONN_REFUSED",
        Advice::Reopen,
        "the ESXi host refused the connection, or a firewall blocks TCP port 902",
        "Open TCP 902 from the cluster's nodes to every ESXi host.",
    ),
    entry(
        14010,
        "HOST_TCP_SOCKET_ERROR",
        Advice::Reopen,
        "a network error on the way to the ESXi host",
        "Check the route from the node to the host, TCP 902.",
    ),
    entry(
        14011,
        "HOST_TCP_CONN_LOST",
        Advice::Reopen,
        "the connection to the ESXi host broke",
        "Try again; check the network when it repeats.",
    ),
    entry(
        14012,
        "HOST_NFCLIB_ERROR",
        Advice::Reopen,
        "the host's disk service reported an error",
        "Look at the host's hostd and vpxa logs.",
    ),
    entry(16000, "DISK_INVAL", Advice::GiveUp, "a request that this disk cannot serve", "Report it with the log."),
    entry(
        16003,
        "DISK_PARTIALCHAIN",
        Advice::GiveUp,
        "a part of the disk's snapshot chain is missing",
        "Repair or consolidate the disk in vSphere.",
    ),
    entry(16006, "DISK_NEEDSREPAIR", Advice::GiveUp, "the disk is damaged", "Repair the disk in vSphere."),
    entry(
        16007,
        "DISK_OUTOFRANGE",
        Advice::GiveUp,
        "a request beyond the disk's end",
        "The disk is smaller than expected: check its size in vSphere.",
    ),
    entry(
        16030,
        "DISK_INVALIDCHAIN",
        Advice::GiveUp,
        "the disk's snapshot chain does not fit together",
        "Consolidate the disk in vSphere.",
    ),
    entry(16054, "DISK_INVALID_CONNECTION", Advice::Reopen, "the connection is not usable any more", "Try again."),
    entry(
        16064,
        "DISK_NOLICENSE",
        Advice::GiveUp,
        "the host's licence does not allow this access",
        "Use an ESXi licence with the storage APIs.",
    ),
    entry(
        18000,
        "CANNOT_CONNECT_TO_HOST",
        Advice::Reopen,
        "vCenter or the ESXi host cannot be reached, or refused the login",
        "Check the vCenter Secret, and TCP 443 to vCenter and 902 to every ESXi host.",
    ),
    entry(
        20005,
        "OPERATION_DISABLED",
        Advice::WaitAndRetry,
        "an earlier access to the disk did not end properly, so vCenter keeps migration of its machine disabled",
        "It is ended and tried again once by itself; if it stays, no other backup product may hold the machine.",
    ),
];

/// What `code`, as the library returned it, means.
pub fn look_up(code: u64) -> Entry {
    let low = (code & 0xFFFF) as u16;
    match ENTRIES.binary_search_by_key(&low, |entry| entry.code) {
        Ok(index) => ENTRIES[index],
        Err(_) => Entry { code: low, ..UNKNOWN },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_users_reported_has_a_cause_and_a_fix() {
        for code in [1, 3014, 14009, 20005] {
            let found = look_up(code);
            assert!(found.name != "UNKNOWN" && !found.cause.is_empty() && !found.fix.is_empty(), "{code}");
        }
        assert!(ENTRIES.windows(2).all(|pair| pair[0].code < pair[1].code), "binary search needs rising order");
    }

    #[test]
    fn the_upper_bits_do_not_hide_the_number() {
        assert_eq!(look_up(0x7_0000_36B9 & !0xFFFF | 14009).name, "HOST_NETWORK_CONN_REFUSED");
        assert_eq!((look_up(9999).name, look_up(9999).code), ("UNKNOWN", 9999));
    }
}
