use crate::scene::{PATIENCE, Scene, VERSIONS};

#[tokio::test]
async fn a_committed_row_becomes_a_record_on_every_version() {
    for version in VERSIONS {
        let scene = Scene::new(version, 1).await;
        let relay = scene.relay().await;
        scene.insert("k1", r#"{"n": 1}"#).await;
        let mut reader = scene.reader();
        let records = reader.poll_until(1, PATIENCE).unwrap();
        let record = &records[0];
        assert_eq!(record.key_text(), "k1");
        assert_eq!(record.payload_text(), r#"{"n": 1}"#);
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "eventType", "walrelay-position"]);
        assert_eq!(record.header("eventType").as_deref(), Some("created"));
        drop(relay);
    }
}
