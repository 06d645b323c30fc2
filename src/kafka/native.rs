//! Records to librdkafka without the wrapper in between: the one file with `unsafe` code.
//!
//! For every record the wrapper copies the names of its topic and headers, to end them with a
//! zero, and librdkafka looks the topic up in a list under a lock. Here the name of a header goes
//! with its length, and a topic is a handle that is kept.

#![expect(unsafe_code, reason = "the wrapper knows no topic handles, and copies every name")]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_vtype_t as Type;
use rdkafka::bindings::rd_kafka_vu_s__bindgen_ty_1 as Value;
use rdkafka::bindings::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 as Memory;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;

use super::acks::Acks;
use crate::frontier::Ticket;
use crate::record::{self, Record};

/// A producer, and a handle of each topic that it has sent to.
pub(super) struct Sender {
    /// Given back before the producer: fields are dropped in their order.
    topics: HashMap<String, Topic>,
    producer: Arc<BaseProducer<Acks>>,
}

impl Sender {
    pub(super) fn new(producer: Arc<BaseProducer<Acks>>) -> Sender {
        Sender { topics: HashMap::new(), producer }
    }

    /// Hands a record over, to a partition or to any. It is copied before this returns.
    pub(super) fn send(
        &mut self,
        record: &Record<'_>,
        partition: Option<i32>,
        timestamp_ms: i64,
        ticket: Ticket,
    ) -> Result<(), KafkaError> {
        let topic = self.topic(record.topic)?;
        let headers = Headers::new(&record.headers)?;
        let opaque = ptr::without_provenance_mut(ticket.to_opaque());
        let arguments = [
            argument(Type::RD_KAFKA_VTYPE_RKT, Value { rkt: topic }),
            argument(Type::RD_KAFKA_VTYPE_PARTITION, Value { i32_: partition.unwrap_or(-1) }),
            argument(Type::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: sys::RD_KAFKA_MSG_F_COPY }),
            // 0 would be the time of this call.
            argument(Type::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: timestamp_ms.max(1) }),
            argument(Type::RD_KAFKA_VTYPE_KEY, Value { mem: memory(record.key) }),
            argument(Type::RD_KAFKA_VTYPE_VALUE, Value { mem: memory(record.payload) }),
            argument(Type::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: opaque }),
            argument(Type::RD_KAFKA_VTYPE_HEADERS, Value { headers: headers.as_ptr() }),
        ];
        let producer = self.producer.client().native_ptr();
        // SAFETY: the producer and the topic's handle live as long as `self`. Each argument has
        // the type of its tag, and key and value, which are only read, outlive the call, by whose
        // end `MSG_F_COPY` has them copied.
        let error =
            unsafe { sys::rd_kafka_produceva(producer, arguments.as_ptr(), arguments.len()) };
        match NonNull::new(error) {
            None => {
                headers.given_away();
                Ok(())
            }
            Some(error) => {
                // SAFETY: an error is ours to read, and then to give back, once.
                let code = unsafe {
                    let code = sys::rd_kafka_error_code(error.as_ptr());
                    sys::rd_kafka_error_destroy(error.as_ptr());
                    code
                };
                Err(failed(code))
            }
        }
    }

    fn topic(&mut self, name: &str) -> Result<*mut sys::rd_kafka_topic_t, KafkaError> {
        if let Some(Topic(handle)) = self.topics.get(name) {
            return Ok(handle.as_ptr());
        }
        let ended = CString::new(name)?;
        let producer = self.producer.client().native_ptr();
        // SAFETY: the producer lives, the name ends with a zero and is copied, and without a
        // configuration of its own a topic has the producer's.
        let handle = unsafe { sys::rd_kafka_topic_new(producer, ended.as_ptr(), ptr::null_mut()) };
        let Some(handle) = NonNull::new(handle) else {
            // SAFETY: reads a variable of this thread.
            return Err(failed(unsafe { sys::rd_kafka_last_error() }));
        };
        self.topics.insert(name.to_owned(), Topic(handle));
        Ok(handle.as_ptr())
    }
}

