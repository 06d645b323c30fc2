//! Java's properties, as `java.util.Properties.load` reads them.

use std::iter::Peekable;
use std::str::Chars;

/// A name with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The line where it begins, from 1.
    pub line: usize,
}

/// Where an escape is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\\u without four digits")]
pub struct BadEscape {
    /// The line, from 1.
    pub line: usize,
}

/// Reads all pairs, in order.
pub fn read(text: &str) -> Result<Vec<Pair>, BadEscape> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut pairs = Vec::new();
    while reader.begin_pair() {
        let line = reader.line;
        let name = reader.piece(true)?;
        reader.separator();
        let value = reader.piece(false)?;
        pairs.push(Pair { name, value, line });
    }
    Ok(pairs)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// From 1.
    line: usize,
}

impl Reader<'_> {
    /// Goes on to the next pair, past blank lines and comments.
    fn begin_pair(&mut self) -> bool {
        loop {
            self.blanks();
            match self.rest.peek() {
                None => return false,
                Some('\r' | '\n') => self.line_end(),
                Some('#' | '!') => {
                    // A comment has no continuation.
                    while self.rest.next_if(|c| !matches!(c, '\r' | '\n')).is_some() {}
                }
                Some(_) => return true,
            }
        }
    }

    fn blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\u{c}')).is_some() {}
    }

    fn line_end(&mut self) {
        if self.rest.next() == Some('\r') {
            self.rest.next_if_eq(&'\n');
        }
        self.line += 1;
    }

    /// Blanks, and at most one `=` or `:` among them.
    fn separator(&mut self) {
        self.blanks();
        if self.rest.next_if(|c| matches!(c, '=' | ':')).is_some() {
            self.blanks();
        }
    }

    /// A name, up to what ends it, or a value, up to the end of the line.
    fn piece(&mut self, is_name: bool) -> Result<String, BadEscape> {
        // In UTF-16, since `\u` names its units.
        let mut units: Vec<u16> = Vec::new();
        loop {
            match self.rest.peek() {
                None | Some('\r' | '\n') => break,
                Some('=' | ':' | ' ' | '\t' | '\u{c}') if is_name => break,
                Some(_) => {}
            }
            match self.rest.next() {
                Some('\\') => self.escape(&mut units)?,
                Some(c) => units.extend(c.encode_utf16(&mut [0; 2]).iter()),
                None => break,
            }
        }
        Ok(String::from_utf16_lossy(&units))
    }

    fn escape(&mut self, units: &mut Vec<u16>) -> Result<(), BadEscape> {
        let c = match self.rest.peek() {
            // The line goes on, without what the next one is set in by.
            Some('\r' | '\n') => {
                self.line_end();
                self.blanks();
                return Ok(());
            }
            None => return Ok(()),
            Some('u') => {
                self.rest.next();
                units.push(self.unit()?);
                return Ok(());
            }
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('f') => '\u{c}',
            Some(&c) => c,
        };
        self.rest.next();
        units.extend(c.encode_utf16(&mut [0; 2]).iter());
        Ok(())
    }

    fn unit(&mut self) -> Result<u16, BadEscape> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.rest.next_if(char::is_ascii_hexdigit).and_then(|c| c.to_digit(16));
            let digit = digit.and_then(|digit| u16::try_from(digit).ok());
            unit = unit << 4 | digit.ok_or(BadEscape { line: self.line })?;
        }
        Ok(unit)
    }
}
