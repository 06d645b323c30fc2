//! The URL under `postgres.url`, as libpq understands it.
//!
//! `tokio-postgres` reads the part before the `?`. The parameters after it are read here, because
//! it does not know the TLS ones, takes `tcp_user_timeout` for seconds where libpq means
//! milliseconds, and does not split `?host=a,b`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio_postgres::config::ChannelBinding;

use super::tls::TlsSettings;

const PORT: u16 = 5432;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Postgres is and how to log in. Never shows the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conninfo {
    /// Tried in this order; never empty.
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) password: Option<Password>,
    pub(super) database: String,
    pub(super) application_name: String,
    /// The user's; ours are put after them, so that ours win.
    pub(super) options: Option<String>,
    pub(super) tls: TlsSettings,
    pub(super) channel_binding: ChannelBinding,
    pub(super) connect_timeout: Duration,
    pub(super) keepalive: Option<Keepalive>,
    pub(super) tcp_user_timeout: Option<Duration>,
}

/// One of the servers in the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Over the network.
    Tcp {
        /// A name or an address in text; what a certificate is compared with.
        name: String,
        /// `hostaddr`: spares the look-up.
        address: Option<IpAddr>,
        /// 5432 unless given.
        port: u16,
    },
    /// Over a Unix socket.
    Unix {
        /// The directory of the socket.
        directory: PathBuf,
        /// A part of the socket's name.
        port: u16,
    },
}

/// When the kernel asks a silent peer whether it is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keepalive {
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    pub(super) retries: u32,
}

/// Bytes that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(pub(super) Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Conninfo {
    /// Reads a `postgres://` or `postgresql://` URL. The message never repeats the password.
    pub fn parse(url: &str) -> Result<Conninfo, String> {
        let (front, query) = url.split_once('?').unwrap_or((url, ""));
        check_front(front, query)?;
        let front = tokio_postgres::Config::from_str(front).map_err(|error| reason(&error))?;
        let mut parameters = Parameters::parse(query)?;

        let hosts = hosts(&front, &mut parameters)?;
        let user = parameters.take("user").or_else(|| front.get_user().map(str::to_owned));
        let user = user.filter(|user| !user.is_empty()).ok_or("it names no user")?;
        let database = parameters.take("dbname").or_else(|| front.get_dbname().map(str::to_owned));
        let password = parameters.take("password").map(String::into_bytes);
        let password = password.or_else(|| front.get_password().map(<[u8]>::to_vec));
        let application_name = parameters.take("application_name");
        let conninfo = Conninfo {
            hosts,
            database: database.unwrap_or_else(|| user.clone()),
            user,
            password: password.map(Password),
            application_name: application_name.unwrap_or_else(|| "walrelay".to_owned()),
            options: parameters.options()?,
            tls: TlsSettings::new(
                parameters.take("sslmode").as_deref(),
                parameters.take("sslrootcert"),
                parameters.take("sslcert"),
                parameters.take("sslkey"),
            )?,
            channel_binding: parameters.channel_binding()?,
            connect_timeout: parameters.seconds("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT),
            keepalive: parameters.keepalive()?,
            tcp_user_timeout: parameters
                .number::<u32>("tcp_user_timeout")?
                .filter(|millis| *millis > 0)
                .map(|millis| Duration::from_millis(millis.into())),
        };
        parameters.check_target()?;
        parameters.refuse_the_rest()?;
        Ok(conninfo)
    }

    /// The same with a password from elsewhere (`password_file`, `password_env`).
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Vec<u8>>) -> Conninfo {
        self.password = Some(Password(password.into()));
        self
    }

    /// Whether a password is known.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The servers, in the order in which they are tried.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The database; the user's name unless given.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `walrelay` unless given. A walsender of the same name is one of ours.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// The session's `options`: the user's first, then ours, and the last one counts.
    pub(super) fn options_before(&self, ours: &str) -> String {
        match &self.options {
            Some(theirs) => format!("{theirs} {ours}"),
            None => ours.to_owned(),
        }
    }
}

/// `postgres://walrelay@db:5432/app`: who and where, but nothing secret.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
        let encode = |text: &str| utf8_percent_encode(text, &PLAIN).to_string();
        write!(f, "postgres://{}@", encode(&self.user))?;
        for (number, host) in self.hosts.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match host {
                Host::Tcp { .. } => write!(f, "{comma}{host}")?,
                Host::Unix { directory, port } => {
                    write!(f, "{comma}{}:{port}", encode(&directory.to_string_lossy()))?;
                }
            }
        }
        write!(f, "/{}", encode(&self.database))
    }
}

