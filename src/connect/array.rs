//! Arrays: `{a,"b c",NULL}` as Java's `List`, or as JSON.

/// As many as Postgres has (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

/// What has just been read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Nothing,
    Open,
    Comma,
    Value,
}

/// Appends an array, nested if it has more than one dimension. `element` appends one of its
/// elements; no text is NULL.
pub(crate) fn write(
    text: &[u8],
    separator: &str,
    out: &mut Vec<u8>,
    element: impl Fn(Option<&[u8]>, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    let (mut rest, mut depth, mut read) = (values(text)?, 0, Read::Nothing);
    let mut unquoted = Vec::new();
    while let Some((&byte, tail)) = rest.split_first() {
        let expects_value = depth > 0 && matches!(read, Read::Open | Read::Comma);
        (read, rest) = match byte {
            b'{' if depth < DIMENSIONS_MAX && (expects_value || read == Read::Nothing) => {
                depth += 1;
                out.push(b'[');
                (Read::Open, tail)
            }
            b'}' if depth > 0 && read != Read::Comma => {
                depth -= 1;
                out.push(b']');
                (Read::Value, tail)
            }
            b',' if depth > 0 && read == Read::Value => {
                out.extend_from_slice(separator.as_bytes());
                (Read::Comma, tail)
            }
            b'"' if expects_value => {
                unquoted.clear();
                let tail = unquote(tail, &mut unquoted)?;
                element(Some(&unquoted), out)?;
                (Read::Value, tail)
            }
            _ if expects_value => {
                let end = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b'{' | b'"'));
                let (value, tail) = rest.split_at_checked(end?)?;
                match value {
                    b"" => return None,
                    b"NULL" => element(None, out)?,
                    _ => element(Some(value), out)?,
                }
                (Read::Value, tail)
            }
            _ => return None,
        };
    }
    (depth == 0 && read == Read::Value).then_some(())
}

/// Without the bounds in front that an array has if they do not begin with 1: `[0:1]={a,b}`.
fn values(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'[', ..] => text.get(text.iter().position(|byte| *byte == b'=')? + 1..),
        _ => Some(text),
    }
}

/// Reads up to the closing quote. Returns what is behind it.
fn unquote<'a>(text: &'a [u8], value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut bytes = text.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(bytes.as_slice()),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
}
