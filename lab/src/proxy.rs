//! A TCP proxy that misbehaves on request: between the relay and Postgres, or the relay and Kafka.
//!
//! It runs on a thread and runtime of its own, so a test may block as it likes. Faults are one
//! value that every pump looks at before each piece it passes on; they hold for the connections
//! that are open and for those to come.
//!
//! ```text
//! client ── take in ──▶ queue (with time of arrival) ──▶ give out ── server     and back
//!              ▲ stalled: not read                          ▲ stalled, delayed, throttled
//! ```
//!
//! A stall stops both halves, so the sender's buffers fill up as they do when a network goes dark.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::ports::{self, Port};
use crate::wait_until;

/// How long the proxy's own thread may take to do what it was told.
const OBEY_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that a proxy reads at once, and has in hand when it stalls.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Under a delay, this many chunks may be on their way in each direction.
const QUEUE_CHUNKS: usize = 256;
/// A throttled pump writes as often as this.
const THROTTLE_PIECES_PER_SECOND: u64 = 20;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected to the proxy.
    ToServer,
    /// Back to whoever connected.
    ToClient,
    /// Either way.
    Both,
}

/// What went through, as evidence that a fault took place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Accepted since the start.
    pub connections: u64,
    /// Open now.
    pub open: u64,
    /// Written to the server.
    pub bytes_to_server: u64,
    /// Written to the client.
    pub bytes_to_client: u64,
    /// Connections that [`Proxy::cut`] closed.
    pub cuts: u64,
    /// Pieces that were held back for a delay.
    pub delayed: u64,
    /// Bytes that were written by themselves because they had to be.
    pub single_bytes: u64,
    /// Since [`Proxy::throttle`]: the most bytes a second that a connection passed on one way, over
    /// a second at least; 0 until one has been at it for so long.
    pub throttled_rate: u64,
}

impl Stats {
    /// Written in a direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::ToServer => self.bytes_to_server,
            Direction::ToClient => self.bytes_to_client,
            Direction::Both => self.bytes_to_server + self.bytes_to_client,
        }
    }
}

/// A proxy on 127.0.0.1. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Ours unless the caller brought the port.
    _reserved: Option<Port>,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each fault is on or off, in any combination")]
struct Faults {
    refuse: bool,
    stall_to_server: bool,
    stall_to_client: bool,
    delay: Duration,
    bytes_per_second: Option<u64>,
    one_byte_writes: bool,
    /// Connections with a smaller number are to be cut.
    cut_below: u64,
}

