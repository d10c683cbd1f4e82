//! Kafka as every role meets it: login, topics, identity, and reading a topic up to a barrier.

pub mod barrier;
pub mod flush;
pub mod identity;
mod login;
pub mod topics;

pub use login::{KEYS, KafkaSettings};

/// What went wrong, by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker answers.
    #[error("no answer from Kafka at {brokers} while {doing}; check kafka.brokers and that the cluster is up")]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// What we were doing.
        doing: String,
        /// Cause.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The topic is not what the run needs.
    #[error("topic {topic}: {finding}; {fix}")]
    Topic {
        /// Topic.
        topic: String,
        /// What is wrong.
        finding: String,
        /// What to do.
        fix: String,
    },
    /// Kafka refuses.
    #[error("Kafka refuses while {doing}")]
    Refused {
        /// What we were doing.
        doing: String,
        /// Cause.
        #[source]
        source: rdkafka::error::KafkaError,
    },
}
