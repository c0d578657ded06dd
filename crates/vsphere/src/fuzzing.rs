//! What `tests/fuzz` reaches of the private parts of this crate. Built for it alone.

use crate::fault::{Raised, reason_kind, recovery};
use crate::xml::{Element, Reference, Request};
use crate::{Act, CatalogEntry, Disk, Fault, Machine, SnapshotInfo, Volume};

/// Reads a reply as every call would: nothing in it may end in a panic.
pub fn reply(text: &str) {
    let Ok(root) = Element::parse(text) else { return };
    let _ = root.as_reference_text();
    read(&root);
    let body = root.child("Body").and_then(|body| body.children.first());
    body.into_iter().for_each(read);
}

fn read(element: &Element) {
    for fault in [Fault::from_soap(element), Fault::from_localized(element, Raised::InTask)] {
        let _ = fault.to_string();
        for act in [Act::Login, Act::QueryChangedAreas, Act::CreateSnapshot] {
            let _ = (recovery(act, &fault), reason_kind(act, &fault));
        }
    }
    let _ = (Disk::from_element(element), Machine::from_element(element), Volume::from_element(element));
    let _ = (SnapshotInfo::from_element(element), CatalogEntry::from_element(element));
    let _ = (crate::snapshots::range(element, "start"), Reference::from_element(element));
    element.children.iter().for_each(read);
}

/// A text that is written into a request comes out of it as the same text, if XML can hold it.
pub fn request(text: &str) {
    let written = Request::new("Find", &Reference::new("Type", "id")).text("text", text).envelope("urn:vim25", &[]);
    let read = Element::parse(&written).expect("what we write is XML");
    let found = read.at(&["Body", "Find", "text"]).map(|element| element.text.clone());
    let can_be_held = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    if text.chars().all(can_be_held) {
        assert_eq!(found.as_deref(), Some(text), "{written}");
    }
}
