//! The configuration: any TOML text, and texts with a secret where secrets belong.

use walrelay::config::{Config, Mistakes};

use super::input::Input;

/// Stands in no key and in no message of ours.
const SECRET: &str = "hunter2";

/// Nothing reads a file whose name the fuzzer has made up; and one password comes from here.
const ENV: [(&str, &str); 2] = [("WALRELAY__POSTGRES__PASSWORD_FILE", ""), ("PG", SECRET)];

/// Properties of librdkafka that hold a secret.
const SECRETS: [&str; 8] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.jaas.config",
];

/// The target.
pub fn config(data: &[u8]) {
    let mut input = Input::of(data);
    if input.byte().is_multiple_of(4) {
        // Where it stands by chance it is none.
        if !data.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()) {
            check_secrets(&with_secrets(&mut input));
        }
    } else {
        // The first byte is the text's, too: plain files are inputs.
        check_text(&String::from_utf8_lossy(data));
    }
}

fn parse(text: &str) -> Result<Config, Mistakes> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Config::parse("walrelay.toml", text, ENV.map(pair))
}

/// It is read, or every mistake has a place and a reason; and what is printed means the same.
fn check_text(text: &str) {
    let config = match parse(text) {
        Ok(config) => config,
        Err(mistakes) => {
            assert!(mistakes.iter().count() > 0);
            for mistake in &mistakes {
                assert!(!mistake.path.is_empty() && !mistake.message.is_empty());
            }
            return;
        }
    };
    let printed = config.to_toml();
    let again = parse(&printed).unwrap_or_else(|mistakes| panic!("{mistakes}\n{printed}"));
    assert_eq!(again.to_toml(), printed);
    assert_eq!(without_secrets(again), without_secrets(config), "{printed}");
}

/// What masks stand for does not come back.
fn without_secrets(mut config: Config) -> Config {
    let conninfo = &config.postgres.conninfo;
    if conninfo.has_password() {
        config.postgres.conninfo = conninfo.clone().with_password("");
    }
    config.postgres.url = walrelay::config::Secret::new("");
    let printed = config.to_toml();
    let masked = |name: &str| printed.contains(&format!("\"{name}\" = \"***\""));
    for (name, value) in &mut config.kafka.properties {
        if masked(name) {
            value.clear();
        }
    }
    config
}

/// What a person would write with a password in it, right or wrong.
fn with_secrets(input: &mut Input<'_>) -> String {
    let scheme = ["postgres://", "postgresql://", "POSTGRES://", "postgres:/"][input.below(8) % 4];
    let mut url = scheme.to_owned();
    let in_front = input.flag();
    if in_front {
        let (user, before, after) = (input.name(), input.name(), input.name());
        url += &[&*user, ":", &before, SECRET, &after, "@"].concat();
    } else {
        url += "u@";
    }
    url += &input.name();
    if !in_front || input.flag() {
        // `password`, with any letters of it in another form.
        let forms = input.byte();
        let letter = |(number, letter): (u32, char)| match forms >> number & 1 {
            0 => letter.to_string(),
            _ => format!("%{:02X}", u32::from(letter)),
        };
        let name: String = (0..).zip("password".chars()).map(letter).collect();
        let (before, after) = (input.name(), input.name());
        url += &["?", &before, "&", &name, "=", SECRET, "&", &after].concat();
    }
    let mut text = format!("postgres.url = {}\n", quoted(&url));
    text += "kafka.brokers = ['a:1']\n";
    for _ in 0..input.below(3) {
        let name = SECRETS[input.below(SECRETS.len())];
        let value = match input.below(4) {
            0 => format!("['{SECRET}']"),
            1 => format!("{{ {SECRET} = 1 }}"),
            _ => quoted(&format!("{}{SECRET}", input.name())),
        };
        // A key may come twice, which is a mistake as well.
        text += &["kafka.properties.\"", name, "\" = ", &value, "\n"].concat();
    }
    if input.below(8) == 0 {
        text += "postgres.password_env = 'PG'\n";
    }
    text += &String::from_utf8_lossy(input.clone().rest());
    text
}

/// A basic string.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// Whatever becomes of it, nobody is told.
fn check_secrets(text: &str) {
    let told = match parse(text) {
        Ok(config) => format!("{}{config:?}{}", config.to_toml(), config.postgres.conninfo),
        Err(mistakes) => format!("{mistakes}{mistakes:?}"),
    };
    assert!(!told.contains(SECRET), "{text}\n\n{told}");
}
