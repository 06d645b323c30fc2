//! The loop between a socket whose other end is the test, and a producer without a broker.

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::*;
use crate::config::Config;
use crate::frontier::{Frontier, Limits};
use crate::kafka::routes::Counts;
use crate::kafka::settings::Settings;
use crate::lsn::Lsn;
use crate::outbox::Outboxes;
use crate::pg::connect::Stream;
use crate::testing::{keepalive, message};

const CONFIG: &str = "postgres.url = 'postgres://walrelay@localhost/app'\n\
                      kafka.brokers = ['127.0.0.1:1']\n\
                      outbox = [{ table = 'outbox', topic = 'events' }]";

#[tokio::test]
async fn why_a_fast_stream_ends_is_told_although_it_ends_while_it_gathers() {
    let config = Config::parse("walrelay.toml", CONFIG, []).unwrap();
    let limits = Limits { records: 1, bytes: 1, span: 1 };
    let outboxes = Outboxes::new(Vec::new(), None);
    let mut pipe = Pipe::new(outboxes, Frontier::new(Lsn::ZERO, limits));
    let mut producer = Producer::start(&Settings::new(&config), Counts::new()).unwrap();
    let (health, metrics) = (Health::default(), Metrics::new().unwrap());
    let mut shutdown = Shutdown::on_signals().unwrap();
    let (_sensor, news) = tokio::sync::mpsc::channel(1);
    let (ours, mut server) = UnixStream::pair().unwrap();
    let relay = Relay {
        wire: Wire::new(Stream::Unix(ours), &[]),
        pipe: &mut pipe,
        registry: None,
        producer: &mut producer,
        positions: None,
        feedback: Feedback::new(Duration::from_secs(10)),
        health: &health,
        metrics: &metrics,
        news,
        shutdown: &mut shutdown,
        shutdown_grace: Duration::from_secs(1),
        silence_max: SILENCE_MAX,
    };
    // More than comes of a slow stream at once, and less than a gulp.
    let stream = message(b'd', &keepalive(100, false)).repeat(4_000);
    let reason = message(b'E', b"VFATAL\0C57P01\0Mterminating connection\0\0");
    let sent = async {
        server.write_all(&stream).await.unwrap();
        server.write_all(&reason).await.unwrap();
        drop(server);
    };
    let (ended, ()) = tokio::join!(relay.run(), sent);
    let Err(Error::Server(error)) = ended else { panic!("{ended:?}") };
    assert_eq!(error.sqlstate, "57P01");
}
