//! From a host in the URL to a stream of bytes, encrypted as `sslmode` asks.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::conninfo::{Conninfo, Host, socket_path};
use super::dialogue::Transport;
use super::error::ConnectError;
use super::pace::{Socket, WINDOW_BYTES, Window};
use super::tls::{self, SslMode};

/// One address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Over the network.
    Tcp {
        /// What the certificate is compared with.
        name: String,
        /// One of the addresses that the name stands for.
        address: SocketAddr,
        /// Whether to ask for TLS, if `sslmode` wants it at all. Off after `prefer` has failed.
        tls: bool,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// `db:5432 (10.1.2.3)`, `10.1.2.3:5432`, or the path of the socket: enough to find the machine.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => path.display().fmt(f),
            Endpoint::Tcp { name, address, .. } if *name == address.ip().to_string() => {
                address.fmt(f)
            }
            Endpoint::Tcp { name, address, .. } => {
                write!(f, "{name}:{} ({})", address.port(), address.ip())
            }
        }
    }
}

impl Endpoint {
    /// Every address of the host, in the resolver's order.
    pub(super) async fn resolve(host: &Host) -> Result<Vec<Endpoint>, ConnectError> {
        let (name, port) = match host {
            Host::Unix { directory, port } => {
                return Ok(vec![Endpoint::Unix(socket_path(directory, *port))]);
            }
            Host::Tcp { name, address: Some(ip), port } => {
                let address = SocketAddr::new(*ip, *port);
                return Ok(vec![Endpoint::Tcp { name: name.clone(), address, tls: true }]);
            }
            Host::Tcp { name, address: None, port } => (name, *port),
        };
        let found = lookup_host((name.as_str(), port)).await;
        let failed = |source| ConnectError::Lookup { host: name.clone(), source };
        let endpoint = |address| Endpoint::Tcp { name: name.clone(), address, tls: true };
        Ok(found.map_err(failed)?.map(endpoint).collect())
    }

    /// The same without TLS.
    pub(super) fn in_plain_text(&self) -> Endpoint {
        let mut plain = self.clone();
        if let Endpoint::Tcp { tls, .. } = &mut plain {
            *tls = false;
        }
        plain
    }

    /// Opens the socket and asks for TLS, as far as there is a configuration for it.
    pub(super) async fn open(
        &self,
        conninfo: &Conninfo,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Stream, ConnectError> {
        let io = |source| ConnectError::Io { host: self.to_string(), source };
        let (name, address, wanted) = match self {
            // As in libpq: who could listen in on a Unix socket owns the machine anyway.
            Endpoint::Unix(path) => {
                return Ok(Stream::Unix(UnixStream::connect(path).await.map_err(io)?));
            }
            Endpoint::Tcp { name, address, tls } => (name, address, *tls),
        };
        let mut tcp = connect(*address).await.map_err(io)?;
        set_up(&tcp, conninfo).map_err(io)?;
        let Some(tls) = tls.filter(|_| wanted) else { return Ok(Stream::Tcp(tcp)) };

        let failed = |reason: String| ConnectError::Tls { host: self.to_string(), reason };
        match ask_for_tls(&mut tcp).await.map_err(io)? {
            Answer::Yes => {}
            Answer::No if conninfo.tls.mode == SslMode::Prefer => return Ok(Stream::Tcp(tcp)),
            Answer::No => {
                return Err(failed(format!(
                    "the server does not offer it and sslmode={} insists; set ssl = on in \
                     postgresql.conf, or sslmode=prefer in postgres.url",
                    conninfo.tls.mode
                )));
            }
            Answer::Other(what) => return Err(failed(what.to_owned())),
        }
        let name = ServerName::try_from(name.clone())
            .map_err(|_| failed(format!("{name:?} cannot be the name in a certificate")))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, tcp).await;
        let stream = stream.map_err(|error| failed(tls::explain(&error, &conninfo.tls)))?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// On the same machine, with a receive buffer that stays as it is; see [`pace`](super::pace).
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    if !address.ip().is_loopback() {
        return TcpStream::connect(address).await;
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The window is a part of what the first segment offers.
    socket.set_recv_buffer_size(WINDOW_BYTES)?;
    socket.connect(address).await
}

fn set_up(tcp: &TcpStream, conninfo: &Conninfo) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    if let Some(keepalive) = &conninfo.keepalive {
        let parameters = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.retries);
        socket.set_tcp_keepalive(&parameters)?;
    }
    #[cfg(target_os = "linux")]
    if conninfo.tcp_user_timeout.is_some() {
        socket.set_tcp_user_timeout(conninfo.tcp_user_timeout)?;
    }
    Ok(())
}

