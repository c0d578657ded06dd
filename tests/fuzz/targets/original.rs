//! What the original wrote about a backup: `peinfo`, description, and the names and sizes of segments.
#![no_main]

use astrolabe::{Description, Peinfo, Segments};
use libfuzzer_sys::fuzz_target;
use repository::store::Object;

const STREAM: &str = "plugins/vsphere-astrolabe-repo/data/ivd:d:s";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(peinfo) = Peinfo::read(bytes) {
        // not all of it: a number that nobody reads may come back rounded
        let told = |peinfo: &Peinfo| (peinfo.id.clone(), peinfo.name.clone(), peinfo.is_whole());
        assert_eq!(Peinfo::read(&peinfo.write()).ok().as_ref().map(told), Some(told(&peinfo)));
    }
    let _ = Description::capacity(bytes);
    // a line is a key behind the stream's name, and a size
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let object = |line: &str| {
        let (key, size) = line.rsplit_once(' ')?;
        Some(Object { key: format!("{STREAM}{key}"), size: size.parse().ok()? })
    };
    let objects: Vec<_> = text.lines().filter_map(object).collect();
    if let Ok(segments) = Segments::of(STREAM, &objects) {
        assert_eq!(segments.iter().map(|segment| segment.range.length).sum::<u64>(), segments.bytes());
        let _ = segments.expect(7 << 20);
    }
});
