//! Text that must not be shown, alone or inside of a URL.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

/// What is shown in place of a secret.
pub(super) const MASK: &str = "***";

/// Text that no log, error or dump shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A connection URL that can be shown.
pub(super) fn mask_url(url: &str) -> String {
    let (head, tail) = match split_password(url) {
        Some((head, _, tail)) => (format!("{head}:{MASK}"), tail),
        None => (String::new(), url),
    };
    let Some((address, query)) = tail.split_once('?') else { return head + tail };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        // `password` and `sslpassword`
        Some((name, _)) if decoded(name).contains("password") => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    });
    format!("{head}{address}?{}", shown.collect::<Vec<_>>().join("&"))
}

/// Cuts `postgres://user:password@host/..` into `postgres://user`, `password`, `@host/..`.
///
/// As the one that connects does, for which a `/` or `?` before the `@` is part of the password;
/// but the last `@` counts and not the first: a password with an `@` that should have been `%40`
/// is still hidden whole.
fn split_password(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (user_info, _) = rest.rsplit_once('@')?;
    let (user, password) = user_info.split_once(':')?;
    let start = scheme.len() + "://".len();
    let head = url.get(..start + user.len())?;
    let tail = url.get(start + user_info.len()..)?;
    Some((head, password, tail))
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_every_password_of_a_url_and_nothing_else() {
        for (url, shown) in [
            ("postgres://host/db", "postgres://host/db"),
            ("postgres://u@host:5432/db?a=b", "postgres://u@host:5432/db?a=b"),
            ("postgres://[::1]:5432/db", "postgres://[::1]:5432/db"),
            ("postgres://u:pw@host/db", "postgres://u:***@host/db"),
            ("postgres://u:p:w@h1,h2:1/db?a=b", "postgres://u:***@h1,h2:1/db?a=b"),
            ("postgres://u:p@w@host", "postgres://u:***@host"),
            ("postgres://u:p?w@host?a=b", "postgres://u:***@host?a=b"),
            ("postgres://u:p/w@host/db", "postgres://u:***@host/db"),
            ("postgres://u:/@host", "postgres://u:***@host"),
            ("postgres://a/b:pw@host/db", "postgres://a/b:***@host/db"),
            ("postgres://h/db?password=pw&a=b", "postgres://h/db?password=***&a=b"),
            ("postgres://h?sslpassword=pw", "postgres://h?sslpassword=***"),
            ("postgres://h?a=b&p%61ssword=pw", "postgres://h?a=b&p%61ssword=***"),
        ] {
            assert_eq!(mask_url(url), shown);
        }
    }

    #[test]
    fn a_secret_shows_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
