//! The trace that an application leaves in its row, in the format of `java.util.Properties`: what
//! OpenTelemetry's propagators write is a few lines of `name=value`.

use crate::properties;

/// The last value of a property; `None` if it is not there, or the text is none of properties.
pub(super) fn property(text: &[u8], name: &str) -> Option<String> {
    let pairs = properties::read(str::from_utf8(text).ok()?).ok()?;
    pairs.into_iter().rev().find(|pair| pair.name == name).map(|pair| pair.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_properties_as_java_reads_them() {
        let text = "# Wed\n! too\n\n  traceparent = 00-a-b-01\r\ntracestate:x\\=1,y\\:2\n\
                    baggage a\\\n   b\\u0041\ntraceparent=00-c-d-00\nempty\nlast=\\";
        let of = |name| property(text.as_bytes(), name);
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
