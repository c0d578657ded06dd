//! The grammar, without the meaning: headers, variables, quotes, escapes, comments.

use std::iter::Peekable;
use std::str::Chars;

use super::ParseError;

/// `[Name]` or `[Name "sub"]`.
pub(super) struct Header {
    pub(super) name: String,
    pub(super) sub: Option<String>,
}

/// The right side of a variable.
pub(super) enum Value {
    Text(String),
    /// There is none: `name` stands alone.
    Alone,
}

pub(super) enum Line {
    Header(Header),
    Variable { name: String, value: Value },
}

/// Headers and variables in their order, each with the number of the line that it begins on.
pub(super) fn read(text: &str) -> Result<Vec<(usize, Line)>, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut found = Vec::new();
    while let Some(next) = reader.skip_to_content() {
        let line = reader.line;
        let content = if next == '[' { reader.header()? } else { reader.variable()? };
        found.push((line, content));
    }
    Ok(found)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// Of the next character, from 1.
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn expected<T>(&self, what: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.line, what))
    }

    /// Passes blank lines and comments.
    fn skip_to_content(&mut self) -> Option<char> {
        loop {
            match self.peek()? {
                ';' | '#' => self.skip_comment(),
                blank if blank.is_ascii_whitespace() => {
                    self.next();
                }
                content => return Some(content),
            }
        }
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.next();
        }
    }

    /// Nothing more on this line, but a comment.
    fn end_of_line(&mut self, expected: &str) -> Result<(), ParseError> {
        self.skip_blanks();
        match self.peek() {
            None | Some('\n') => Ok(()),
            Some(';' | '#') => {
                self.skip_comment();
                Ok(())
            }
            Some(_) => self.expected(expected),
        }
    }

    fn name(&mut self, expected: &str) -> Result<String, ParseError> {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '-') {
            if name.is_empty() && !c.is_alphabetic() {
                break;
            }
            name.push(c);
            self.next();
        }
        if name.is_empty() { self.expected(expected) } else { Ok(name) }
    }

    fn header(&mut self) -> Result<Line, ParseError> {
        self.next();
        self.skip_blanks();
        let name = self.name("the name of a section after `[`: letters, digits and `-`, beginning with a letter")?;
        self.skip_blanks();
        let sub = if self.peek() == Some('"') { Some(self.sub_name()?) } else { None };
        self.skip_blanks();
        if self.peek() != Some(']') {
            return self.expected("`]` at the end of the section's header, or a name in double quotes before it");
        }
        self.next();
        self.end_of_line("the end of the line after a section's header")?;
        Ok(Line::Header(Header { name, sub }))
    }

    fn sub_name(&mut self) -> Result<String, ParseError> {
        self.next();
        let mut sub = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return self.expected("a double quote that ends the name in the header"),
                Some('"') => break,
                Some('\\') => {
                    self.next();
                    match self.peek() {
                        Some(c @ ('"' | '\\')) => sub.push(c),
                        _ => return self.expected("`\\\"` or `\\\\`: a header knows no other escape"),
                    }
                }
                Some(c) => sub.push(c),
            }
            self.next();
        }
        if sub.is_empty() {
            return self.expected("a name between the double quotes of the header");
        }
        self.next();
        Ok(sub)
    }

    fn variable(&mut self) -> Result<Line, ParseError> {
        let name = self.name("a section header, a comment, or a variable's name beginning with a letter")?;
        if self.peek() == Some('_') {
            return self.underscore(name);
        }
        self.skip_blanks();
        if self.peek() != Some('=') {
            self.end_of_line("`=` after the variable's name")?;
            return Ok(Line::Variable { name, value: Value::Alone });
        }
        self.next();
        self.skip_blanks();
        Ok(Line::Variable { name, value: Value::Text(self.value()?) })
    }

    /// What is wrong with a name that goes on with `_`. Of what is written only a name that we know is repeated.
    fn underscore<T>(&mut self, begun: String) -> Result<T, ParseError> {
        let mut meant = begun;
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
            meant.push(if c == '_' { '-' } else { c });
            self.next();
        }
        let rule = "a variable's name of letters, digits and `-`, and `_` is not allowed in it";
        match super::VARIABLES.iter().find(|known| known.eq_ignore_ascii_case(&meant)) {
            Some(known) => self.expected(format!("{rule}; `{known}` may be meant")),
            None => self.expected(rule),
        }
    }

    fn value(&mut self) -> Result<String, ParseError> {
        let mut value = String::new();
        let mut kept = 0; // up to here blanks at the end belong to the value: they stood in quotes
        loop {
            match self.peek() {
                None | Some('\n') => break,
                Some(';' | '#') => {
                    self.skip_comment();
                    break;
                }
                Some('"') => {
                    self.quoted(&mut value)?;
                    kept = value.len();
                }
                Some('\\') => {
                    self.next();
                    match self.peek() {
                        Some('"') => {
                            self.next();
                            value.push('"');
                        }
                        Some('\n') => {
                            self.next();
                        }
                        _ => {
                            return self.expected(
                                "a value whose backslashes stand in double quotes, written `\\\\`: \
                                 outside quotes one may only stand before a double quote or the end of the line",
                            );
                        }
                    }
                }
                Some(c) => {
                    self.next();
                    value.push(c);
                }
            }
        }
        let end = kept + value[kept..].trim_end().len();
        value.truncate(end);
        Ok(value)
    }

    fn quoted(&mut self, value: &mut String) -> Result<(), ParseError> {
        self.next();
        loop {
            match self.peek() {
                None | Some('\n') => return self.expected("a double quote that ends the value on the same line"),
                Some('"') => {
                    self.next();
                    return Ok(());
                }
                Some('\\') => {
                    self.next();
                    match self.peek() {
                        Some(c @ ('\\' | '"')) => value.push(c),
                        Some('n') => value.push('\n'),
                        Some('t') => value.push('\t'),
                        _ => {
                            return self.expected(
                                "`\\\\`, `\\\"`, `\\n` or `\\t`: there is no other escape inside double quotes",
                            );
                        }
                    }
                }
                Some(c) => value.push(c),
            }
            self.next();
        }
    }
}
