//! A parsed text: the parser's tape beside the untouched bytes. Knows how to get from one to the
//! other.

use std::fmt;

use serde::de::DeserializeOwned;
use simd_json::{Deserializer, Node, StaticNode, Tape};

use super::{InvalidValue, JsonError};

/// A valid JSON text. Fields borrow from the text and its parser, not from the document; only
/// reading a typed value needs the document itself.
pub struct Document<'a> {
    text: &'a [u8],
    copy_start: usize,
    tape: Tape<'a>,
    home: &'a mut Tape<'static>,
}

/// A field of the top-level object.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// The value as it was written, without white space around it.
    pub span: &'a [u8],
    /// The value itself.
    pub value: Scalar<'a>,
    node: usize,
}

/// The top-level array, as far as it is told apart.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a> {
    /// The first element.
    pub first: Option<Field<'a>>,
    /// The second.
    pub second: Option<Field<'a>>,
    /// What stands behind the first comma.
    pub behind_first: &'a [u8],
}

/// What a value is, as far as envelopes care.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Whole(u64),
    /// Any other number.
    Number,
    /// A string, unescaped.
    Text(&'a str),
    /// An array.
    Array,
    /// An object.
    Object,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        text: &'a [u8],
        copy_start: usize,
        tape: Tape<'a>,
        home: &'a mut Tape<'static>,
    ) -> Self {
        Self {
            text,
            copy_start,
            tape,
            home,
        }
    }

    /// The fields of these names, of which the text must be an object. Of several fields of one
    /// name the last one counts.
    pub fn fields<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<Field<'a>>; N], JsonError> {
        let Some(Node::Object { len, .. }) = self.tape.0.first() else {
            return Err(JsonError::NotAnObject);
        };
        let mut found = [None; N];
        let mut at = 1;
        for ordinal in 0..*len {
            let Some(Node::String(name)) = self.tape.0.get(at) else {
                break;
            };
            let node = at + 1;
            let next = self.behind(node);
            if let Some(wanted) = names.iter().position(|wanted| wanted == name) {
                let next_name = (ordinal + 1 < *len).then_some(next);
                found[wanted] = Some(self.field(name, node, next_name));
            }
            at = next;
        }
        Ok(found)
    }

    /// The elements of the text, which must be an array. The parser does not keep where they
    /// stand; only the first is looked for, and the second where more follow.
    pub fn elements(&self) -> Result<Elements<'a>, JsonError> {
        let Some(Node::Array { len, .. }) = self.tape.0.first() else {
            return Err(JsonError::NotAnArray);
        };
        let text = self.text.trim_ascii();
        let inside = text[1..text.len() - 1].trim_ascii();
        let mut elements = Elements {
            first: None,
            second: None,
            behind_first: &[],
        };
        if *len == 0 {
            return Ok(elements);
        }
        let span = match len {
            1 => inside,
            _ => super::first_value(inside),
        };
        elements.first = Some(self.element(span, 1));
        if 1 < *len {
            let behind = inside[span.len()..].trim_ascii_start();
            elements.behind_first = behind[1..].trim_ascii_start();
            let span = match len {
                2 => elements.behind_first,
                _ => super::first_value(elements.behind_first),
            };
            elements.second = Some(self.element(span, self.behind(1)));
        }
        Ok(elements)
    }

    fn element(&self, span: &'a [u8], node: usize) -> Field<'a> {
        let value = scalar(self.tape.0[node]);
        Field { span, value, node }
    }

    /// Reads the value of a field. What the fast way refuses is tried again in the slow one,
    /// which has the last word and the better error.
    pub fn read<T: DeserializeOwned>(mut self, field: &Field<'a>) -> Result<T, InvalidValue> {
        let end = self.behind(field.node);
        self.tape.0.copy_within(field.node..end, 0);
        self.tape.0.truncate(end - field.node);
        let tape = std::mem::replace(&mut self.tape, Tape(Vec::new()));
        let mut deserializer = Deserializer::from_tape(tape);
        let read = T::deserialize(&mut deserializer);
        self.tape = deserializer.into_tape();
        read.or_else(|_| super::from_span(field.span))
    }

    /// The index of the node behind the value that begins at `node`.
    fn behind(&self, node: usize) -> usize {
        let inner = match self.tape.0.get(node) {
            Some(Node::Object { count, .. } | Node::Array { count, .. }) => *count,
            _ => 0,
        };
        node + 1 + inner
    }

    fn field(&self, name: &'a str, node: usize, next_name: Option<usize>) -> Field<'a> {
        let value = self.tape.0[node];
        let start = match value {
            Node::String(text) => self.opening_quote(text),
            _ => self.behind_colon(name),
        };
        let end = match next_name.map(|next| self.tape.0[next]) {
            Some(Node::String(next)) => self.opening_quote(next),
            _ => self.text.len(),
        };
        let cut = self.text[start..end].trim_ascii_end();
        let Some((_separator, span)) = cut.split_last() else {
            unreachable!("a value is followed by a comma or a brace");
        };
        Field {
            span: span.trim_ascii_end(),
            value: scalar(value),
            node,
        }
    }

    /// Where in the text the string begins that the parser found at this place of its copy.
    fn opening_quote(&self, string: &str) -> usize {
        string.as_ptr().addr() - self.copy_start - 1
    }

    /// Where the value begins whose key is `name`. The key ends at its first quote that is not
    /// escaped; how long it is on the tape says nothing, because there it is unescaped.
    fn behind_colon(&self, name: &str) -> usize {
        let mut at = self.opening_quote(name) + 1;
        while self.text[at] != b'"' {
            at += if self.text[at] == b'\\' { 2 } else { 1 };
        }
        at += 1;
        while matches!(self.text[at], b':' | b' ' | b'\t' | b'\n' | b'\r') {
            at += 1;
        }
        at
    }
}

impl Drop for Document<'_> {
    fn drop(&mut self) {
        let tape = std::mem::replace(&mut self.tape, Tape(Vec::new()));
        *self.home = tape.reset();
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("bytes", &self.text.len())
            .field("nodes", &self.tape.0.len())
            .finish()
    }
}

fn scalar<'a>(node: Node<'a>) -> Scalar<'a> {
    match node {
        Node::String(text) => Scalar::Text(text),
        Node::Object { .. } => Scalar::Object,
        Node::Array { .. } => Scalar::Array,
        Node::Static(StaticNode::Null) => Scalar::Null,
        Node::Static(StaticNode::Bool(value)) => Scalar::Bool(value),
        Node::Static(StaticNode::U64(value)) => Scalar::Whole(value),
        Node::Static(_) => Scalar::Number,
    }
}
