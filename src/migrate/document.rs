//! The TOML document: sections of keys, with comments above them.

use std::fmt::Write as _;

use crate::config;

/// Comments are broken there; commands are not.
const COLUMNS_MAX: usize = 100;

/// A section, or an entry of a list of them.
#[derive(Clone, Debug)]
pub(super) struct Section {
    title: String,
    keys: Vec<Key>,
    /// What is said behind the keys.
    after: Vec<String>,
}

/// A key with its value, and what is said above it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    comments: Vec<String>,
    name: String,
    value: String,
    is_off: bool,
}

impl Section {
    pub(super) fn new(title: &str) -> Section {
        Section { title: title.to_owned(), keys: Vec::new(), after: Vec::new() }
    }

    pub(super) fn push(&mut self, key: Key) {
        self.keys.push(key);
    }

    pub(super) fn after(&mut self, comment: impl Into<String>) {
        self.after.push(comment.into());
    }
}

impl Key {
    /// A value that is TOML already.
    pub(super) fn new(name: &str, value: impl Into<String>) -> Key {
        let (name, value) = (bare_or_quoted(name), value.into());
        Key { comments: Vec::new(), name, value, is_off: false }
    }

    pub(super) fn text(name: &str, value: &str) -> Key {
        Key::new(name, quoted(value))
    }

    /// Says something above the key, below what was said before.
    pub(super) fn say(mut self, comment: impl Into<String>) -> Key {
        self.comments.push(comment.into());
        self
    }

    pub(super) fn say_all(mut self, comments: impl IntoIterator<Item = String>) -> Key {
        self.comments.extend(comments);
        self
    }

    /// Whether it says that something is written as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.name.ends_with("_format") && self.value.contains("json")
    }

    /// The key is not in effect.
    pub(super) fn off(mut self) -> Key {
        self.is_off = true;
        self
    }

    pub(super) fn without_comments(&self) -> Option<Key> {
        (!self.is_off).then(|| Key { comments: Vec::new(), ..self.clone() })
    }
}

/// The whole document. Each block of comments at the end follows upon a blank line.
pub(super) fn render(head: &str, sections: &[Section], tail: &[&[String]]) -> String {
    let mut out = String::new();
    comment(&mut out, head);
    for Section { title, keys, after } in sections {
        line(&mut out, "");
        line(&mut out, title);
        let mut follows = false;
        for Key { comments, name, value, is_off } in keys {
            if follows && !comments.is_empty() {
                line(&mut out, "");
            }
            follows = true;
            for text in comments {
                comment(&mut out, text);
            }
            let off = if *is_off { "# " } else { "" };
            line(&mut out, &format!("{off}{name} = {value}"));
        }
        for text in after {
            comment(&mut out, text);
        }
    }
    for block in tail.iter().filter(|block| !block.is_empty()) {
        line(&mut out, "");
        for text in *block {
            comment(&mut out, text);
        }
    }
    out
}

fn line(out: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}

/// Breaks what is prose. What is set in by three columns belongs to the step above it, and what is
/// set in further is a command. An empty text is an empty line.
fn comment(out: &mut String, text: &str) {
    // What a file says gets into comments, and a control character ends one.
    let legal = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let text: String = text.chars().map(legal).collect();
    let prose = text.trim_start();
    let set_in = text.len() - prose.len();
    if prose.is_empty() || set_in > 3 {
        line(out, format!("# {text}").trim_end());
        return;
    }
    let is_step = prose.starts_with(|c: char| c.is_ascii_digit()) && prose.get(1..3) == Some(". ");
    let next = if is_step || set_in == 3 { "#   " } else { "#" };
    let mut row = if is_step { "#" } else { next }.to_owned();
    let mut is_begun = false;
    for word in prose.split(' ').filter(|word| !word.is_empty()) {
        if is_begun && row.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            line(out, &row);
            next.clone_into(&mut row);
        }
        is_begun = true;
        row.push(' ');
        row.push_str(word);
    }
    line(out, &row);
}

/// Text as TOML. Where it holds backslashes or quotes, in the form that leaves them as they are.
pub(super) fn quoted(text: &str) -> String {
    let literal = text.contains(['\\', '"']) && !text.contains('\'');
    if literal && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    config::quoted(text)
}

/// `{ name = "value" }`
pub(super) fn table(pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return "{}".to_owned();
    }
    let pair =
        |(name, value): &(String, String)| format!("{} = {}", bare_or_quoted(name), quoted(value));
    format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
}

fn bare_or_quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}