/// What a server says to `SSLRequest`.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// Neither; the text says what to make of it.
    Other(&'static str),
}

async fn ask_for_tls<S: Transport>(stream: &mut S) -> io::Result<Answer> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    stream.flush().await?;
    // Room for one byte too many: what comes along with the answer was put there by somebody
    // between us and the server, to be taken for the server's encrypted words (CVE-2021-23222).
    let mut room = [0; 2];
    let read = stream.read(&mut room).await?;
    Ok(match room.get(..read).unwrap_or_default() {
        [b'S'] => Answer::Yes,
        [b'N'] => Answer::No,
        [] => Answer::Other("the server hung up when asked for it; is this a Postgres port?"),
        [b'S', ..] => Answer::Other("bytes before the handshake: somebody interferes"),
        // The text of an error is not shown, since nobody has proved yet to be the server.
        [b'E', ..] => Answer::Other("the server answered with an error; see the server's log"),
        _ => Answer::Other("the answer is neither yes nor no; is this a Postgres port?"),
    })
}

/// A connection's bytes.
#[derive(Debug)]
pub enum Stream {
    /// Plain text over the network.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over the network.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the bytes are encrypted on their way.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Where it comes from.
    pub(super) fn socket(&self) -> Socket {
        match self {
            Stream::Unix(_) => Socket::Unix,
            Stream::Tcp(tcp) if tcp.peer_addr().is_ok_and(|it| it.ip().is_loopback()) => {
                let buffer = SockRef::from(tcp).recv_buffer_size();
                buffer.map_or(Socket::Network, |bytes| Socket::Loopback(Window::of(bytes)))
            }
            Stream::Tcp(_) | Stream::Tls(_) => Socket::Network,
        }
    }

    /// What SCRAM binds itself to: the hash of the server's certificate.
    pub(super) fn certificate_hash(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = self else { return None };
        tls::certificate_hash(stream.get_ref().1.peer_certificates()?.first()?)
    }

    /// The call through a table costs nothing next to the system call behind it.
    fn transport(self: Pin<&mut Self>) -> Pin<&mut dyn Transport> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream),
            Stream::Unix(stream) => Pin::new(stream),
            Stream::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.transport().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.transport().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What we make of a server that answers `SSLRequest` with these bytes and hangs up.
    async fn open_against(answer: &'static [u8], sslmode: &str) -> Result<Stream, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).await.unwrap();
            assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
            client.write_all(answer).await.unwrap();
        });
        let url = format!("postgres://u@127.0.0.1:{port}/app?sslmode={sslmode}");
        let conninfo = Conninfo::parse(&url).unwrap();
        let endpoint = Endpoint::resolve(&conninfo.hosts()[0]).await.unwrap().remove(0);
        let tls = conninfo.tls.load().unwrap();
        endpoint.open(&conninfo, tls.as_ref()).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn without_tls_on_the_server_the_mode_decides() {
        let opened = open_against(b"N", "prefer").await.unwrap();
        assert!(!opened.is_encrypted() && opened.certificate_hash().is_none());
        for mode in ["require", "verify-full"] {
            let error = open_against(b"N", mode).await.unwrap_err();
            assert!(error.contains(&format!("sslmode={mode} insists; set ssl = on")), "{error}");
        }
    }

    #[tokio::test]
    async fn every_other_answer_is_an_error() {
        for (answer, reason) in [
            (&b"SX"[..], "somebody interferes"),
            (b"Ecould not fork\0", "see the server's log"),
            (b"H", "is this a Postgres port?"),
            (b"NN", "is this a Postgres port?"),
            (b"", "is this a Postgres port?"),
            (b"S", "handshake"),
        ] {
            let error = open_against(answer, "prefer").await.unwrap_err();
            assert!(error.contains(reason), "{answer:?}: {error}");
            assert!(!error.contains("fork"), "shows what nobody has signed: {error}");
        }
    }

    #[test]
    fn an_endpoint_shows_name_and_address_once() {
        let endpoint = |name: &str, address: &str| {
            let (name, address) = (name.to_owned(), address.parse().unwrap());
            Endpoint::Tcp { name, address, tls: true }.to_string()
        };
        assert_eq!(endpoint("db", "10.0.0.1:5432"), "db:5432 (10.0.0.1)");
        assert_eq!(endpoint("10.0.0.1", "10.0.0.1:5432"), "10.0.0.1:5432");
        assert_eq!(endpoint("::1", "[::1]:5432"), "[::1]:5432");
        assert_eq!(Endpoint::Unix("/run/.s.PGSQL.5432".into()).to_string(), "/run/.s.PGSQL.5432");
    }
}
