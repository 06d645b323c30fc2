//! The trace that an application leaves in its row, in the format of `java.util.Properties`: what
//! OpenTelemetry's propagators write is a few lines of `name=value`.
//!
//! Format: documentation of `java.util.Properties.load`.

use std::borrow::Cow;

/// The last value of a property; `None` if it is not there.
pub(super) fn property<'a>(text: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let text = str::from_utf8(text).ok()?;
    let mut lines = Lines(text);
    let mut found = None;
    while let Some(line) = lines.next_logical() {
        let (key, value) = split(&line);
        if unescaped(key) == name {
            found = Some(Cow::Owned(unescaped(value).into_owned()));
        }
    }
    found
}

/// What is left of a text.
struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    /// The next line that holds a property, together with those that it goes on in.
    fn next_logical(&mut self) -> Option<Cow<'a, str>> {
        let mut line = loop {
            let line = self.next_natural()?.trim_start_matches(BLANK);
            if !line.is_empty() && !line.starts_with(['#', '!']) {
                break Cow::Borrowed(line);
            }
        };
        while goes_on(&line) {
            line.to_mut().pop();
            let Some(next) = self.next_natural() else { break };
            line.to_mut().push_str(next.trim_start_matches(BLANK));
        }
        Some(line)
    }

    fn next_natural(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (line, rest) = self.0.split_once(['\n', '\r']).unwrap_or((self.0, ""));
        self.0 = rest;
        Some(line)
    }
}

const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// Whether a line ends with a backslash that no other one takes the meaning from.
fn goes_on(line: &str) -> bool {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    backslashes % 2 == 1
}

/// Name and value: between them is `=`, `:` or white space.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (BLANK.contains(&c) || matches!(c, '=' | ':'));
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANK);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(BLANK))
}

/// The text that escapes stand for.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('t') => out.push('\t'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('f') => out.push('\u{c}'),
                Some('u') => {
                    let digits: String = rest.by_ref().take(4).collect();
                    let unit = u32::from_str_radix(&digits, 16).ok();
                    out.push(unit.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                Some(c) => out.push(c),
                None => {}
            },
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_properties_as_java_reads_them() {
        let text = "# Wed\n! too\n\n  traceparent = 00-a-b-01\r\ntracestate:x\\=1,y\\:2\n\
                    baggage a\\\n   b\\u0041\ntraceparent=00-c-d-00\nempty\nlast=\\";
        let of = |name| property(text.as_bytes(), name).map(Cow::into_owned);
        assert_eq!(of("traceparent").as_deref(), Some("00-c-d-00"));
        assert_eq!(of("tracestate").as_deref(), Some("x=1,y:2"));
        assert_eq!(of("baggage").as_deref(), Some("abA"));
        assert_eq!(of("empty").as_deref(), Some(""));
        assert_eq!(of("last").as_deref(), Some(""));
        assert_eq!(of("nothing"), None);
        // No name of a property, so no trace.
        assert_eq!(property(b"00-a-b-01", "traceparent"), None);
        assert_eq!(property(b"\xff", "traceparent"), None);
        assert_eq!(property(b"traceparent=\\uD83D\\", "traceparent").as_deref(), Some("\u{fffd}"));
    }
}
