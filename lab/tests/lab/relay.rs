//! A relay's process gets its file, its port and nothing of the tester's environment.

use anyhow::Result;
use lab::{Relay, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::LONG;

const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/stand-in-relay.sh");

/// Answers every request with the same body.
async fn answer(address: String, body: &'static str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            drop(stream.read(&mut [0; 1024]).await);
            drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
        }
    });
    Ok(())
}

#[tokio::test]
async fn a_relay_runs_with_what_the_test_gave_it() -> Result<()> {
    let builder = Relay::builder(STAND_IN).config("listen = \"{http}\"").args(["--more"]);
    let relay = builder.env("WALRELAY_X", "1").start()?;
    relay.wait_for_log(LONG, "WALRELAY_X=1")?;
    let log = relay.log();
    assert!(log.contains("args: run --config --more"), "{log}");
    assert!(log.contains(&format!("listen = \"{}\"", relay.http_address())), "{log}");
    assert!(relay.rss_bytes() <= relay.peak_rss_bytes() && relay.rss_bytes() > Some(0));

    answer(relay.http_address(), "a_total{t=\"x\"} 1\na_total{t=\"y\"} 2\n").await?;
    relay.wait_ready(LONG).await?;
    assert_eq!(relay.metric("a_total").await, Some(3.0));
    assert_eq!(relay.metric_where("a_total", "t=\"y\"").await, Some(2.0));
    assert_eq!(relay.metric("b_total").await, None);

    relay.restart()?;
    assert!(relay.log().contains("bye"));
    relay.kill_9()?;
    assert!(!relay.is_running() && relay.signal(Signal::Cont).is_err());
    Ok(())
}

#[tokio::test]
async fn a_relay_that_ends_is_not_waited_for() -> Result<()> {
    let relay = Relay::builder(STAND_IN).args(["--broken"]).start()?;
    let error = relay.wait_ready(LONG).await.unwrap_err().to_string();
    assert!(error.contains("args: run --config --broken"), "{error}");
    assert_eq!(relay.wait(LONG)?.code(), Some(1));
    Ok(())
}
