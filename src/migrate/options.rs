//! What a file says, option by option, and which of it has been translated.

use std::collections::HashMap;

use super::Mistake;

const CONNECTOR: [&str; 2] =
    ["io.debezium.connector.postgresql.PostgresConnector", "PostgresConnector"];
const ROUTER: &str = "io.debezium.transforms.outbox.EventRouter";

/// The options of a file, flat, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `None` once it has been taken.
    entries: Vec<Option<Given>>,
    index: HashMap<String, usize>,
}

/// An option as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// Its name, as the file has it.
    pub(super) name: String,
    /// Its value.
    pub(super) value: String,
    /// Where it stands.
    pub(super) line: Option<usize>,
}

impl Options {
    /// Adds an option; the last one of a name counts.
    pub(super) fn put(&mut self, given: Given) {
        let place = *self.index.entry(given.name.clone()).or_insert(self.entries.len());
        match self.entries.get_mut(place) {
            Some(entry) => *entry = Some(given),
            None => self.entries.push(Some(given)),
        }
    }

    /// The option, which counts as translated from now on.
    pub(super) fn take(&mut self, name: &str) -> Option<Given> {
        self.entries.get_mut(*self.index.get(name)?)?.take()
    }

    /// The option, unless it has been taken.
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.entries.get(*self.index.get(name)?)?.as_ref()
    }

    /// All that are left and begin like this, in order.
    pub(super) fn take_all(&mut self, prefix: &str) -> Vec<Given> {
        let begins = |entry: &&mut Option<Given>| {
            entry.as_ref().is_some_and(|given| given.name.starts_with(prefix))
        };
        self.entries.iter_mut().filter(begins).filter_map(Option::take).collect()
    }

    /// Whether one is left that begins like this.
    pub(super) fn has(&self, prefix: &str) -> bool {
        self.entries.iter().flatten().any(|given| given.name.starts_with(prefix))
    }
}

impl Given {
    /// The value without the blanks around it.
    pub(super) fn text(&self) -> &str {
        self.value.trim()
    }

    /// Whether the value comes from outside of the file.
    pub(super) fn is_placeholder(&self) -> bool {
        self.value.contains("${")
    }
}

/// A configuration of Debezium, in one of its two deployments.
#[derive(Debug)]
pub(super) struct Debezium {
    pub(super) options: Options,
    pub(super) mistakes: Vec<Mistake>,
    /// The name of the connector, where it has one.
    pub(super) name: Option<String>,
    server: bool,
    /// What the router's options begin with.
    router: String,
    /// What became of the other transforms.
    pub(super) others: Vec<String>,
    /// The predicate that the router depends on.
    pub(super) predicate: Option<String>,
}

impl Debezium {
    pub(super) fn new(mut options: Options) -> Debezium {
        let server = options.has("debezium.");
        let name = if server { None } else { options.take("name") };
        Debezium {
            options,
            mistakes: Vec::new(),
            name: name.map(|name| name.value),
            server,
            router: String::new(),
            others: Vec::new(),
            predicate: None,
        }
    }

    /// Whether it is of Debezium Server, and not of Kafka Connect.
    pub(super) fn is_server(&self) -> bool {
        self.server
    }

    /// An option of the connector.
    pub(super) fn source(&mut self, name: &str) -> Option<Given> {
        let name = self.source_name(name);
        self.options.take(&name)
    }

    /// An option of the connector that has no counterpart, but matters for something else.
    pub(super) fn peek(&self, name: &str) -> Option<&Given> {
        self.options.get(&self.source_name(name))
    }

    /// The whole name of an option of the connector.
    pub(super) fn source_name(&self, name: &str) -> String {
        if self.server { format!("debezium.source.{name}") } else { name.to_owned() }
    }

    /// An option of the router.
    pub(super) fn router(&mut self, name: &str) -> Option<Given> {
        self.options.take(&format!("{}{name}", self.router))
    }

    /// The whole name of an option of the router.
    pub(super) fn router_name(&self, name: &str) -> String {
        format!("{}{name}", self.router)
    }

