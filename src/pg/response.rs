//! What the server says that is no row: errors, notices, and the end.

use std::fmt;

/// An `ErrorResponse` or `NoticeResponse` of the server.
///
/// A field that the server did not send is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, ..., never translated.
    pub severity: String,
    /// The five characters that say what happened; everything is decided by them, not by the text.
    pub sqlstate: String,
    /// The primary text, in the server's language.
    pub message: String,
    /// More about the message.
    pub detail: String,
    /// What the server suggests.
    pub hint: String,
    /// Where it happened; a decoding error names slot, plugin and LSN here.
    pub context: String,
}

impl ServerError {
    /// Reads the body of an `ErrorResponse` or `NoticeResponse`.
    ///
    /// Never fails: the message that explains a failure is the wrong place for another one, so a
    /// damaged body gives what could be read of it.
    pub fn parse(body: &[u8]) -> ServerError {
        let mut error = ServerError::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((code, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match code {
                // `S` is translated; `V` (since 9.6) is not and wins wherever it stands.
                b'V' => error.severity = text,
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                b'H' => error.hint = text,
                b'W' => error.context = text,
                _ => {}
            }
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)?;
        for (name, text) in
            [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)]
        {
            if !text.is_empty() {
                write!(f, " ({name}: {text})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// A message beside the stream of rows.
#[derive(Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing that matters here.
    Nothing,
    /// A notice that does not end the stream.
    Notice(ServerError),
    /// Rows were written while their publication did not exist: they will never come.
    RowsSkipped(ServerError),
    /// Postgres cannot make out of a row what it would have to send.
    Undecodable(ServerError),
    /// The stream has ended with an error.
    Failed(ServerError),
    /// The stream has ended in good order: the server is going down.
    Ended,
}

impl Beside {
    /// Reads a message that is no `CopyData`.
    pub fn parse(tag: u8, body: &[u8]) -> Beside {
        match tag {
            b'E' => match ServerError::parse(body) {
                // Up to version 17, a publication that did not exist when a row was written.
                missing if missing.sqlstate == "42704" => Beside::RowsSkipped(missing),
                // Data exceptions, limits of the program, internal errors.
                row if matches!(row.sqlstate.get(..2), Some("22" | "54" | "XX")) => {
                    Beside::Undecodable(row)
                }
                other => Beside::Failed(other),
            },
            // Since version 18 Postgres goes on without a publication that it does not find, and
            // this warning is the only sign.
            b'N' => match ServerError::parse(body) {
                warning if warning.sqlstate == "55000" => Beside::RowsSkipped(warning),
                notice => Beside::Notice(notice),
            },
            // CopyDone and CommandComplete.
            b'c' | b'C' | b'Z' => Beside::Ended,
            _ => Beside::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0Dmore\0\
        Htry this\0Fauth.c\0L123\0Rauth_failed\0\0";

    #[test]
    fn reads_the_fields_it_knows() {
        let error = ServerError::parse(BODY);
        assert_eq!(error.severity, "FATAL");
        assert_eq!(error.sqlstate, "28P01");
        assert_eq!(
            error.to_string(),
            "FATAL 28P01: password authentication failed (detail: more) (hint: try this)"
        );
    }

    #[test]
    fn every_prefix_gives_something() {
        for end in 0..BODY.len() {
            let error = ServerError::parse(&BODY[..end]);
            assert!("FATAL".starts_with(&error.severity), "{error:?}");
        }
        assert_eq!(ServerError::parse(b""), ServerError::default());
        assert_eq!(ServerError::parse(b"M\xff\0").message, "\u{fffd}");
    }

    #[test]
    fn the_severity_that_is_not_translated_wins() {
        for body in [&b"SFATAL-ES\0VFATAL\0\0"[..], b"VFATAL\0SFATAL-ES\0\0"] {
            assert_eq!(ServerError::parse(body).severity, "FATAL");
        }
        assert_eq!(ServerError::parse(b"SERREUR\0\0").severity, "ERREUR");
    }

    #[test]
    fn a_code_says_what_a_message_beside_the_stream_means() {
        let body = |code: &str| format!("SX\0C{code}\0\0").into_bytes();
        for (tag, code, is) in [
            (b'N', "55000", Beside::RowsSkipped as fn(ServerError) -> Beside),
            (b'N', "00000", Beside::Notice),
            (b'N', "42704", Beside::Notice),
            (b'E', "42704", Beside::RowsSkipped),
            (b'E', "55000", Beside::Failed),
            (b'E', "22021", Beside::Undecodable),
            (b'E', "54000", Beside::Undecodable),
            (b'E', "XX000", Beside::Undecodable),
            (b'E', "57P01", Beside::Failed),
            (b'E', "", Beside::Failed),
        ] {
            let body = body(code);
            assert_eq!(Beside::parse(tag, &body), is(ServerError::parse(&body)), "{code}");
        }
        for tag in *b"cCZ" {
            assert_eq!(Beside::parse(tag, b""), Beside::Ended);
        }
        assert_eq!(Beside::parse(b'S', b"a\0b\0"), Beside::Nothing);
    }
}