/// `db:5432`, or the path of the socket.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Host::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Host::Unix { directory, port } => socket_path(directory, *port).display().fmt(f),
        }
    }
}

pub(super) fn socket_path(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

/// Refuses what would make a piece of the password look like something else, and be printed.
fn check_front(front: &str, query: &str) -> Result<(), String> {
    let scheme = ["postgres://", "postgresql://"];
    let Some(rest) = scheme.iter().find_map(|scheme| front.strip_prefix(scheme)) else {
        return Err("it does not begin with postgres:// or postgresql://".to_owned());
    };
    if rest.matches('@').count() > 1 || query.contains('@') {
        let advice = "write a `@`, `/`, `?` or `:` in a user name or password, and a `@` after \
                      the `?`, as %40, %2F, %3F, %3A and %40";
        return Err(format!("it holds more than one `@`, or one after the `?`: {advice}"));
    }
    Ok(())
}

/// Says which part is wrong, but not what stands there.
fn reason(error: &tokio_postgres::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn hosts(front: &tokio_postgres::Config, parameters: &mut Parameters) -> Result<Vec<Host>, String> {
    use tokio_postgres::config::Host as Parsed;
    let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let addresses = match parameters.take("hostaddr") {
        Some(text) => list(text).iter().map(|one| address(one)).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let names = match parameters.take("host") {
        Some(text) => list(text),
        None if front.get_hosts().is_empty() => addresses.iter().map(IpAddr::to_string).collect(),
        None => {
            let name = |host: &Parsed| match host {
                Parsed::Tcp(name) => name.clone(),
                Parsed::Unix(path) => path.to_string_lossy().into_owned(),
            };
            front.get_hosts().iter().map(name).collect()
        }
    };
    let ports = match parameters.take("port") {
        Some(text) => list(text).iter().map(|one| port(one)).collect::<Result<_, _>>()?,
        None => front.get_ports().to_vec(),
    };
    if names.is_empty() {
        return Err("it names no host".to_owned());
    }
    if !addresses.is_empty() && addresses.len() != names.len() {
        return Err(format!("{} hosts, but {} in hostaddr", names.len(), addresses.len()));
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(format!("{} hosts, but {} ports", names.len(), ports.len()));
    }
    let one_for_all = ports.first().copied().unwrap_or(PORT);
    let host = |(number, name): (usize, String)| {
        let port = ports.get(number).copied().unwrap_or(one_for_all);
        match name {
            name if name.is_empty() => Err("a host has no name".to_owned()),
            name if name.starts_with('/') => Ok(Host::Unix { directory: name.into(), port }),
            name => Ok(Host::Tcp { name, address: addresses.get(number).copied(), port }),
        }
    };
    names.into_iter().enumerate().map(host).collect()
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("hostaddr: {text:?} is not an IP address"))
}

fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(PORT);
    }
    text.parse().map_err(|_| format!("port: {text:?} is not a port number"))
}

/// The parameters after the `?`, decoded. Each is taken out by the one who understands it; what
/// is left at the end nobody does.
struct Parameters(BTreeMap<String, String>);

