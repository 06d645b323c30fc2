//! A topic's name made of another by a regular expression, as Debezium's and Kafka Connect's
//! routers do it: in Java's words, `if (matches()) replaceFirst(replacement)`.

use fancy_regex::{Captures, Regex, RegexBuilder};

/// How often the matcher may go back over a name. Beyond that the name is at fault: it would hold
/// up every row behind it.
const BACKTRACK_LIMIT: usize = 100_000;

/// A regular expression and what takes the place of its first find.
///
/// Look-around, references back and possessive quantifiers are there. What is not as in Java:
/// `\d`, `\w`, `\s` and `(?i)` go beyond ASCII, and `.` does not stop at every line break of
/// Unicode; neither is in the name of a topic.
#[derive(Clone, Debug)]
pub struct Rewrite {
    regex: String,
    replacement: String,
    /// The same expression, over all of the name.
    whole: Regex,
    first: Regex,
    parts: Vec<Part>,
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// What this group has found; nothing if it took no part.
    Group(usize),
}

impl Rewrite {
    /// Reads an expression and a replacement: `$1`, `${name}` and `\` before what stands for
    /// itself, as in Java.
    ///
    /// # Errors
    /// Says which of both cannot be read, and why.
    pub fn new(regex: &str, replacement: &str) -> Result<Rewrite, String> {
        let compile = |text: &str| {
            let built = RegexBuilder::new(text).backtrack_limit(BACKTRACK_LIMIT).build();
            built.map_err(|error| format!("{text:?} is no regular expression: {error}"))
        };
        // By itself first, or a stray parenthesis would be at home in what is put around it.
        let first = compile(regex)?;
        let whole = compile(&format!(r"\A(?:{regex})\z"))?;
        let parts = read(replacement, &first).map_err(|what| format!("{replacement:?} {what}"))?;
        let (regex, replacement) = (regex.to_owned(), replacement.to_owned());
        Ok(Rewrite { regex, replacement, whole, first, parts })
    }

    /// The expression.
    pub fn regex(&self) -> &str {
        &self.regex
    }

    /// What takes the place of what it finds.
    pub fn replacement(&self) -> &str {
        &self.replacement
    }

    /// Appends what becomes of a name: itself, if the expression does not match all of it.
    ///
    /// # Errors
    /// The expression went back over the name too often.
    pub fn apply(&self, name: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let too_long = |_| format!("topic_regex takes too long to match {name:?}");
        let found = if self.whole.is_match(name).map_err(too_long)? {
            self.first.captures(name).map_err(too_long)?
        } else {
            None
        };
        match found {
            None => out.extend_from_slice(name.as_bytes()),
            Some(found) => self.replace(name, &found, out),
        }
        Ok(())
    }

    fn replace(&self, name: &str, found: &Captures<'_, str>, out: &mut Vec<u8>) {
        let (start, end) = found.get(0).map_or((0, 0), |all| (all.start(), all.end()));
        out.extend_from_slice(name.get(..start).unwrap_or_default().as_bytes());
        for part in &self.parts {
            let text = match part {
                Part::Literal(text) => text.as_str(),
                Part::Group(group) => found.get(*group).map_or("", |it| it.as_str()),
            };
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(name.get(end..).unwrap_or_default().as_bytes());
    }
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Rewrite) -> bool {
        (&self.regex, &self.replacement) == (&other.regex, &other.replacement)
    }
}

/// Reads a replacement for the groups of `regex`.
fn read(replacement: &str, regex: &Regex) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => literal.push(rest.next().ok_or(r"ends with a \ and nothing behind it")?),
            '$' => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let group = match rest.next_if_eq(&'{') {
                    Some(_) => named(&mut rest, regex)?,
                    None => numbered(&mut rest, regex)?,
                };
                parts.push(Part::Group(group));
            }
            _ => literal.push(c),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// `name}` of `${name}`.
