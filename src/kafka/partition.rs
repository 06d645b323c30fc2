//! The partition of a key, as Java's default partitioner computes it.
//!
//! librdkafka's own default is CRC32, so that a relay which left it at that would put every key
//! elsewhere than a Java producer does, and reorder each of them on the day it takes over.

/// The partition for `key` in a topic with this many partitions: murmur2, its sign bit cut off,
/// modulo the count (`BuiltInPartitioner.partitionForKey`). An empty key is a key.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7FFF_FFFF).checked_rem(partitions).unwrap_or(0)
}

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`): 32 bits, little-endian words.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_B28C;
    const M: u32 = 0x5BD1_E995;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ word >> 24).wrapping_mul(M)
    };
    // Java's arrays are at most i32::MAX long, so that the length fits there as it does here.
    #[expect(clippy::cast_possible_truncation, reason = "a Kafka key is shorter than 2 GiB")]
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafka_does() {
        for (text, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn a_topic_without_partitions_does_no_harm() {
        assert_eq!(partition(b"key", 0), 0);
        assert_eq!(partition(b"", 1), 0);
    }
}
