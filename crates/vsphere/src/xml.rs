//! XML both ways: replies become a tree of elements, requests are written with everything escaped.
//! Knows no call and no endpoint.

use std::fmt::Write as _;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

const SCHEMA_INSTANCE: Namespace<'static> = Namespace("http://www.w3.org/2001/XMLSchema-instance");

/// Deeper than any reply is nested; bounds what a broken server can make us build.
const DEEPEST: usize = 64;

/// One element of a reply. Names are local names: servers choose their own prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// The value of `xsi:type` without its prefix.
    pub(crate) xsi_type: Option<String>,
    /// The plain attribute `type`: the type of a managed object reference.
    pub(crate) reference_type: Option<String>,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// The text is not XML as a SOAP service writes it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("it is not XML: {0}")]
    NotXml(#[from] quick_xml::Error),
    #[error("it refers to `&{0};`, which XML does not define")]
    UnknownEntity(String),
    #[error("it ends inside an element, or holds none")]
    Incomplete,
    #[error("its elements are nested deeper than {DEEPEST}")]
    TooDeep,
}

impl Element {
    /// Parses a document and returns its root.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reader = NsReader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        loop {
            match reader.read_event()? {
                Event::Start(start) => {
                    if open.len() == DEEPEST {
                        return Err(ParseError::TooDeep);
                    }
                    open.push(Self::started(&start, &mut reader)?);
                }
                Event::Empty(start) => {
                    let element = Self::started(&start, &mut reader)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => return Ok(element),
                    }
                }
                Event::End(_) => {
                    let element = open.pop().ok_or(ParseError::Incomplete)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => return Ok(element),
                    }
                }
                Event::Text(text) => append(&mut open, &text.xml10_content()),
                Event::CData(text) => append(&mut open, &text.xml10_content()),
                // Text around an entity arrives in pieces: collecting text events alone would lose the `&`.
                Event::GeneralRef(entity) => append(&mut open, &resolve(&entity)?),
                Event::Eof => return Err(ParseError::Incomplete),
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
            }
        }
    }

    fn started(start: &BytesStart<'_>, reader: &mut NsReader<&[u8]>) -> Result<Self, ParseError> {
        let mut element = Self { name: start.local_name().as_ref().to_owned(), ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(quick_xml::Error::from)?;
            let (namespace, name) = reader.resolver_mut().resolve_attribute(attribute.key);
            if name.as_ref() != "type" {
                continue;
            }
            let is_schema = matches!(namespace, ResolveResult::Bound(space) if space == SCHEMA_INSTANCE);
            let is_plain = matches!(namespace, ResolveResult::Unbound);
            let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
            if is_schema {
                let bare = value.rsplit_once(':').map_or(&*value, |(_, bare)| bare);
                element.xsi_type = Some(bare.to_owned());
            } else if is_plain {
                element.reference_type = Some(value.into_owned());
            }
        }
        Ok(element)
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name, in order.
    pub(crate) fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The descendant along these names.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// The text of the first child of this name; `None` when there is no such child or it is empty.
    pub(crate) fn text_of(&self, name: &str) -> Option<String> {
        self.child(name).map(|child| child.text.clone()).filter(|text| !text.is_empty())
    }

    /// Its text without surrounding blanks.
    pub(crate) fn trimmed(&self) -> &str {
        self.text.trim()
    }

    /// A managed object reference as people write it, `Type:id`.
    pub(crate) fn as_reference_text(&self) -> String {
        match &self.reference_type {
            Some(kind) => format!("{kind}:{}", self.trimmed()),
            None => self.trimmed().to_owned(),
        }
    }
}

fn append(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn resolve(entity: &BytesRef<'_>) -> Result<String, ParseError> {
    if let Some(character) = entity.resolve_char_ref()? {
        return Ok(character.to_string());
    }
    let name: &str = entity;
    resolve_predefined_entity(name).map(str::to_owned).ok_or_else(|| ParseError::UnknownEntity(name.to_owned()))
}

/// A managed object reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl Reference {
    pub(crate) fn new(kind: &str, id: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_owned() }
    }

    /// Reads `<x type="Kind">id</x>`; `None` without a type or an id.
    pub(crate) fn from_element(element: &Element) -> Option<Self> {
        let id = element.trimmed();
        let kind = element.reference_type.as_deref()?;
        (!id.is_empty()).then(|| Self::new(kind, id))
    }
}

/// A request under construction. Elements come out in the order of the calls: real servers insist on the declared order.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: &'static str,
    body: String,
}

impl Request {
    /// `method` on the object `this`.
    pub(crate) fn new(method: &'static str, this: &Reference) -> Self {
        Self { method, body: String::new() }.reference("_this", this)
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// `<name>text</name>`.
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.body.push('<');
        self.body.push_str(name);
        self.body.push('>');
        escape_into(&mut self.body, text);
        self.close(name)
    }

