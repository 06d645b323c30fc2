//! Each fault of the proxy is seen from outside.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Direction, Proxy, wait_until};

use crate::LONG;

/// A server that sends back what it gets.
fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || -> Result<()> {
                let mut stream = stream?;
                std::io::copy(&mut stream.try_clone()?, &mut stream)?;
                Ok(())
            });
        }
    });
    Ok(address)
}

fn connect(proxy: &Proxy) -> Result<TcpStream> {
    let stream = TcpStream::connect(proxy.address())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

/// Sends `text` and expects it back; returns how long that took.
fn round_trip(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Duration> {
    let start = Instant::now();
    stream.write_all(text)?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, text);
    Ok(start.elapsed())
}

#[test]
fn a_cut_resets_what_is_open_and_lets_new_ones_in() -> Result<()> {
    let proxy = Proxy::start(None, echo()?)?;
    let mut stream = connect(&proxy)?;
    round_trip(&mut stream, b"before")?;
    proxy.cut()?;
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    round_trip(&mut connect(&proxy)?, b"after")?;
    // What was written is counted a moment later than it may arrive.
    let counted = || {
        let stats = proxy.stats();
        let bytes = (stats.bytes_to_server, stats.bytes_to_client);
        (stats.connections, stats.cuts, bytes) == (2, 1, (11, 11))
    };
    wait_until(LONG, "all of it to be counted", counted)
}

#[test]
fn a_refusing_proxy_has_no_port() -> Result<()> {
    let proxy = Proxy::start(None, echo()?)?;
    let mut open = connect(&proxy)?;
    // Until bytes flow, the connection may wait in the port's queue and would close with it.
    round_trip(&mut open, b"open")?;
    proxy.refuse()?;
    let error = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    round_trip(&mut open, b"still open")?;
    proxy.down()?;
    assert!(round_trip(&mut open, b"closed").is_err());
    proxy.pass()?;
    round_trip(&mut connect(&proxy)?, b"back")?;
    Ok(())
}

#[test]
fn a_stall_holds_bytes_and_connections() -> Result<()> {
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let proxy = Proxy::start(None, echo()?)?;
        let mut stream = connect(&proxy)?;
        round_trip(&mut stream, b"before")?;
        proxy.stall(direction);
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let error = round_trip(&mut stream, b"held").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        assert_eq!(proxy.stats().open, 1);
        proxy.resume();
        stream.set_read_timeout(Some(LONG))?;
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"held");
    }
    Ok(())
}

#[test]
fn slow_links_are_slow() -> Result<()> {
    let proxy = Proxy::start(None, echo()?)?;
    let mut stream = connect(&proxy)?;
    proxy.delay(Duration::from_millis(100));
    assert!(round_trip(&mut stream, b"late")? >= Duration::from_millis(200));
    assert!(proxy.stats().delayed >= 2);
    proxy.pass()?;
    proxy.throttle(10_000);
    assert!(round_trip(&mut stream, &[7; 15_000])? >= Duration::from_millis(1_400));
    let rate = proxy.stats().throttled_rate;
    assert!(rate > 0 && rate <= 10_000, "{rate} bytes a second");
    proxy.pass()?;
    proxy.one_byte_writes(true);
    round_trip(&mut stream, &vec![8; 20_000])?;
    proxy.pass()?;
    round_trip(&mut stream, &vec![9; 100_000])?;
    let counted = || (proxy.stats().delayed, proxy.stats().single_bytes) == (2, 40_000);
    wait_until(LONG, "each byte to be counted, and only those", counted)?;
    Ok(())
}

#[test]
fn a_close_is_passed_on_with_all_that_came_before() -> Result<()> {
    let proxy = Proxy::start(None, echo()?)?;
    let mut stream = connect(&proxy)?;
    stream.write_all(&vec![1; 50_000])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    assert_eq!(back, vec![1; 50_000]);
    wait_until(LONG, "the proxy to forget it", || proxy.stats().open == 0)?;
    assert_eq!(proxy.stats().cuts, 0);
    Ok(())
}
