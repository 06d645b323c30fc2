//! What the fuzzer has found worth keeping, on stable and in a second: `fuzz/corpus`.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

fn play(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.collect();
    assert!(files.len() > 10, "{} has {} inputs only", folder.display(), files.len());
    for file in files {
        let input = fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(outcome.is_ok(), "{name} fails for {}", file.display());
    }
}

#[test]
fn frames_are_cut_the_same_however_they_come() {
    play("frame", targets::frame);
}

#[test]
fn messages_are_decoded_as_they_were_encoded_or_not_at_all() {
    play("pgoutput", targets::pgoutput);
}

#[test]
fn nothing_unacked_is_confirmed_whatever_the_server_says() {
    play("pipe", targets::pipe);
}

#[test]
fn what_is_encoded_is_read_by_the_library_whose_schema_it_is() {
    play("schema", targets::schema);
}

#[test]
fn a_configuration_is_printed_as_it_is_read_and_without_its_secrets() {
    play("config", targets::config);
}