impl Parameters {
    fn parse(query: &str) -> Result<Parameters, String> {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err("a parameter after the `?` has no `=`".to_owned());
            };
            parameters.insert(decode(name)?, decode(value)?);
        }
        Ok(Parameters(parameters))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn number<N: FromStr>(&mut self, name: &str) -> Result<Option<N>, String> {
        let parsed = |text: String| {
            text.parse().map_err(|_| format!("{name}: {text:?} is not a number or out of range"))
        };
        self.take(name).map(parsed).transpose()
    }

    /// As in libpq, 0 asks for the default.
    fn seconds(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let seconds = self.number::<u32>(name)?.filter(|seconds| *seconds > 0);
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
    }

    /// On unless switched off. The kernel's default of two hours would not find a dead peer
    /// before somebody notices that events are missing.
    fn keepalive(&mut self) -> Result<Option<Keepalive>, String> {
        let on = self.number::<u32>("keepalives")?.is_none_or(|on| on != 0);
        let keepalive = Keepalive {
            idle: self.seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(10)),
            interval: self.seconds("keepalives_interval")?.unwrap_or(Duration::from_secs(5)),
            retries: self.number("keepalives_count")?.filter(|count| *count > 0).unwrap_or(3),
        };
        Ok(on.then_some(keepalive))
    }

    fn channel_binding(&mut self) -> Result<ChannelBinding, String> {
        match self.take("channel_binding").as_deref() {
            Some("disable") => Ok(ChannelBinding::Disable),
            None | Some("prefer") => Ok(ChannelBinding::Prefer),
            Some("require") => Ok(ChannelBinding::Require),
            Some(other) => {
                Err(format!("channel_binding: {other:?} is not one of disable, prefer, require"))
            }
        }
    }

    fn options(&mut self) -> Result<Option<String>, String> {
        let options = self.take("options").filter(|options| !options.is_empty());
        // It would escape the blank before ours and so swallow the first of them.
        if options.as_ref().is_some_and(|options| options.ends_with('\\')) {
            return Err("options: must not end in a backslash".to_owned());
        }
        Ok(options)
    }

    /// A standby is passed over whatever the URL says, so `any` changes nothing.
    fn check_target(&mut self) -> Result<(), String> {
        match self.take("target_session_attrs").as_deref() {
            None | Some("any" | "read-write" | "primary") => Ok(()),
            Some(other) => Err(format!(
                "target_session_attrs: {other:?} cannot be had, since walrelay needs the primary; \
                 leave it out or use read-write"
            )),
        }
    }

    fn refuse_the_rest(&self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("the parameter {name:?} is not supported")),
        }
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a parameter after the `?` is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tls::{Root, SslMode};
    use super::*;

    fn parse(url: &str) -> Conninfo {
        Conninfo::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn shows_where_and_who_in_canonical_form() {
        let cases = [
            ("postgres://u@db", "postgres://u@db:5432/u"),
            ("postgresql://u@db/app", "postgres://u@db:5432/app"),
            ("postgres://u@db:6000/app?sslmode=disable", "postgres://u@db:6000/app"),
            ("postgres://u@a:1,b,c:3/app", "postgres://u@a:1,b:5432,c:3/app"),
            ("postgres://u@/app?host=a,b&port=1,2", "postgres://u@a:1,b:2/app"),
            ("postgres://u@db/app?port=6000", "postgres://u@db:6000/app"),
            ("postgres://u@a,b/app?port=6000", "postgres://u@a:6000,b:6000/app"),
            ("postgres://u@[::1]:6000/app", "postgres://u@[::1]:6000/app"),
            (
                "postgres:///app?host=/run/postgresql&user=u",
                "postgres://u@%2Frun%2Fpostgresql:5432/app",
            ),
            (
                "postgres://u@%2Frun%2Fpostgresql:6000/app",
                "postgres://u@%2Frun%2Fpostgresql:6000/app",
            ),
            ("postgres://u@/app?hostaddr=10.1.2.3", "postgres://u@10.1.2.3:5432/app"),
            ("postgres://u%40corp:p@db/my%20app", "postgres://u%40corp@db:5432/my%20app"),
            ("postgres://db/app?user=u&dbname=other", "postgres://u@db:5432/other"),
        ];
        for (url, shown) in cases {
            assert_eq!(parse(url).to_string(), shown, "{url}");
            assert_eq!(parse(shown).to_string(), shown, "{url}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let conninfo = parse("postgres://u@db/app");
        let (ten, five) = (Duration::from_secs(10), Duration::from_secs(5));
        assert_eq!(conninfo.application_name(), "walrelay");
        assert_eq!(conninfo.connect_timeout, ten);
        let keepalive = Keepalive { idle: ten, interval: five, retries: 3 };
        assert_eq!(conninfo.keepalive, Some(keepalive));
        assert_eq!(conninfo.tcp_user_timeout, None);
        assert_eq!(conninfo.tls.mode, SslMode::Prefer);
        assert_eq!(conninfo.options_before("-c x=1"), "-c x=1");
        assert!(!conninfo.has_password());
    }

    #[test]
    fn reads_every_parameter() {
        let conninfo = parse(
            "postgres://u:p%40ss@db/app?application_name=relay%20a&connect_timeout=3&keepalives=1\
             &keepalives_idle=7&keepalives_interval=8&keepalives_count=9&tcp_user_timeout=1500\
             &options=-c%20search_path%3Da&target_session_attrs=read-write\
             &channel_binding=require&sslmode=verify-full&sslrootcert=/ca.pem\
             &sslcert=/c.pem&sslkey=/k.pem&hostaddr=10.0.0.1",
        );
        let seconds = Duration::from_secs;
        assert_eq!(conninfo.password, Some(Password(b"p@ss".to_vec())));
        assert_eq!(conninfo.application_name(), "relay a");
        assert_eq!(conninfo.connect_timeout, seconds(3));
        let keepalive = Keepalive { idle: seconds(7), interval: seconds(8), retries: 9 };
        assert_eq!(conninfo.keepalive, Some(keepalive));
        assert_eq!(conninfo.tcp_user_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(conninfo.options_before("-c x=1"), "-c search_path=a -c x=1");
        assert_eq!(conninfo.channel_binding, ChannelBinding::Require);
        assert_eq!(conninfo.tls.mode, SslMode::VerifyFull);
        assert_eq!(conninfo.tls.root, Some(Root::File("/ca.pem".into())));
        assert_eq!(conninfo.tls.client, Some(("/c.pem".into(), "/k.pem".into())));
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let host = Host::Tcp { name: "db".to_owned(), address, port: 5432 };
        assert_eq!(conninfo.hosts(), [host]);
        assert_eq!(parse("postgres://u@db?keepalives=0").keepalive, None);
    }

    #[test]
    fn refuses_with_the_reason() {
        let cases = [
            ("db:5432", "does not begin with postgres://"),
            ("host=db user=u", "does not begin with postgres://"),
            ("postgres://db/app", "no user"),
            ("postgres://u@/app", "no host"),
            ("postgres://u@a,,b/app", "a host has no name"),
            ("postgres://u@a:x/app", "port"),
            ("postgres://u@a/app?port=70000", "port: \"70000\""),
            ("postgres://u@a,b,c/app?port=1,2", "3 hosts, but 2 ports"),
            ("postgres://u@a,b/app?hostaddr=10.0.0.1", "2 hosts, but 1 in hostaddr"),
            ("postgres://u@a/app?hostaddr=a", "not an IP address"),
            ("postgres://u@a/app?sslmode=allow", "`allow`"),
            ("postgres://u@a/app?sslmode=on", "not one of disable"),
            ("postgres://u@a/app?sslcert=/a", "belong together"),
            ("postgres://u@a/app?sslrootcert=system&sslmode=require", "verify-full"),
            ("postgres://u@a/app?passfile=/a", "\"passfile\" is not supported"),
            ("postgres://u@a/app?sslnegotiation=direct", "\"sslnegotiation\" is not supported"),
            ("postgres://u@a/app?connect_timeout=soon", "connect_timeout"),
            ("postgres://u@a/app?channel_binding=on", "channel_binding"),
            ("postgres://u@a/app?target_session_attrs=standby", "needs the primary"),
            ("postgres://u@a/app?options=-c%20a%3Db%5C", "backslash"),
            ("postgres://u@a/app?sslmode", "no `=`"),
            ("postgres://u@a/app?user=%FF", "not UTF-8"),
        ];
        for (url, reason) in cases {
            let error = Conninfo::parse(url).expect_err(url);
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        // Passwords that hold what separates the parts of a URL, encoded and not, in every place.
        let secret = "s3cr3t";
        for url in [
            "postgres://u:s3cr3t@db/app",
            "postgres://u:s3cr3t@db/app?nonsense=1",
            "postgres://u:a@s3cr3t@db/app",
            "postgres://u:a/s3cr3t@db/app",
            "postgres://u:a?s3cr3t@db/app",
            "postgres://u:12?s3cr3t=1@db/app",
            "postgres://u:a%40s3cr3t@db:x/app",
            "postgres://u:s3cr3t@db:x/app",
            "postgres://u@db/app?password=s3cr3t",
            "postgres://u@db/app?password=s3cr3t@db",
            "postgres://u@db/app?password=s3cr3t&port=x",
            "s3cr3t",
        ] {
            let shown = match Conninfo::parse(url) {
                Ok(conninfo) => format!("{conninfo} {conninfo:?}"),
                Err(error) => error,
            };
            assert!(!shown.contains(secret), "{url}: {shown}");
        }
        let conninfo = parse("postgres://u@db/app").with_password(secret);
        assert!(conninfo.has_password() && !format!("{conninfo:?} {conninfo}").contains(secret));
    }
}
