//! The topic: the router's regular expression and replacement as a template, where that says the
//! same.

use crate::template::Template;

/// How the topic is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// From a template alone.
    Template(String),
    /// From the column, by expression and replacement.
    Regex(String),
}

/// What the router makes of `column`. The replacement is read as `java.util.regex.Matcher` does.
pub(super) fn route(column: &str, regex: &str, replacement: &str) -> Result<Route, String> {
    let column = format!("{{{}}}", doubled(column));
    let route = match whole(regex) {
        Some(group) => Route::Template(filled(replacement, group, &column)?),
        None => Route::Regex(column),
    };
    let (Route::Template(topic) | Route::Regex(topic)) = &route;
    Template::topic(topic).map_err(|reason| format!("no record can have this topic: {reason}"))?;
    Ok(route)
}

/// Text as a part of a template.
pub(super) fn doubled(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// The group that the whole value is in.
#[derive(Clone, Copy, Debug)]
enum Group<'a> {
    None,
    Numbered,
    Named(&'a str),
}

/// Whether the expression matches everything, and has one group at most, of all of it. A value
/// with a line break would go to a topic of its own name, which no topic can have.
fn whole(regex: &str) -> Option<Group<'_>> {
    match regex {
        ".*" => return Some(Group::None),
        "(.*)" => return Some(Group::Numbered),
        _ => {}
    }
    // RE2/J, of Confluent's own connector, has a `P`.
    let name = regex.strip_prefix("(?<").or_else(|| regex.strip_prefix("(?P<"))?;
    let name = name.strip_suffix(">.*)")?;
    is_name(name).then_some(Group::Named(name))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn filled(replacement: &str, group: Group<'_>, column: &str) -> Result<String, String> {
    let mut topic = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(c) => topic.push_str(&doubled(&c.to_string())),
                None => return Err("ends in a backslash".to_owned()),
            },
            '$' if rest.next_if_eq(&'{').is_some() => {
                let mut name = String::new();
                while let Some(c) = rest.next_if(|c| *c != '}') {
                    name.push(c);
                }
                if rest.next().is_none() {
                    return Err("has a \"${\" without a \"}\"".to_owned());
                }
                if !matches!(group, Group::Named(known) if known == name) {
                    return Err(format!("names a group {name:?} that the expression has not"));
                }
                topic.push_str(column);
            }
            '$' => {
                let number = rest.next_if(char::is_ascii_digit);
                match (number, group) {
                    // "01" is group 1; another digit is text, since there is no such group.
                    (Some('0'), Group::Numbered | Group::Named(_)) => {
                        while rest.next_if_eq(&'0').is_some() {}
                        rest.next_if_eq(&'1');
                    }
                    (Some('0'), Group::None) => while rest.next_if_eq(&'0').is_some() {},
                    (Some('1'), Group::Numbered | Group::Named(_)) => {}
                    (Some(number), _) => {
                        return Err(format!("names a group {number} that the expression has not"));
                    }
                    (None, _) => return Err("has a \"$\" that names no group".to_owned()),
                }
                topic.push_str(column);
            }
            c => topic.push_str(&doubled(&c.to_string())),
        }
    }
    Ok(topic)
}
