//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

/// The exit status for a mistake of the caller, on the command line or in the configuration
/// (`EX_USAGE` of sysexits).
pub const EX_USAGE: u8 = 64;

/// What `--version` shows.
static VERSION: LazyLock<String> = LazyLock::new(|| env!("CARGO_PKG_VERSION").to_owned());

const CONFIG_HELP_SHORT: &str = "The configuration file [default: walrelay.toml, if there is one]";
const CONFIG_HELP: &str = "\
The configuration file [default: walrelay.toml, if there is one]

Environment variables override single keys, and can replace the file altogether:

  WALRELAY__POSTGRES__SLOT=orders
      \"slot\" of [postgres]
  WALRELAY__KAFKA__BROKERS=a:9092,b:9092
      \"brokers\" of [kafka], a list
  WALRELAY__KAFKA__PROPERTIES__SASL_PASSWORD=...
      \"sasl.password\" of [kafka.properties]
  WALRELAY__OUTBOX__0__TABLE=public.outbox
      \"table\" of the first [[outbox]]";

/// Carries outbox rows from Postgres to Kafka, and loses none.
///
/// A service writes its events as rows of an outbox table, in the same transaction as its data.
/// walrelay sends every committed row to Kafka, in commit order. It reads them from a logical
/// replication slot: Postgres' own record of what one reader has seen of the write-ahead log.
/// Postgres keeps everything the slot still needs, so nothing is missed while walrelay is down; but
/// it keeps it on its disk, so a slot that is no longer read must be dropped.
#[derive(Debug, Parser)]
#[command(name = "walrelay", version = VERSION.as_str(), verbatim_doc_comment)]
pub struct Cli {
    /// The configuration file; without it, `walrelay.toml` in the working directory, if there is
    /// one.
    #[arg(long, global = true, env = "WALRELAY_CONFIG", value_name = "PATH")]
    #[arg(help = CONFIG_HELP_SHORT, long_help = CONFIG_HELP)]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What the program is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Send rows until told to stop by SIGTERM or SIGINT (the default)
    ///
    /// The first start creates the publication (which tables are read) and the replication slot
    /// (from where on), unless postgres.create is false. Rows written before that are not sent.
    #[command(verbatim_doc_comment)]
    Run {
        /// Go on although events are missing between what was delivered and the slot, or the slot
        /// itself is gone; once, for this start. What is missing is logged, from where to where.
        #[arg(long)]
        accept_gap: bool,
    },
    /// Check everything that a run rests on, and say what mends what is wrong
    ///
    /// Changes nothing. Exits with 1 if a run would not do.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Create publication and slot, as the first start would
    ///
    /// Rows written before that are not sent. From then on Postgres keeps its log for the slot.
    #[command(verbatim_doc_comment)]
    Init {
        /// Print the SQL instead, with the least rights for the relay's role.
        #[arg(long)]
        print: bool,
        /// Create the outbox tables as well, unless they are there.
        #[arg(long)]
        tables: bool,
    },
    /// Show the slot, how far it is behind, what Postgres keeps for it, and the position in Kafka
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the configuration in effect, with defaults filled in and secrets masked
    ///
    /// Connects to nothing. Mistakes are all reported at once, with exit status 64.
    Config,
    /// Print the configuration for what another relay has been doing
    #[command(subcommand)]
    Migrate(Migrate),
}

/// Whose configuration is translated.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Migrate {
    /// Print the configuration that does what a Debezium outbox connector does
    ///
    /// Reads the JSON of a Kafka Connect connector, or the application.properties or
    /// application.yaml of Debezium Server. Comments say what differs, what has no counterpart, and
    /// how to take over the slot without losing an event. Passwords are not printed.
    /// Connects to nothing. A file that cannot be translated is refused with exit status 64.
    #[command(verbatim_doc_comment)]
    Debezium {
        /// The file; "-" reads standard input.
        file: PathBuf,
    },
}

impl Cli {
    /// Reads the arguments, the program's own name first. After an error, or an answer to `--help`
    /// and the like, has been printed, gives the status to exit with.
    pub fn parse_from_args(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Cli, u8> {
        Cli::try_parse_from(args).map_err(|answer| {
            // A closed terminal is no reason for another exit status.
            let _ = answer.print();
            if answer.use_stderr() { EX_USAGE } else { 0 }
        })
    }

    /// What the program is asked to do.
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or(Command::Run { accept_gap: false })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::{Cli, Command, EX_USAGE, Migrate};

    #[test]
    fn definition_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn runs_unless_told_otherwise() {
        let command = |args: &[&str]| Cli::parse_from_args(args).unwrap().command();
        assert_eq!(command(&["walrelay"]), Command::Run { accept_gap: false });
        assert_eq!(command(&["walrelay", "run"]), Command::Run { accept_gap: false });
        assert_eq!(command(&["walrelay", "config"]), Command::Config);
        let migrate = Command::Migrate(Migrate::Debezium { file: "-".into() });
        assert_eq!(command(&["walrelay", "migrate", "debezium", "-"]), migrate);
        let accepting = Command::Run { accept_gap: true };
        assert_eq!(command(&["walrelay", "run", "--accept-gap"]), accepting);
    }

    #[test]
    fn takes_the_file_before_and_after_the_command() {
        for args in [
            ["walrelay", "--config", "a.toml", "config"],
            ["walrelay", "config", "--config", "a.toml"],
        ] {
            let cli = Cli::parse_from_args(args).unwrap();
            assert_eq!(cli.config.as_deref(), Some(Path::new("a.toml")));
            assert_eq!(cli.command(), Command::Config);
        }
    }

    #[test]
    fn a_mistake_exits_with_64_and_an_answer_with_0() {
        let status = |arg| Cli::parse_from_args(["walrelay", arg]).unwrap_err();
        assert_eq!(status("--cofnig"), EX_USAGE);
        assert_eq!(status("rnu"), EX_USAGE);
        assert_eq!(status("--help"), 0);
        assert_eq!(status("--version"), 0);
    }
}
