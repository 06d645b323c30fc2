//! What is asked about topics, against a broker that knows one question.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A broker of Kafka 0.9, which answers `Metadata` in its first version: with one topic, and with
/// itself unless it `hides`.
#[derive(Clone)]
struct Fake {
    port: u16,
    hides: Arc<AtomicBool>,
}

impl Fake {
    fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = Fake { port, hides: Arc::default() };
        let server = fake.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = server.clone();
                thread::spawn(move || server.serve(client.unwrap()));
            }
        });
        fake
    }

    /// Until the client has gone.
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        loop {
            let mut len = [0; 4];
            client.read_exact(&mut len).ok()?;
            let mut request = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
            client.read_exact(&mut request).ok()?;
            let (head, _) = request.split_at(8);
            assert_eq!(head[..4], [0, 3, 0, 0], "not Metadata in its first version");
            let answer = [&head[4..], &self.metadata()].concat();
            let len = u32::try_from(answer.len()).unwrap().to_be_bytes();
            client.write_all(&[&len, answer.as_slice()].concat()).ok()?;
        }
    }

    /// Brokers, and the topic `t` with one partition (Kafka protocol guide, "Metadata").
    fn metadata(&self) -> Vec<u8> {
        let text = |text: &str| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let number = |number: u32| number.to_be_bytes().to_vec();
        let broker = [number(1), text("127.0.0.1"), number(self.port.into())].concat();
        let brokers = if self.hides.load(Ordering::SeqCst) {
            number(0)
        } else {
            [number(1), broker].concat()
        };
        // Number and leader, and no replicas.
        let partition = [vec![0, 0], number(0), number(1), number(0), number(0)].concat();
        let topic = [vec![0, 0], text("t"), number(1), partition].concat();
        // librdkafka reckons with an answer of some size.
        let other = [vec![0, 0], text(&"x".repeat(200)), number(0)].concat();
        [brokers, number(2), topic, other].concat()
    }
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A broker that starts may list no broker, not even itself.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_librdkafka_has_forgotten_are_found_again() {
    for asks in [true, false] {
        brokers_are_found_again(asks).await;
    }
}

/// Also by a relay that sends to no topic yet, but has its position to write.
async fn brokers_are_found_again(asks: bool) {
    let fake = Fake::start();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", format!("127.0.0.1:{}", fake.port));
    client.set("api.version.request", "false").set("broker.version.fallback", "0.9.0.1");
    client.set("reconnect.backoff.max.ms", "200");
    let settings = Settings { producer: client.clone(), client, compresses: false, batch_bytes: 1 };
    let producer: Arc<BaseProducer<Acks>> =
        Arc::new(settings.producer.create_with_context(Acks::default()).unwrap());
    let topics = Topics::start(Arc::clone(&producer), &settings, Counts::new()).unwrap();
    let ask = || {
        if asks {
            topics.questions.send("t".to_owned()).unwrap();
        }
    };
    let connected = || {
        producer.poll(Duration::ZERO);
        producer.context().is_connected()
    };
    fake.hides.store(!asks, Ordering::SeqCst);
    ask();
    if asks {
        wait_for("to be connected", connected).await;
        fake.hides.store(true, Ordering::SeqCst);
        ask();
    }
    let trouble = || producer.context().trouble().is_some_and(|it| it.contains("of no broker"));
    wait_for("to be forgotten", || !connected() && trouble()).await;
    fake.hides.store(false, Ordering::SeqCst);
    wait_for("to be found again", connected).await;
}
