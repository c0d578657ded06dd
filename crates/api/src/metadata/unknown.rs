//! Carries fields that we do not know from one encoding of a message to the next.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// The field numbers of a message that we know, with the shape of those that hold messages.
pub(super) struct Shape(&'static [(u32, Option<&'static Shape>)]);

const TIME: Shape = Shape(&[(1, None), (2, None)]);
const ENTRY: Shape = Shape(&[(1, None), (2, None)]);
const QUANTITY: Shape = Shape(&[(1, None)]);
const QUANTITY_ENTRY: Shape = Shape(&[(1, None), (2, Some(&QUANTITY))]);
const OWNER: Shape = Shape(&[(1, None), (3, None), (4, None), (5, None), (6, None), (7, None)]);
const FIELDS: Shape = Shape(&[(1, None)]);
const MANAGED: Shape =
    Shape(&[(1, None), (2, None), (3, None), (4, Some(&TIME)), (6, None), (7, Some(&FIELDS)), (8, None)]);
const META: Shape = Shape(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, None),
    (7, None),
    (8, Some(&TIME)),
    (9, Some(&TIME)),
    (10, None),
    (11, Some(&ENTRY)),
    (12, Some(&ENTRY)),
    (13, Some(&OWNER)),
    (14, None),
    (17, Some(&MANAGED)),
]);
const RESOURCES: Shape = Shape(&[(1, Some(&QUANTITY_ENTRY)), (2, Some(&QUANTITY_ENTRY))]);
const REQUIREMENT: Shape = Shape(&[(1, None), (2, None), (3, None)]);
const SELECTOR: Shape = Shape(&[(1, Some(&ENTRY)), (2, Some(&REQUIREMENT))]);
const REFERENCE: Shape = Shape(&[(1, None), (2, None), (3, None)]);
const NAMESPACED_REFERENCE: Shape = Shape(&[(1, None), (2, None), (3, None), (4, None)]);
const SPEC: Shape = Shape(&[
    (1, None),
    (2, Some(&RESOURCES)),
    (3, None),
    (4, Some(&SELECTOR)),
    (5, None),
    (6, None),
    (7, Some(&REFERENCE)),
    (8, Some(&NAMESPACED_REFERENCE)),
    (9, None),
]);
const CONDITION: Shape = Shape(&[(1, None), (2, None), (3, Some(&TIME)), (4, Some(&TIME)), (5, None), (6, None)]);
const MODIFY: Shape = Shape(&[(1, None), (2, None)]);
const STATUS: Shape = Shape(&[
    (1, None),
    (2, None),
    (3, Some(&QUANTITY_ENTRY)),
    (4, Some(&CONDITION)),
    (5, Some(&QUANTITY_ENTRY)),
    (7, Some(&ENTRY)),
    (8, None),
    (9, Some(&MODIFY)),
]);

/// A claim.
pub(super) const CLAIM: Shape = Shape(&[(1, Some(&META)), (2, Some(&SPEC)), (3, Some(&STATUS))]);

impl Shape {
    /// `None`: unknown. `Some(None)`: known, holds no message.
    fn of(&self, number: u32) -> Option<Option<&'static Shape>> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, shape)| *shape)
    }
}

/// One field of a message: its number, all its bytes, and what a length-delimited one holds.
#[derive(Clone, Copy)]
struct Field<'b> {
    number: u32,
    bytes: &'b [u8],
    content: Option<&'b [u8]>,
}

/// The message `new` with those fields of `old` that `shape` does not know, in ascending order.
///
/// Messages in a list are paired by position, and only when the list kept its length.
pub(super) fn keep(old: &[u8], new: &[u8], shape: &Shape) -> Result<Vec<u8>, DecodeError> {
    let (old, new) = (fields(old)?, fields(new)?);
    let mut kept: Vec<(u32, Vec<u8>)> = Vec::new();
    for (position, field) in new.iter().enumerate() {
        let bytes = match (shape.of(field.number).flatten(), partner(&old, &new, position)) {
            (Some(inner), Some(before)) => merged(before, field, inner)?,
            _ => field.bytes.to_vec(),
        };
        kept.push((field.number, bytes));
    }
    let unknown = old.iter().filter(|f| shape.of(f.number).is_none());
    kept.extend(unknown.map(|f| (f.number, f.bytes.to_vec())));
    kept.sort_by_key(|(number, _)| *number); // stable: lists keep their order
    Ok(kept.into_iter().flat_map(|(_, bytes)| bytes).collect())
}

/// The field of `old` that stands where `new[position]` stands among the fields of its number.
fn partner<'o, 'b>(old: &'o [Field<'b>], new: &[Field<'b>], position: usize) -> Option<&'o Field<'b>> {
    let number = new[position].number;
    let same = |f: &&Field<'_>| f.number == number;
    let rank = new[..position].iter().filter(same).count();
    let same_length = old.iter().filter(same).count() == new.iter().filter(same).count();
    old.iter().filter(|f| f.number == number).nth(rank).filter(|_| same_length)
}

fn merged(old: &Field<'_>, new: &Field<'_>, shape: &Shape) -> Result<Vec<u8>, DecodeError> {
    let (Some(before), Some(after)) = (old.content, new.content) else { return Ok(new.bytes.to_vec()) };
    let content = keep(before, after, shape)?;
    let mut bytes = Vec::with_capacity(content.len() + 8);
    encode_key(new.number, WireType::LengthDelimited, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(&content);
    Ok(bytes)
}

fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, DecodeError> {
    let mut rest = message;
    let mut fields = Vec::new();
    while rest.has_remaining() {
        let begin = rest;
        let (number, wire_type) = decode_key(&mut rest)?;
        let body = rest;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        let mut content = &body[..body.len() - rest.len()];
        let holds_content = wire_type == WireType::LengthDelimited;
        if holds_content {
            decode_varint(&mut content)?;
        }
        fields.push(Field {
            number,
            bytes: &begin[..begin.len() - rest.len()],
            content: holds_content.then_some(content),
        });
    }
    Ok(fields)
}
