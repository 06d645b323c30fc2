//! Several relays share a table: each has a slot, a publication and a share of the keys of its own.

use std::collections::HashMap;

use lab::Relay;

use crate::scene::{LATEST, PATIENCE, Scene, insert, not_ready};

const KEYS: usize = 20;
const ROUNDS: usize = 50;

/// C15: rows that a publication leaves out are lost, unless it was said that another relay sends
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn c15_relays_share_the_keys_of_a_table_by_row_filters() {
    let mut scene = Scene::new(LATEST, 3).await;
    scene
        .execute(
            "ALTER TABLE outbox ADD COLUMN shard int
                 GENERATED ALWAYS AS (hashtext(aggregateid) & 1) STORED;
             CREATE PUBLICATION shard_0 FOR TABLE outbox WHERE (shard = 0)
                 WITH (publish = 'insert');
             CREATE PUBLICATION shard_1 FOR TABLE outbox WHERE (shard = 1)
                 WITH (publish = 'insert')",
        )
        .await;
    scene.configure_postgres("publication = \"shard_0\"\n");
    let refused = scene.start(&scene.database.url(), &scene.kafka.bootstrap());
    let why = "holds only those rows of public.outbox with (shard = 0)";
    not_ready(&refused, why).await;
    drop(refused);

    scene.configure_postgres("row_filters = \"allow\"\n");
    let first = scene.relay().await;
    let (slot, own) = (format!("slot = \"{}\"", scene.topic), "publication = \"shard_0\"");
    let config = scene.config(&scene.database.url(), &scene.kafka.bootstrap());
    let config = config.replace(&slot, &format!("slot = \"{}_1\"", scene.topic));
    let config = config.replace(own, "publication = \"shard_1\"");
    let second = Relay::builder(env!("CARGO_BIN_EXE_walrelay")).monitored().config(config);
    let second = second.start().unwrap();
    second.wait_ready(PATIENCE).await.unwrap();

    // Both have a part of each transaction.
    for round in 0..ROUNDS {
        let rows = (0..KEYS).map(|key| insert(&format!("k{key}"), &round.to_string()));
        scene.execute(&rows.collect::<String>()).await;
        if round == ROUNDS / 2 {
            second.restart().unwrap();
        }
    }
    let mut reader = scene.reader();
    reader.poll_until(KEYS * ROUNDS, PATIENCE).unwrap();
    let records = reader.read_to_end(PATIENCE).unwrap();
    assert_eq!(records.len(), KEYS * ROUNDS, "each row comes once");
    let mut next: HashMap<String, usize> = HashMap::new();
    for record in records {
        let expected = next.entry(record.key_text()).or_default();
        assert_eq!(record.payload_text(), expected.to_string(), "key {}", record.key_text());
        *expected += 1;
    }
    for relay in [&first, &second] {
        let sent = relay.metric("walrelay_events_total").await.unwrap();
        assert!(sent > 0.0, "the keys are on both sides of the filters");
    }
}