impl Faults {
    fn stalls(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.stall_to_server,
            Direction::ToClient => self.stall_to_client,
            Direction::Both => self.stall_to_server || self.stall_to_client,
        }
    }
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    faults: watch::Sender<Faults>,
    listening: AtomicBool,
    connections: AtomicU64,
    bytes_to_server: AtomicU64,
    bytes_to_client: AtomicU64,
    cuts: AtomicU64,
    delayed: AtomicU64,
    single_bytes: AtomicU64,
    throttled_rate: AtomicU64,
    /// The numbers of the open connections.
    open: Mutex<BTreeSet<u64>>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Listens on a port of its own or on the given one, and passes everything on to `target`.
    pub fn start(listen_port: Option<u16>, target: SocketAddr) -> Result<Proxy> {
        let reserved = if listen_port.is_none() { Some(ports::reserve()?) } else { None };
        let port = listen_port.or(reserved.as_ref().map(Port::number)).unwrap_or_default();
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("listen on port {port}"))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            target,
            faults: watch::Sender::new(Faults::default()),
            listening: AtomicBool::new(true),
            connections: AtomicU64::new(0),
            bytes_to_server: AtomicU64::new(0),
            bytes_to_client: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            single_bytes: AtomicU64::new(0),
            throttled_rate: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (quit, told_to_quit) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = told_to_quit => {}
                    error = serve(listener, port, served) => eprintln!("proxy {port}: {error}"),
                }
            });
        });
        Ok(Proxy { port, shared, quit: Some(quit), thread: Some(thread), _reserved: reserved })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What went through so far.
    pub fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Stats {
            connections: count(&self.shared.connections),
            open: self.shared.open().len() as u64,
            bytes_to_server: count(&self.shared.bytes_to_server),
            bytes_to_client: count(&self.shared.bytes_to_client),
            cuts: count(&self.shared.cuts),
            delayed: count(&self.shared.delayed),
            single_bytes: count(&self.shared.single_bytes),
            throttled_rate: count(&self.shared.throttled_rate),
        }
    }

    /// Resets (RST) every connection that is open now, both ends; new ones are welcome. They are
    /// closed when this returns.
    pub fn cut(&self) -> Result<()> {
        let below = self.shared.connections.load(Ordering::SeqCst);
        self.change(|faults| faults.cut_below = below);
        wait_until(OBEY_TIMEOUT, "the proxy to cut its connections", || {
            self.shared.open().range(..below).next().is_none()
        })
    }

    /// Closes the port: new connections are refused. Open ones go on; [`Proxy::down`] cuts them.
    pub fn refuse(&self) -> Result<()> {
        self.change(|faults| faults.refuse = true);
        wait_until(OBEY_TIMEOUT, "the proxy to close its port", || !self.listening())
    }

    /// Opens the port again.
    pub fn accept(&self) -> Result<()> {
        self.change(|faults| faults.refuse = false);
        wait_until(OBEY_TIMEOUT, "the proxy to open its port", || self.listening())
    }

    /// As if the server had died: refuses new connections and cuts the open ones.
    pub fn down(&self) -> Result<()> {
        self.refuse()?;
        self.cut()
    }

    /// Bytes stop flowing that way, connections stay open; also a close is not passed on. New
    /// connections are accepted and stall too.
    pub fn stall(&self, direction: Direction) {
        self.change(|faults| {
            faults.stall_to_server |= direction != Direction::ToClient;
            faults.stall_to_client |= direction != Direction::ToServer;
        });
    }

    /// Ends a stall, both ways; what was held flows.
    pub fn resume(&self) {
        self.change(|faults| (faults.stall_to_server, faults.stall_to_client) = (false, false));
    }

    /// Everything arrives so much later, each way. Throughput stays.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// The most bytes a second, for each connection and each way.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.throttled_rate.store(0, Ordering::SeqCst);
        self.change(|faults| faults.bytes_per_second = Some(bytes_per_second.max(1)));
    }

    /// Every byte is written by itself, which finds readers that trust in whole frames.
    pub fn one_byte_writes(&self, on: bool) {
        self.change(|faults| faults.one_byte_writes = on);
    }

    /// Ends every fault: accepts, and passes bytes on as they come.
    pub fn pass(&self) -> Result<()> {
        self.change(|faults| {
            *faults = Faults { cut_below: faults.cut_below, ..Faults::default() };
        });
        self.accept()
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }

    fn listening(&self) -> bool {
        self.shared.listening.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The thread sees the sender go.
        drop(self.quit.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Listens whenever connections are not to be refused; returns only if it cannot.
async fn serve(first: StdListener, port: u16, shared: Arc<Shared>) -> io::Error {
    let mut listener = TcpListener::from_std(first);
    loop {
        match listener {
            Ok(open) => accept_until_refused(&open, &shared).await,
            Err(error) => return error,
        }
        // The port is closed now: `open` went out of scope with the match.
        shared.listening.store(false, Ordering::SeqCst);
        wait_for(&shared, |faults| !faults.refuse).await;
        listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        shared.listening.store(listener.is_ok(), Ordering::SeqCst);
    }
}

async fn accept_until_refused(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            // 1. First, so that a stream of new connections cannot hide it.
            () = wait_for(shared, |faults| faults.refuse) => return,
            // 2. Cancel-safe: a connection not yet accepted stays with the kernel.
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(connection(client, Arc::clone(shared)));
            },
        }
    }
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    let number = {
        let mut open = shared.open();
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        open.insert(number);
        number
    };
    let mut server = None;
    let cut = wait_for(&shared, |faults| faults.cut_below > number);
    let (was_cut, orderly) = tokio::select! {
        () = cut => (true, false),
        carried = carry(&mut client, &mut server, &shared) => (false, carried.is_ok()),
    };
    for end in [Some(client), server].into_iter().flatten() {
        if !orderly {
            drop(end.set_zero_linger());
        }
    }
    shared.cuts.fetch_add(u64::from(was_cut), Ordering::SeqCst);
    shared.open().remove(&number);
}

