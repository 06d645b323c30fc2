//! Reads a file in one of three syntaxes into flat options.

use serde_json::Value;

use super::options::{Given, Options};
use super::{Mistake, yaml};
use crate::properties::{self, Pair};

/// Reads a file; the end of its name tells the syntax, or else its content does.
pub(super) fn read(name: &str, text: &str) -> Result<Options, Mistake> {
    // Editors on Windows put it there.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    let given = match end.as_deref() {
        Some("json") => json(text)?,
        Some("properties") => of_properties(text)?,
        Some("yaml" | "yml") => yaml::read(text)?,
        _ if text.trim_start().starts_with('{') => json(text)?,
        _ if is_yaml(text) => yaml::read(text)?,
        _ => of_properties(text)?,
    };
    let mut options = Options::default();
    // Of Quarkus' profiles, that of production is the one of a server.
    let (profiled, plain): (Vec<Given>, Vec<Given>) =
        given.into_iter().partition(|given| given.name.starts_with("%prod."));
    for given in plain {
        options.put(given);
    }
    for given in profiled {
        let name = given.name.trim_start_matches("%prod.").to_owned();
        options.put(Given { name, ..given });
    }
    Ok(options)
}

pub(super) fn of_properties(text: &str) -> Result<Vec<Given>, Mistake> {
    let given = |Pair { name, value, line }| Given { name, value, line: Some(line) };
    let pairs = properties::read(text);
    let pairs = pairs.map_err(|bad| Mistake::new(Some(bad.line), bad.to_string()))?;
    Ok(pairs.into_iter().map(given).collect())
}

/// Properties have a value in each line; YAML begins with a line that has none.
fn is_yaml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.find(|line| !line.starts_with(['#', '!']));
    first.is_some_and(|line| line.starts_with("---") || line.ends_with(':'))
}

/// The bare map, or that of the REST interface, which has it under `config`.
fn json(text: &str) -> Result<Vec<Given>, Mistake> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| Mistake::new(Some(error.line()), format!("no JSON: {error}")))?;
    let Value::Object(mut map) = json else {
        return Err(Mistake::new(None, "is not the configuration of a connector: no JSON object"));
    };
    if let Some(Value::Object(config)) = map.get_mut("config") {
        let mut config = std::mem::take(config);
        if let Some(name) = map.remove("name") {
            config.entry("name").or_insert(name);
        }
        map = config;
    }
    let mut options = Vec::new();
    for (name, value) in map {
        let value = match value {
            Value::String(text) => text,
            Value::Null => continue,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                let what = format!("{name}: the value of an option is text, and no list or object");
                return Err(Mistake::new(None, what));
            }
        };
        options.push(Given { name, value, line: None });
    }
    Ok(options)
}