    /// The same, when there is a text.
    pub(crate) fn optional(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// A managed object reference.
    pub(crate) fn reference(mut self, name: &str, reference: &Reference) -> Self {
        let _ = write!(self.body, "<{name} type=\"");
        escape_into(&mut self.body, &reference.kind);
        self.body.push_str("\">");
        escape_into(&mut self.body, &reference.id);
        self.close(name)
    }

    /// `<name><id>text</id></name>`: how ids of disks, snapshots and volumes travel.
    pub(crate) fn id(self, name: &str, id: &str) -> Self {
        self.group(name, |group| group.text("id", id))
    }

    /// `<name>…</name>` around what `fill` writes.
    pub(crate) fn group(mut self, name: &str, fill: impl FnOnce(Self) -> Self) -> Self {
        let _ = write!(self.body, "<{name}>");
        fill(self).close(name)
    }

    /// The same for a field of an abstract type, which must name the concrete one.
    pub(crate) fn typed(mut self, name: &str, xsi_type: &'static str, fill: impl FnOnce(Self) -> Self) -> Self {
        let _ = write!(self.body, "<{name} xsi:type=\"{xsi_type}\">");
        fill(self).close(name)
    }

    fn close(mut self, name: &str) -> Self {
        let _ = write!(self.body, "</{name}>");
        self
    }

    /// The whole envelope. `header` holds (element, text) pairs.
    pub(crate) fn envelope(&self, namespace: &str, header: &[(&str, &str)]) -> String {
        let mut text = String::with_capacity(self.body.len() + 512);
        text.push_str(concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
            "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"",
            " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">",
        ));
        if !header.is_empty() {
            text.push_str("<soapenv:Header>");
            for (name, value) in header {
                let _ = write!(text, "<{name}>");
                escape_into(&mut text, value);
                let _ = write!(text, "</{name}>");
            }
            text.push_str("</soapenv:Header>");
        }
        let method = self.method;
        let _ = write!(text, "<soapenv:Body><{method} xmlns=\"{namespace}\">");
        text.push_str(&self.body);
        let _ = write!(text, "</{method}></soapenv:Body></soapenv:Envelope>");
        text
    }
}

/// Escapes for element text and for attribute values alike. Characters that XML cannot carry at all become U+FFFD.
fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#13;"), // a bare one would be read back as a newline
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const AWKWARD: &str = "a & b < c > \"d\" 'e' newline\n return\r tab\t é 😀 ]]> &amp;";

    fn sent_and_read_back(text: &str) -> Element {
        let request = Request::new("M", &Reference::new("T", "id")).text("description", text);
        Element::parse(&request.envelope("urn:x", &[("operationID", text)])).unwrap()
    }

    #[test]
    fn a_description_with_markup_and_newlines_survives_both_ways() {
        let read = sent_and_read_back(AWKWARD);
        assert_eq!(read.at(&["Body", "M", "description"]).unwrap().text, AWKWARD);
        assert_eq!(read.at(&["Header", "operationID"]).unwrap().text, AWKWARD);
    }

    #[test]
    fn character_references_of_a_server_are_not_dropped() {
        let read = Element::parse("<r><d>&lt;a &amp; &#34;b&quot;&#xA;&gt;</d><c><![CDATA[<&>]]></c></r>").unwrap();
        assert_eq!(read.text_of("d").unwrap(), "<a & \"b\"\n>");
        assert_eq!(read.text_of("c").unwrap(), "<&>");
    }

    #[test]
    fn types_are_found_under_any_prefix_and_kept_apart_from_reference_types() {
        let written_by_vcsim = r#"<r xmlns:_XMLSchema-instance="http://www.w3.org/2001/XMLSchema-instance"
            ><f _XMLSchema-instance:type="NotFound"/><d type="Datastore">datastore-1</d></r>"#;
        let written_by_vcenter = r#"<r xmlns:x="http://www.w3.org/2001/XMLSchema-instance" xmlns:ns1="urn:vim25"
            ><f x:type="ns1:NotFound"/><d type="Datastore" x:type="ns1:ManagedObjectReference">datastore-1</d></r>"#;
        for text in [written_by_vcsim, written_by_vcenter] {
            let read = Element::parse(text).unwrap();
            assert_eq!(read.child("f").unwrap().xsi_type.as_deref(), Some("NotFound"));
            assert_eq!(read.child("f").unwrap().reference_type, None);
            let store = read.child("d").unwrap();
            assert_eq!(Reference::from_element(store), Some(Reference::new("Datastore", "datastore-1")));
        }
        let foreign = Element::parse(r#"<r xmlns:y="urn:y"><f y:type="Other"/></r>"#).unwrap();
        assert_eq!((&foreign.children[0].xsi_type, &foreign.children[0].reference_type), (&None, &None));
    }

    #[test]
    fn broken_documents_are_errors() {
        let deep = "<a>".repeat(DEEPEST + 1);
        for bad in ["", "plain", "<a>", "<a></b>", "<a>&nbsp;</a>", "<a x=></a>", "<!DOCTYPE html>", &deep] {
            assert!(Element::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_that_xml_can_carry_survives(text in "\\PC{0,40}[\r\n\t]?\\PC{0,40}") {
            let read = sent_and_read_back(&text);
            prop_assert_eq!(&read.at(&["Body", "M", "description"]).unwrap().text, &text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[<>/&;a-c=\"'! #x0-9\\[\\]-]{0,60}") {
            let _ = Element::parse(&text);
        }
    }
}