    /// What stands in the file must do; it is not what `default` stands for.
    pub(super) fn plain(&mut self, given: Option<Given>, default: &str) -> String {
        let Some(given) = given else { return default.to_owned() };
        if given.is_placeholder() {
            self.wrong(&given, "takes its value from outside of the file; write it there first");
        }
        given.value
    }

    /// A flag; whatever is not one counts as the default, as in Debezium.
    pub(super) fn flag(given: Option<&Given>, default: bool) -> bool {
        match given.map(|given| given.text().to_ascii_lowercase()).as_deref() {
            Some("true") => true,
            Some("false") => false,
            _ => default,
        }
    }

    /// One of a few words in any case, or the first of them.
    pub(super) fn word(&mut self, given: Option<Given>, words: &[&'static str]) -> &'static str {
        let first = words.first().copied().unwrap_or_default();
        let Some(given) = given else { return first };
        let same = |word: &&&str| word.eq_ignore_ascii_case(given.text());
        words.iter().find(same).copied().unwrap_or_else(|| {
            let what = format!("Debezium refuses {:?}; it knows {}", given.value, words.join(", "));
            self.wrong(&given, &what);
            first
        })
    }

    /// Adds a mistake about an option.
    pub(super) fn wrong(&mut self, given: &Given, what: &str) {
        self.mistakes.push(Mistake::new(given.line, format!("{}: {what}", given.name)));
    }

    /// Adds a mistake about what is not there.
    pub(super) fn missing(&mut self, what: String) {
        self.mistakes.push(Mistake::new(None, what));
    }

    /// Checks the connector, and finds the router among the transforms.
    pub(super) fn find_router(&mut self) {
        match self.source("connector.class") {
            None => {
                let name = self.source_name("connector.class");
                self.missing(format!("{name} is missing; it must be {}", CONNECTOR[0]));
            }
            Some(given) if !CONNECTOR.contains(&given.text()) => {
                let what = format!("is {:?}; only {} is translated", given.value, CONNECTOR[0]);
                self.wrong(&given, &what);
            }
            Some(_) => {}
        }
        let prefix = if self.server { "debezium." } else { "" };
        let list = self.options.take(&format!("{prefix}transforms"));
        let line = list.as_ref().and_then(|list| list.line);
        let list = list.map(|list| list.value).unwrap_or_default();
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        for name in names {
            self.transform(&format!("{prefix}transforms.{name}."));
        }
        if self.router.is_empty() {
            let what = format!(
                "no transform is an outbox event router: {prefix}transforms must name one whose \
                 type is {ROUTER}"
            );
            self.mistakes.push(Mistake::new(line, what));
        }
        if let Some(given) = self.router("predicate") {
            let negated = Debezium::flag(self.router("negate").as_ref(), false);
            let (not, name) = (if negated { " not" } else { "" }, given.text().to_owned());
            let mut about = Vec::new();
            for option in ["type", "pattern"] {
                let given = self.options.take(&format!("{prefix}predicates.{name}.{option}"));
                about.extend(given.map(|given| format!("{option} {}", given.text())));
            }
            let about = about.join(", ");
            self.predicate = Some(format!("predicate {name} ({about}) does{not} hold"));
        }
    }

    fn transform(&mut self, prefix: &str) {
        let kind = self.options.take(&format!("{prefix}type"));
        let kind = kind.map(|kind| kind.text().to_owned()).unwrap_or_default();
        if kind == ROUTER && self.router.is_empty() {
            prefix.clone_into(&mut self.router);
            return;
        }
        self.options.take_all(prefix);
        let name = prefix.trim_end_matches('.');
        self.others.push(if kind == ROUTER {
            format!("{name}: a second router; write the [[outbox]] of its tables by hand")
        } else if self.router.is_empty() {
            format!(
                "{name} ({kind}): there are no transforms; what it did before the router is gone"
            )
        } else {
            format!(
                "{name} ({kind}): there are no transforms; what it made of the router's records is \
                 gone"
            )
        });
    }
}