fn named(rest: &mut Rest<'_>, regex: &Regex) -> Result<usize, String> {
    let mut name = String::new();
    loop {
        match rest.next() {
            Some('}') => break,
            Some(c) => name.push(c),
            None => return Err("has a \"${\" without a \"}\" after it".to_owned()),
        }
    }
    let group = regex.capture_names().position(|group| group == Some(name.as_str()));
    group.ok_or_else(|| format!("names the group {name:?}, which topic_regex does not have"))
}

/// `12` of `$12`: as many digits as there are groups for, and one at least.
fn numbered(rest: &mut Rest<'_>, regex: &Regex) -> Result<usize, String> {
    let groups = regex.captures_len();
    let digit = |c: &char| c.to_digit(10).map(|digit| digit as usize);
    let Some(mut group) = rest.peek().and_then(digit) else {
        return Err(r"has a $ without a group; \$ is the character itself".to_owned());
    };
    rest.next();
    if group >= groups {
        return Err(format!("names group {group}, which topic_regex does not have"));
    }
    while let Some(digit) = rest.peek().and_then(digit)
        && group * 10 + digit < groups
    {
        group = group * 10 + digit;
        rest.next();
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(regex: &str, replacement: &str, name: &str) -> String {
        let mut out = Vec::new();
        Rewrite::new(regex, replacement).unwrap().apply(name, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What Debezium 3.6 made of them.
    #[test]
    fn rewrites_as_java_does() {
        for (regex, replacement, name, expected) in [
            (
                "(?<routedByValue>.*)",
                "outbox.event.${routedByValue}",
                "Order",
                "outbox.event.Order",
            ),
            (r"(.*)\.(.*)", "$2.$1.events", "shop.order", "order.shop.events"),
            (
                "(?<region>[a-z]+)-(?<kind>[a-z]+)",
                "${kind}.$1.${region}2",
                "eu-order",
                "order.eu.eu2",
            ),
            // Digits as far as there are groups for them.
            ("(a)(b)", "$12", "ab", "a2"),
            ("(a)(b)", r"x\1.y\.$2", "ab", "x1.y.b"),
            ("(a)?(b)", "t-$1-$2", "b", "t--b"),
            ("(?i)order", "orders", "ORDER", "orders"),
            // Not all of it matches: it stays.
            ("order", "orders", "order2", "order2"),
            ("(?!internal)(?<n>.*)", "ext.${n}", "internal.a", "internal.a"),
            ("(?!internal)(?<n>.*)", "ext.${n}", "order", "ext.order"),
            (r"(..)\1", "twice.$1", "abab", "twice.ab"),
            ("a++b?", "poss", "aab", "poss"),
            // The whole matches, and the first find is replaced.
            ("a|ab", "m.$0", "ab", "m.ab"),
            ("a|ab", "m[$0]", "ab", "m[a]b"),
            ("[a-zX]*?", "r_$0_", "aXb", "r__aXb"),
            ("(.*)", "", "a", ""),
        ] {
            assert_eq!(rewritten(regex, replacement, name), expected, "{regex} {replacement}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for regex in ["(a", "a)(b", r"\k<nope>"] {
            let told = Rewrite::new(regex, "t").unwrap_err();
            assert!(told.contains("is no regular expression: "), "{told}");
        }
        for (replacement, reason) in [
            ("t.${nope}", "names the group \"nope\""),
            ("t.$3", "names group 3"),
            ("t.$", "a $ without a group"),
            ("t.$x", "a $ without a group"),
            ("t.${a", "without a \"}\""),
            ("t\\", "nothing behind it"),
        ] {
            let told = Rewrite::new("(a)(b)", replacement).unwrap_err();
            assert!(told.contains(reason), "{replacement}: {told}");
        }
    }

    #[test]
    fn a_name_that_takes_too_long_is_an_error_and_no_standstill() {
        let rewrite = Rewrite::new(r"(x+x+)+(?=y)y\1", "t").unwrap();
        let reason = rewrite.apply(&"x".repeat(200), &mut Vec::new()).unwrap_err();
        assert!(reason.starts_with("topic_regex takes too long"), "{reason}");
    }
}
