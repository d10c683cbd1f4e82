//! Which topic this is: the cluster's id and the topic's UUID.
//!
//! A topic deleted and created again keeps its name and starts its offsets anew; only its UUID tells. librdkafka asks
//! for it with DescribeTopics, which the safe wrapper does not offer, so this module calls the C function itself.

use std::{
    ffi::{CStr, CString},
    time::{Duration, Instant},
};

use rdkafka::{
    admin::AdminClient,
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

use super::{Error, KafkaSettings};

/// A topic as the cluster has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// Cluster id.
    pub cluster_id: String,
    /// Topic UUID, base64 as Kafka prints it.
    pub topic_id: String,
    /// Partition count.
    pub partitions: i32,
}

/// An admin connection that answers what a topic is.
pub struct Identities {
    admin: AdminClient<DefaultClientContext>,
    brokers: String,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identities").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Identities {
    /// Connects lazily.
    ///
    /// # Errors
    /// [`Error::Refused`] when the client settings are invalid.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, Error> {
        let admin = kafka
            .client()
            .create()
            .map_err(|source| Error::Refused { doing: "creating an admin client".into(), source })?;
        Ok(Self { admin, brokers: kafka.brokers.clone() })
    }

    /// The topic's identity; `None` when there is no such topic. Blocks up to `timeout`.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: later. [`Error::Refused`]: the answer is no.
    pub fn topic(&self, topic: &str, timeout: Duration) -> Result<Option<TopicIdentity>, Error> {
        let doing = || format!("describing topic {topic}");
        let unreachable = |source| Error::Unreachable { brokers: self.brokers.clone(), doing: doing(), source };
        let started = Instant::now();
        let cluster_id = self
            .admin
            .inner()
            .fetch_cluster_id(timeout)
            .ok_or_else(|| unreachable(KafkaError::AdminOp(RDKafkaErrorCode::AllBrokersDown)))?;
        let left = timeout.saturating_sub(started.elapsed()).max(Duration::from_secs(1));
        match describe(self.admin.inner().native_ptr(), topic, left) {
            Ok((topic_id, partitions)) => Ok(Some(TopicIdentity { cluster_id, topic_id, partitions })),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Err(
                code @ (RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::RequestTimedOut),
            ) => Err(unreachable(KafkaError::AdminOp(code))),
            Err(code) => Err(Error::Refused { doing: doing(), source: KafkaError::AdminOp(code) }),
        }
    }
}

/// Owns a C object and frees it once.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

#[expect(
    unsafe_code,
    reason = "the pointer came from the library that the destructor belongs to, and is freed only here"
)]
impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        unsafe { (self.1)(self.0) }
    }
}

/// UUID and partition count of one topic.
///
/// Proof of the block: `client` outlives the call because the caller holds the `AdminClient`. Every object that the
/// library hands over is owned by an [`Owned`], declared before what borrows from it, so it is freed last and once:
/// the description, the UUID and the error belong to the event and are only read while it lives. Arrays are read at
/// index 0 only after their count was checked. `base64str` may return a static buffer of the UUID object; it is copied
/// at once.
#[expect(unsafe_code, reason = "DescribeTopics has no safe wrapper in rdkafka 0.39")]
fn describe(client: *mut sys::rd_kafka_t, topic: &str, timeout: Duration) -> Result<(String, i32), RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let queue = Owned(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        let options = Owned(
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, std::ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = sys::rd_kafka_queue_poll(queue.0, millis.saturating_add(1000));
        if event.is_null() {
            return Err(RDKafkaErrorCode::OperationTimedOut);
        }
        let event = Owned(event, sys::rd_kafka_event_destroy);
        let failed = sys::rd_kafka_event_error(event.0);
        if failed != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed.into());
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopic);
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(description, &mut partitions);
        let uuid = sys::rd_kafka_TopicDescription_topic_id(description);
        let text = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(uuid)).to_string_lossy().into_owned();
        Ok((text, partitions as i32))
    }
}