async fn carry(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    shared: &Shared,
) -> io::Result<()> {
    let server = server.insert(TcpStream::connect(shared.target).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        pump(from_client, to_server, Direction::ToServer, shared),
        pump(from_server, to_client, Direction::ToClient, shared),
    )
    .map(drop)
}

async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let (queue, arrivals) = mpsc::channel(QUEUE_CHUNKS);
    let take_in = take_in(from, queue, direction, shared);
    let give_out = give_out(arrivals, to, direction, shared);
    tokio::try_join!(take_in, give_out).map(drop)
}

type Arrival = (Instant, Vec<u8>);

async fn take_in(
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<Arrival>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    loop {
        until_flowing(direction, shared).await;
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = from.read(&mut chunk).await;
        if read.is_err() {
            // The other end must not learn of a reset through a dark network.
            until_flowing(direction, shared).await;
        }
        match read? {
            0 => return Ok(()),
            length => chunk.truncate(length),
        }
        if queue.send((Instant::now(), chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give_out(
    mut arrivals: mpsc::Receiver<Arrival>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let passed = match direction {
        Direction::ToServer => &shared.bytes_to_server,
        Direction::ToClient | Direction::Both => &shared.bytes_to_client,
    };
    let mut pace = Pace::default();
    while let Some((arrived, chunk)) = arrivals.recv().await {
        let delay = shared.faults.borrow().delay;
        let late = u64::from(Instant::now() < arrived + delay);
        shared.delayed.fetch_add(late, Ordering::SeqCst);
        tokio::time::sleep_until(arrived + delay).await;
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            until_flowing(direction, shared).await;
            let faults = *shared.faults.borrow();
            let (piece, later) = rest.split_at(piece_bytes(&faults, rest.len()));
            let begun = Instant::now();
            to.write_all(piece).await?;
            passed.fetch_add(piece.len() as u64, Ordering::SeqCst);
            shared.single_bytes.fetch_add(u64::from(faults.one_byte_writes), Ordering::SeqCst);
            if let Some(rate) = faults.bytes_per_second {
                let nanoseconds = piece.len() as u64 * 1_000_000_000 / rate;
                tokio::time::sleep(Duration::from_nanos(nanoseconds)).await;
                if let Some(rate) = pace.passed(begun, piece.len() as u64) {
                    shared.throttled_rate.fetch_max(rate, Ordering::SeqCst);
                }
            } else {
                pace = Pace::default();
            }
            rest = later;
        }
    }
    until_flowing(direction, shared).await;
    to.shutdown().await
}

/// How fast one direction of a connection is.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    bytes: u64,
}

impl Pace {
    /// Bytes a second, each time that a second is full.
    fn passed(&mut self, begun: Instant, bytes: u64) -> Option<u64> {
        let took = self.since.get_or_insert(begun).elapsed();
        self.bytes += bytes;
        let rate = u128::from(self.bytes) * 1_000_000_000 / took.as_nanos().max(1);
        let full = took >= Duration::from_secs(1);
        if full {
            *self = Pace::default();
        }
        full.then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

/// How much to write at once; at least one byte, at most `length`, which is not 0.
fn piece_bytes(faults: &Faults, length: usize) -> usize {
    if faults.one_byte_writes {
        return 1;
    }
    let throttled = faults.bytes_per_second.map(|rate| {
        usize::try_from(rate / THROTTLE_PIECES_PER_SECOND).unwrap_or(usize::MAX).max(1)
    });
    throttled.map_or(length, |most| most.min(length))
}

async fn until_flowing(direction: Direction, shared: &Shared) {
    wait_for(shared, |faults| !faults.stalls(direction)).await;
}

async fn wait_for(shared: &Shared, condition: impl Fn(&Faults) -> bool) {
    // The sender lives in `shared`, so the wait cannot fail.
    drop(shared.faults.subscribe().wait_for(|faults| condition(faults)).await);
}
