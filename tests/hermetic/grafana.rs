//! The dashboard and the alerts speak of metrics that exist, and leave none out.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use serde_json::Value;
use walrelay::health::Health;
use walrelay::metrics::Metrics;
use walrelay::pg::slot::Slot;
use walrelay::pipe::Passed;

/// Metrics that the dashboard leaves out, with the reason.
const NOT_SHOWN: [(&str, &str); 2] = [
    ("process_virtual_memory_bytes", "says nothing: what is mapped and not used costs nothing"),
    ("walrelay_stream_reads_total", "for the benchmark, which counts reads for each event"),
];

/// What an expression may name besides our metrics.
const PROMQL: [&str; 22] = [
    "Inf",
    "and",
    "bool",
    "changes",
    "clamp_min",
    "delta",
    "deriv",
    "histogram_quantile",
    "increase",
    "label_replace",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "offset",
    "or",
    "rate",
    "sum",
    "time",
    "unless",
    "up",
    "vector",
];

/// Followed by labels in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/dashboard.json")).unwrap()
}

/// The names of everything on `/metrics`, once everything that has labels has happened.
fn metrics() -> BTreeSet<String> {
    let metrics = Metrics::new().unwrap();
    metrics.passed(Passed::default(), [("orders", 1)].into_iter());
    metrics.session_ended("closed");
    metrics.poisoned("halt");
    metrics.slot(&Slot { wal_status: "reserved".into(), ..Slot::default() });
    let text = metrics.render(&Health::default().state(), Instant::now()).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(text.contains("\nwalrelay_events_total{"), "{text}");
    names
}

/// A histogram is asked for by the names of its samples.
fn metric_of<'a>(name: &'a str, metrics: &BTreeSet<String>) -> Option<&'a str> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    [Some(name), of_histogram].into_iter().flatten().find(|name| metrics.contains(*name))
}

/// Every name in a `PromQL` expression that is not a label, a label's value, or a duration.
fn names(expression: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '"' => closing(rest, '"'),
            '{' => closing(rest, '}'),
            '[' => closing(rest, ']'),
            _ if c.is_alphabetic() || "_$".contains(c) => {
                let word = |c: char| c.is_alphanumeric() || "_$".contains(c);
                let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
                let (name, behind) = rest.split_at(end);
                // `$limit` is a variable of the dashboard.
                if !name.starts_with('$') {
                    names.push(name.to_owned());
                }
                if behind.trim_start().starts_with('(') && GROUPING.contains(&name) {
                    end + closing(behind, ')')
                } else {
                    end
                }
            }
            // Numbers and durations: `0.99`, `5m`.
            _ if c.is_ascii_digit() => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len())
            }
            _ => c.len_utf8(),
        };
        rest = &rest[end..];
    }
    names
}

/// Where what `text` begins with ends: behind the next `end`.
fn closing(text: &str, end: char) -> usize {
    let found = text.char_indices().skip(1).find(|(_, c)| *c == end);
    found.unwrap_or_else(|| panic!("no {end:?} in {text}")).0 + end.len_utf8()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let inside = |panel: &'_ Value| panel["panels"].as_array().is_some_and(|all| !all.is_empty());
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(!panels.iter().any(inside), "no rows that hold panels: a look should show them all");
    panels.iter().collect()
}

/// Everything that the dashboard asks Prometheus, with the title of who asks.
fn questions(dashboard: &Value) -> Vec<(String, String)> {
    let mut questions = Vec::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        for target in targets {
            questions.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    questions
}

/// The expressions of a file of rules: each on its line, or below a `>-`.
fn expressions(rules: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut expressions = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim_start().strip_prefix("expr: ") else { continue };
        let mut expression = expression.to_owned();
        if expression == ">-" {
            expression.clear();
            while let Some(more) = lines.next_if(|more| indent(more) > indent(line)) {
                expression = format!("{expression} {}", more.trim());
            }
        }
        expressions.push(expression);
    }
    expressions
}

/// Fails on a name that neither `PromQL` nor the daemon knows. Returns the metrics.
fn check(place: &str, expression: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in names(expression) {
        if let Some(metric) = metric_of(&name, known) {
            found.insert(metric.to_owned());
        } else {
            let is_word = PROMQL.contains(&name.as_str()) || GROUPING.contains(&name.as_str());
            assert!(is_word, "{place}: there is no metric {name} in: {expression}");
        }
    }
    found
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let (known, dashboard) = (metrics(), dashboard());
    let mut shown = BTreeSet::new();
    for (title, expression) in questions(&dashboard) {
        shown.append(&mut check(&title, &expression, &known));
        assert!(expression.contains("$instance"), "{title}: shows all instances: {expression}");
    }
    let hidden: BTreeSet<_> = NOT_SHOWN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(shown.intersection(&hidden).collect::<Vec<_>>(), [""; 0], "NOT_SHOWN is shown");
    let all: BTreeSet<_> = shown.union(&hidden).cloned().collect();
    assert_eq!(all, known, "show the rest, or say in NOT_SHOWN why not");
}

#[test]
fn the_alerts_name_metrics_that_exist() {
    let (known, rules) = (metrics(), read("grafana/alerts.yaml"));
    let expressions = expressions(&rules);
    assert_eq!(expressions.len(), rules.matches("- alert: ").count());
    for expression in &expressions {
        let found = check("alerts.yaml", expression, &known);
        assert!(!found.is_empty() || expression.starts_with("up{"), "{expression}");
    }
    for needed in ["summary: ", "description: ", "severity: "] {
        assert_eq!(rules.matches(needed).count(), expressions.len(), "{needed}");
    }
}

/// Titles and descriptions, too.
#[test]
fn metrics_are_spelt_right_everywhere() {
    let known = metrics();
    for path in ["grafana/dashboard.json", "grafana/alerts.yaml", "grafana/alerts-test.yaml"] {
        let text = read(path);
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let ours = word.starts_with("walrelay_") || word.starts_with("process_");
            assert!(!ours || metric_of(word, &known).is_some(), "{path}: no metric {word}");
        }
    }
}

#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "panels have ids of their own");
    let mut taken = BTreeSet::new();
    for panel in &panels {
        let (title, place) = (panel["title"].as_str().unwrap(), &panel["gridPos"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| place[side].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is wider than the screen");
        for cell in (y..y + h).flat_map(|row| (x..x + w).map(move |column| (column, row))) {
            assert!(taken.insert(cell), "{title} lies over another panel");
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}: the variable");
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}: explain it");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.starts_with(&["datasource", "instance"]), "{names:?}");
    assert_eq!(dashboard["id"], Value::Null, "the id is Grafana's to give");
}

#[test]
fn names_are_found_in_expressions() {
    let found = |expression: &str| names(expression).join(" ");
    assert_eq!(found("rate(a_total{b=\"c\"}[5m]) > 0.5 * $limit"), "rate a_total");
    assert_eq!(
        found("sum by (le, job) (increase(x_bucket[$__rate_interval]))"),
        "sum by increase x_bucket"
    );
    assert_eq!(found("a unless on(job) b offset 15m"), "a unless on b offset");
    assert_eq!(expressions("expr: a\nexpr: >-\n  b\n  c\nfor: 1m\n"), ["a", " b c"]);
    let known = BTreeSet::from(["a_seconds".to_owned()]);
    assert_eq!(metric_of("a_seconds_bucket", &known), Some("a_seconds"));
    assert_eq!(metric_of("a_secons", &known), None);
}

#[test]
#[should_panic(expected = "there is no metric walrelay_raedy")]
fn a_misspelt_metric_is_found() {
    check("here", "walrelay_raedy == 0", &metrics());
}
