//! What the files for containers say is what the program takes.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use walrelay::config::Config;
use walrelay::template::Source;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines below the line `key` that stands at this indent, up to the next at the same.
fn below<'a>(lines: &[&'a str], key: &str) -> Vec<&'a str> {
    let at = lines.iter().position(|line| line.trim_start() == key);
    let at = at.unwrap_or_else(|| panic!("no {key}"));
    let deeper = |line: &&&str| line.is_empty() || indent(line) > indent(lines[at]);
    let inside = lines[at + 1..].iter().take_while(deeper).copied();
    inside.filter(|line| !line.trim_start().starts_with('#')).collect()
}

/// The service of the composition. Only the part of YAML that the file uses is read.
fn service(name: &str) -> Vec<String> {
    let compose = read("docker/compose.yaml");
    let lines: Vec<_> = compose.lines().collect();
    let service = below(&below(&lines, "services:"), &format!("{name}:"));
    service.into_iter().map(str::to_owned).collect()
}

fn environment() -> BTreeMap<String, String> {
    let service = service("walrelay");
    let lines: Vec<_> = service.iter().map(String::as_str).collect();
    let pairs = below(&lines, "environment:").into_iter().map(|line| {
        let (name, value) = line.trim().split_once(": ").unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    pairs.collect()
}

fn config() -> Config {
    Config::parse("walrelay.toml", "", environment())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn the_environment_of_the_composition_is_a_configuration() {
    let environment = environment();
    assert!(environment.len() >= 3, "{environment:?}");
    let config = config();
    assert!(config.postgres.conninfo.has_password());
    assert_eq!(config.kafka.brokers, ["kafka:9092"]);
}

#[test]
fn the_composition_waits_for_what_is_in_flight() {
    let service = service("walrelay");
    let stop = service.iter().find_map(|line| line.trim().strip_prefix("stop_grace_period: "));
    let stop = stop.unwrap().strip_suffix('s').unwrap().parse().map(Duration::from_secs).unwrap();
    assert!(stop > config().delivery.shutdown_grace, "killed before it has ended");
}

#[test]
fn the_port_is_the_one_that_is_listened_on() {
    let port = config().http.listen.port();
    assert!(read("docker/Dockerfile").contains(&format!("\nEXPOSE {port}\n")));
    assert!(read("docker/prometheus.yaml").contains(&format!("\"walrelay:{port}\"")));
}

#[test]
fn the_table_has_the_columns_that_the_defaults_name() {
    let sql = read("docker/outbox.sql");
    let config = config();
    let [outbox] = config.outboxes.as_slice() else { panic!("{config:?}") };
    let sources = outbox.key.iter().chain(outbox.headers.iter().map(|(_, source)| source));
    let columns = sources.flat_map(Source::columns).chain(outbox.topic.columns());
    let named = outbox.id.iter().map(String::as_str).chain(outbox.payload.columns());
    for column in columns.chain(named) {
        assert!(sql.contains(&format!("\n    {column} ")), "outbox.sql: no column {column}");
    }
    let (publication, role) = (&config.postgres.publication, "walrelay");
    assert!(sql.contains(&format!("CREATE PUBLICATION {publication} FOR TABLE outbox ")));
    assert!(environment()["WALRELAY__POSTGRES__URL"].contains(&format!("//{role}@")));
    let login = format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '");
    assert!(sql.contains(&format!("{login}{}';", environment()["PGPASSWORD"])));
}

#[test]
fn images_have_a_version() {
    for path in ["docker/compose.yaml", "docker/Dockerfile"] {
        let text = read(path);
        let images = text.lines().filter_map(|line| {
            line.trim().strip_prefix("image: ").or_else(|| line.strip_prefix("FROM "))
        });
        for image in images.filter(|image| *image != "scratch") {
            let tag = image.split(' ').next().unwrap().split_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{path}: {image}");
        }
    }
}

/// What the build copies is what it needs, so the list of the folders is short, and complete.
#[test]
fn the_image_is_built_from_what_the_crate_is_made_of() {
    let ignore = read(".dockerignore");
    let kept: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), "all else stays out");
    for needed in ["ARCHITECTURE.md", "Cargo.lock", "Cargo.toml", "lab/Cargo.toml", "src"] {
        assert!(kept.contains(&needed), "{needed} is not copied: {kept:?}");
    }
    for path in kept {
        assert!(fs::metadata(path).is_ok(), ".dockerignore: there is no {path}");
    }
}
