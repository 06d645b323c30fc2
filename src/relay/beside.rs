//! What the server says beside the stream of rows.

use crate::error::Error;
use crate::pg::error::ServerError;

/// Messages beside the stream. What does not end it is logged.
pub(super) fn control(tag: u8, body: &[u8]) -> Result<(), Error> {
    match tag {
        b'E' => Err(match ServerError::parse(body) {
            // Up to version 17, a publication that did not exist when a row was written.
            missing if missing.sqlstate == "42704" => Error::RowsSkipped(missing),
            // Data exceptions, limits of the program, internal errors.
            row if matches!(row.sqlstate.get(..2), Some("22" | "54" | "XX")) => {
                Error::Undecodable(row)
            }
            other => Error::Server(other),
        }),
        // Since version 18 Postgres goes on without a publication that it does not find, and this
        // warning is the only sign.
        b'N' => match ServerError::parse(body) {
            warning if warning.sqlstate == "55000" => Err(Error::RowsSkipped(warning)),
            notice => {
                tracing::warn!("Postgres: {notice}");
                Ok(())
            }
        },
        // CopyDone and CommandComplete: the server is going down in good order.
        b'c' | b'C' | b'Z' => Err(Error::Closed),
        _ => Ok(()),
    }
}
