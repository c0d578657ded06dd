#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

const UUID: &str = "52 05 a2 ce 6d 6d c9 59-d3 2e ad 19 e3 96 73 6d";
const CHUNK: u64 = 512 << 10;
const SIZE: u64 = 1 << 30;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(epoch: u64) -> ChangeId {
    ChangeId::new(format!("{UUID}/{epoch}"))
}

fn disk(epoch: u64) -> Tracked {
    Tracked {
        size_bytes: SIZE,
        create_time: Some(at("2026-01-01T00:00:00Z")),
        datastore: Some("datastore-39".to_owned()),
        file_path: Some("[ds] fcd/a.vmdk".to_owned()),
        backing_object_id: None,
        vcenter: Some("vc.example".to_owned()),
        change_id: Some(id(epoch)),
    }
}

fn base() -> Base {
    Base { then: disk(4), chunk_size: CHUNK, full_read: Some(at("2026-11-01T00:00:00Z")), in_a_row: 3 }
}

fn decided(now: &Tracked, base: Option<&Base>) -> Source {
    decide(&Facts { now, base, chunk_size: CHUNK, doubted: &[], time: at("2026-11-21T00:00:00Z") })
}

#[test]
fn only_what_changed_is_read_when_nothing_speaks_against_it() {
    assert_eq!(decided(&disk(5), Some(&base())), Source::ChangedAreas { since: id(4) });
    assert_eq!(decided(&disk(4), Some(&base())), Source::ChangedAreas { since: id(4) }, "nothing was written at all");
}

#[test]
fn a_snapshot_in_between_does_not_make_it_another_file() {
    let delta = Tracked { file_path: Some("[ds] fcd/a-000003.vmdk".to_owned()), ..disk(5) };
    assert_eq!(decided(&delta, Some(&base())), Source::ChangedAreas { since: id(4) });
    assert_eq!(stem("[ds] fcd/5f-1234567.vmdk"), "[ds] fcd/5f-1234567", "part of the name");
}

#[test]
fn whatever_breaks_the_chain_leads_to_a_full_read_and_says_why() {
    type Change = fn(&mut Tracked, &mut Base);
    let cases: [(&str, Change, Obstacle); 18] = [
        ("tracking off", |now, _| now.change_id = None, Obstacle::NotTracked),
        ("off at the base", |_, base| base.then.change_id = None, Obstacle::BaseNotTracked),
        ("the copy of a site", |now, _| now.vcenter = Some("dr.example".into()), Obstacle::Replaced("vCenter")),
        ("other chunks", |_, base| base.chunk_size = 4096, Obstacle::OtherChunks { then: 4096, now: CHUNK }),
        ("grown", |now, _| now.size_bytes = 2 * SIZE, Obstacle::Resized { then: SIZE, now: 2 * SIZE }),
        ("shrunk", |now, _| now.size_bytes = 1, Obstacle::Resized { then: SIZE, now: 1 }),
        (
            "made anew under the same id",
            |now, _| now.create_time = Some(at("2026-02-01T00:00:00Z")),
            Obstacle::Replaced("time of its making"),
        ),
        ("made at an unknown time", |now, _| now.create_time = None, Obstacle::Replaced("time of its making")),
        ("relocated", |now, _| now.datastore = Some("datastore-40".into()), Obstacle::Replaced("datastore")),
        ("another file", |now, _| now.file_path = Some("[ds] fcd/b.vmdk".into()), Obstacle::Replaced("file")),
        ("an unknown file", |_, base| base.then.file_path = None, Obstacle::Replaced("file")),
        ("another object", |now, _| now.backing_object_id = Some("v".into()), Obstacle::Replaced("backing object")),
        (
            "a new epoch",
            |now, _| now.change_id = Some(ChangeId::new(format!("{}/9", UUID.replace("52", "53")))),
            Obstacle::OtherEpoch,
        ),
        ("reverted", |now, _| now.change_id = Some(id(3)), Obstacle::Backwards),
        ("an id of the base that is none", strange_base, Obstacle::StrangeId(ChangeId::new("*"))),
        ("too many", |_, base| base.in_a_row = MOST_IN_A_ROW, Obstacle::TooManyInARow(MOST_IN_A_ROW)),
        (
            "too long ago",
            |_, base| base.full_read = Some(at("2026-10-01T00:00:00Z")),
            Obstacle::FullReadDue(Some(at("2026-10-01T00:00:00Z"))),
        ),
        ("nobody knows when", |_, base| base.full_read = None, Obstacle::FullReadDue(None)),
    ];
    for (situation, change, want) in cases {
        let (mut now, mut base) = (disk(5), base());
        change(&mut now, &mut base);
        assert_eq!(decided(&now, Some(&base)), Source::AllocatedAreas(want), "{situation}");
    }
    assert_eq!(decided(&disk(5), None), Source::AllocatedAreas(Obstacle::NoBase));
}

fn strange_base(_: &mut Tracked, base: &mut Base) {
    base.then.change_id = Some(ChangeId::new("*"));
}

#[test]
fn doubt_lasts_as_long_as_the_tracking_that_was_doubted_whatever_lies_between() {
    let doubted = [tracking(&id(1)).unwrap()];
    assert_eq!(doubted[0], UUID.replace(' ', ""));
    let decided = |now: &Tracked, base: Option<&Base>| {
        decide(&Facts { now, base, chunk_size: CHUNK, doubted: &doubted, time: at("2026-11-21T00:00:00Z") })
    };
    let without_id = Base { then: Tracked { change_id: None, ..disk(4) }, ..base() };
    for base in [Some(&base()), Some(&without_id), None] {
        assert_eq!(decided(&disk(5), base), Source::AllocatedAreas(Obstacle::Doubted));
    }
    let other = UUID.replace("52", "53");
    let (then, now) = (ChangeId::new(format!("{other}/1")), ChangeId::new(format!("{other}/9")));
    let anew = Tracked { change_id: Some(now), ..disk(5) };
    assert_eq!(decided(&anew, Some(&base())), Source::AllocatedAreas(Obstacle::OtherEpoch));
    let of_the_new = Base { then: Tracked { change_id: Some(then.clone()), ..disk(4) }, ..base() };
    assert_eq!(decided(&anew, Some(&of_the_new)), Source::ChangedAreas { since: then });
}

#[test]
fn a_full_read_begins_the_count_anew() {
    let now = at("2026-11-21T00:00:00Z");
    let changed = decided(&disk(5), Some(&base()));
    let rests = Ancestry { full_read: base().full_read, in_a_row: 4 };
    assert_eq!(ancestry(&changed, Some(&base()), now), rests);
    let full = Source::AllocatedAreas(Obstacle::Untrue);
    assert_eq!(ancestry(&full, Some(&base()), now), Ancestry { full_read: Some(now), in_a_row: 0 });
}

#[test]
fn a_decision_reads_as_a_sentence() {
    assert_eq!(decided(&disk(5), Some(&base())).to_string(), "changed areas");
    let resized = Source::AllocatedAreas(Obstacle::Resized { then: 1, now: 2 });
    assert_eq!(resized.to_string(), "allocated areas: the disk had 1 bytes and has 2");
}
