//! What two relays made of the same rows, record by record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lab::Record;
use serde_json::Value;

/// The header that identifies an event.
const ID: &str = "id";
/// The header that only walrelay has.
const POSITION: &str = "walrelay-position";

/// A record and the topic it was found in, without the prefix of its side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    pub record: Record,
}

/// How two records differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Debezium alone has sent it.
    Missing,
    /// Walrelay alone has sent it.
    Beside,
    Topic,
    Partition,
    Key,
    Value,
    Headers,
    Time,
    /// It has another place among the records of its partition.
    Order,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::Missing => "missing",
            What::Beside => "beside",
            What::Topic => "topic",
            What::Partition => "partition",
            What::Key => "key",
            What::Value => "value",
            What::Headers => "headers",
            What::Time => "time",
            What::Order => "order",
        }
    }
}

/// One event on both sides, or on one of them.
#[derive(Clone, Debug)]
pub struct Compared {
    pub theirs: Option<Event>,
    pub ours: Option<Event>,
    /// Nothing if the records are the same.
    pub differs: Vec<What>,
}

/// Pairs the records by their header `id`, and compares each pair. Times are compared if `times`
/// says so: without an option for them they are those of sending and of commit.
pub fn compare(theirs: Vec<Event>, ours: Vec<Event>, times: bool) -> Vec<Compared> {
    let mut left: BTreeMap<Identity, VecDeque<Event>> = BTreeMap::new();
    for mut event in ours {
        event.record.headers.retain(|(name, _)| name != POSITION);
        left.entry(identity(&event)).or_default().push_back(event);
    }
    let mut all = Vec::new();
    for theirs in theirs {
        let ours = left.get_mut(&identity(&theirs)).and_then(VecDeque::pop_front);
        let differs = match &ours {
            Some(ours) => differences(&theirs, ours, times),
            None => vec![What::Missing],
        };
        all.push(Compared { theirs: Some(theirs), ours, differs });
    }
    for ours in left.into_values().flatten() {
        all.push(Compared { theirs: None, ours: Some(ours), differs: vec![What::Beside] });
    }
    let moved = moved(&all);
    for compared in &mut all {
        if compared.theirs.as_ref().is_some_and(|event| moved.contains(&identity(event))) {
            compared.differs.push(What::Order);
        }
    }
    all
}

type Identity = Option<Vec<u8>>;
/// An event of a partition, at its offset.
type Placed = (i64, Identity);

fn identity(event: &Event) -> Identity {
    let (_, value) = event.record.headers.iter().find(|(name, _)| name == ID)?;
    let value = value.as_deref()?;
    // With a schema it is what stands beside that, so that a schema of another kind hides no pair.
    let with_schema: Option<Value> = serde_json::from_slice(value).ok();
    let payload = with_schema.as_ref().and_then(|json| json.get("payload"));
    Some(payload.map_or_else(|| value.to_vec(), |payload| payload.to_string().into_bytes()))
}

fn differences(theirs: &Event, ours: &Event, times: bool) -> Vec<What> {
    let (left, right) = (&theirs.record, &ours.record);
    // A record without a key may be in any partition.
    let keyed = left.key.is_some() || right.key.is_some();
    let same = [
        (What::Topic, theirs.topic == ours.topic),
        (What::Partition, !keyed || left.partition == right.partition),
        (What::Key, left.key == right.key),
        (What::Value, left.payload == right.payload),
        (What::Headers, left.headers == right.headers),
        (What::Time, !times || left.timestamp_ms == right.timestamp_ms),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect()
}

/// The events that are the first of their partition to have another place in it. Only those that
/// both sides have in that partition count.
fn moved(all: &[Compared]) -> BTreeSet<Identity> {
    let mut places: BTreeMap<(&str, i32), Vec<[Placed; 2]>> = BTreeMap::new();
    for compared in all {
        let (Some(theirs), Some(ours)) = (&compared.theirs, &compared.ours) else { continue };
        let same = theirs.topic == ours.topic && theirs.record.partition == ours.record.partition;
        if same && theirs.record.key.is_some() {
            let place = (theirs.topic.as_str(), theirs.record.partition);
            let pair = [theirs, ours].map(|event| (event.record.offset, identity(event)));
            places.entry(place).or_default().push(pair);
        }
    }
    let first = |pairs: Vec<[Placed; 2]>| {
        let (mut theirs, mut ours): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(|[theirs, ours]| (theirs, ours)).unzip();
        theirs.sort_unstable();
        ours.sort_unstable();
        let mut both = theirs.into_iter().zip(ours);
        both.find(|((_, theirs), (_, ours))| theirs != ours).map(|((_, theirs), _)| theirs)
    };
    places.into_values().filter_map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, key: Option<&str>, offset: i64) -> Event {
        let record = Record {
            partition: 1,
            offset,
            key: key.map(|key| key.as_bytes().to_vec()),
            payload: Some(b"value".to_vec()),
            headers: vec![(ID.to_owned(), Some(id.as_bytes().to_vec()))],
            timestamp_ms: Some(offset),
        };
        Event { topic: "orders".to_owned(), record }
    }

    fn differs(theirs: &[Event], ours: &[Event], times: bool) -> Vec<Vec<What>> {
        let compared = compare(theirs.to_vec(), ours.to_vec(), times);
        compared.into_iter().map(|compared| compared.differs).collect()
    }

    #[test]
    fn records_that_are_the_same_do_not_differ() {
        let theirs = [event("a", Some("k"), 0), event("b", Some("k"), 1)];
        let mut ours = [event("a", Some("k"), 7), event("b", Some("k"), 9)];
        let position = (POSITION.to_owned(), Some(b"1".to_vec()));
        for event in &mut ours {
            event.record.headers.push(position.clone());
        }
        assert_eq!(differs(&theirs, &ours, false), [[]; 2]);
        assert_eq!(differs(&theirs, &ours, true), [[What::Time]; 2]);
    }

    #[test]
    fn each_thing_that_differs_is_found() {
        let theirs = [event("a", Some("k"), 0)];
        let change = |change: fn(&mut Event)| {
            let mut ours = theirs.clone();
            ours.iter_mut().for_each(change);
            differs(&theirs, &ours, false).concat()
        };
        assert_eq!(change(|it| it.topic.push('s')), [What::Topic]);
        assert_eq!(change(|it| it.record.partition = 2), [What::Partition]);
        assert_eq!(change(|it| it.record.key = Some(Vec::new())), [What::Key]);
        assert_eq!(change(|it| it.record.payload = None), [What::Value]);
        assert_eq!(change(|it| it.record.headers.push(("x".to_owned(), None))), [What::Headers]);
    }

    #[test]
    fn what_is_on_one_side_alone_is_found() {
        let (a, b) = ([event("a", Some("k"), 0)], [event("b", Some("k"), 1)]);
        let both = [a.clone(), b.clone()].concat();
        assert_eq!(differs(&both, &a, false), [vec![], vec![What::Missing]]);
        assert_eq!(differs(&b, &both, false), [vec![], vec![What::Beside]]);
        let twice = [a.clone(), a.clone()].concat();
        assert_eq!(differs(&a, &twice, false), [vec![], vec![What::Beside]]);
    }

    #[test]
    fn the_order_in_a_partition_counts_where_there_is_a_key() {
        let order = |key| {
            let theirs = [event("a", key, 0), event("b", key, 1)];
            let ours = [event("a", key, 5), event("b", key, 4)];
            differs(&theirs, &ours, false)
        };
        assert_eq!(order(Some("k")), [vec![What::Order], vec![]]);
        assert_eq!(order(None), [vec![], vec![]]);
    }
}