/// Has librdkafka know these brokers again, if it does not. It forgets every broker that an answer
/// about topics does not list, and a broker that has just started, or is about to end, may list
/// none: with no broker left, it would ask nobody ever again (librdkafka's issue 5301, since 2.10).
///
/// The list is kept each time, some dozen bytes, so that this is not for every occasion.
pub(super) fn add_brokers(producer: &BaseProducer<Acks>, brokers: &str) {
    let Ok(ended) = CString::new(brokers) else { return };
    // SAFETY: the producer lives, and the list ends with a zero and is copied.
    unsafe { sys::rd_kafka_brokers_add(producer.client().native_ptr(), ended.as_ptr()) };
}

/// How many brokers the one that answers lists. It is asked about the topics that this producer
/// has sent to, and about all only as long as there are none: of those there may be thousands.
///
/// # Errors
/// None answers.
pub(super) fn count_brokers(
    producer: &BaseProducer<Acks>,
    answer_max: Duration,
) -> Result<usize, KafkaError> {
    let (client, none) = (producer.client().native_ptr(), ptr::null_mut());
    let timeout_ms = i32::try_from(answer_max.as_millis()).unwrap_or(i32::MAX);
    let mut answer = ptr::null();
    // SAFETY: the producer lives, no topic is one that may be asked about, and `answer` is written
    // if there is one, and then ours.
    let code = unsafe { sys::rd_kafka_metadata(client, 0, none, &raw mut answer, timeout_ms) };
    if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(KafkaError::MetadataFetch(code.into()));
    }
    // SAFETY: it is read before it is given back, once.
    let count = unsafe {
        let count = (*answer).broker_cnt;
        sys::rd_kafka_metadata_destroy(answer);
        count
    };
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A handle of a topic, which librdkafka counts.
struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's handles may be used by any thread, and by several at once (its
// introduction, "Threads and callbacks").
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, and given back nowhere else.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A record's headers; none if there are none.
struct Headers(Option<NonNull<sys::rd_kafka_headers_t>>);

impl Headers {
    fn new(headers: &record::Headers<'_>) -> Result<Headers, KafkaError> {
        if headers.is_empty() {
            return Ok(Headers(None));
        }
        // SAFETY: allocates, or ends the process, and has no precondition.
        let list = Headers(NonNull::new(unsafe { sys::rd_kafka_headers_new(headers.len()) }));
        for (name, value) in headers.iter() {
            let Memory { ptr: bytes, size } = memory(value);
            let (name_len, size) = (name.len().cast_signed(), size.cast_signed());
            // SAFETY: name and value are copied, as many bytes of them as are given; a value
            // without an address is one that is absent.
            let code = unsafe {
                sys::rd_kafka_header_add(list.as_ptr(), name.as_ptr().cast(), name_len, bytes, size)
            };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(failed(code));
            }
        }
        Ok(list)
    }

    fn as_ptr(&self) -> *mut sys::rd_kafka_headers_t {
        self.0.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// They belong to a message now.
    fn given_away(mut self) {
        self.0 = None;
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if let Some(list) = self.0 {
            // SAFETY: they were made in `new`, and no message was made of them.
            unsafe { sys::rd_kafka_headers_destroy(list.as_ptr()) }
        }
    }
}

fn argument(vtype: Type, value: Value) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u: value }
}

/// Bytes that are only read, whatever the type says; no address if they are absent.
fn memory(bytes: Option<&[u8]>) -> Memory {
    let address = |bytes: &[u8]| bytes.as_ptr().cast_mut().cast::<c_void>();
    Memory { ptr: bytes.map_or(ptr::null_mut(), address), size: bytes.map_or(0, <[u8]>::len) }
}

fn failed(code: RDKafkaRespErr) -> KafkaError {
    KafkaError::MessageProduction(RDKafkaErrorCode::from(code))
}
