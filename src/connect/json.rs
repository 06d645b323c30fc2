//! JSON as Jackson writes it, and what Connect puts into its strings.

use std::io::Write as _;

use super::Form;

/// Appends a JSON string as Jackson writes it: quotes, backslash and control characters escaped,
/// characters outside the Basic Multilingual Plane as two escapes, everything else as it is. What
/// is no UTF-8 becomes U+FFFD.
pub fn json_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if let Ok(text) = str::from_utf8(text) {
        escape(text, out);
    } else {
        for chunk in text.utf8_chunks() {
            escape(chunk.valid(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn escape(text: &str, out: &mut Vec<u8>) {
    // From 0xF0 on, a byte begins a character of four.
    let special = |byte| matches!(byte, b'"' | b'\\' | ..=0x1F | 0xF0..);
    let mut rest = text;
    while let Some((plain, tail)) =
        rest.bytes().position(special).and_then(|index| rest.split_at_checked(index))
    {
        out.extend_from_slice(plain.as_bytes());
        let mut tail = tail.chars();
        let character = tail.next().unwrap_or_default();
        rest = tail.as_str();
        let short = match character {
            '"' | '\\' => character,
            '\u{8}' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\u{C}' => 'f',
            '\r' => 'r',
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to memory does not fail.
                    let _ = write!(out, "\\u{unit:04X}");
                }
                continue;
            }
        };
        let _ = write!(out, "\\{short}");
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Text of a column.
pub(super) fn text(text: &[u8], form: Form, out: &mut Vec<u8>) {
    match form {
        Form::Json => json_string(text, out),
        Form::HeaderElement => {
            out.push(b'"');
            for &byte in text {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
        Form::String | Form::StringElement | Form::Header => out.extend_from_slice(text),
    }
}

/// What needs no escapes, between quotes if the form has them.
pub(super) fn quote(
    form: Form,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    let quote: &[u8] = if form.quotes() { b"\"" } else { b"" };
    out.extend_from_slice(quote);
    write(out)?;
    out.extend_from_slice(quote);
    Some(())
}

/// The bytes of a `bytea`: `\x` and two digits each. `None` is something else.
pub(super) fn hex(text: &[u8]) -> Option<impl Iterator<Item = Option<u8>>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.strip_prefix(b"\\x")?.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(move |&[high, low]| Some(digit(high)? << 4 | digit(low)?)))
}

/// Bytes as base64 has them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    let mut base64 = Base64::new(&mut out);
    for byte in bytes {
        base64.push(*byte);
    }
    base64.end();
    String::from_utf8(out).unwrap_or_default()
}

/// An encoder of base64 that is given one byte after the other.
pub(super) struct Base64<'a> {
    out: &'a mut Vec<u8>,
    /// The bytes that wait for their group of three to be full, the first one highest.
    held: u32,
    /// How many: 0, 1 or 2.
    count: u8,
}

impl<'a> Base64<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Base64<'a> {
        Base64 { out, held: 0, count: 0 }
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.held = self.held << 8 | u32::from(byte);
        self.count += 1;
        if self.count == 3 {
            let group = [18, 12, 6, 0].map(|shift| character(self.held >> shift));
            self.out.extend_from_slice(&group);
            (self.held, self.count) = (0, 0);
        }
    }

    pub(super) fn end(self) {
        let group = match self.count {
            1 => [character(self.held >> 2), character(self.held << 4), b'=', b'='],
            2 => {
                let [first, second] = [10, 4].map(|shift| character(self.held >> shift));
                [first, second, character(self.held << 2), b'=']
            }
            _ => return,
        };
        self.out.extend_from_slice(&group);
    }
}

/// The character of the lowest six bits.
fn character(bits: u32) -> u8 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let index = usize::try_from(bits & 63).unwrap_or_default();
    ALPHABET.get(index).copied().unwrap_or_default()
}
