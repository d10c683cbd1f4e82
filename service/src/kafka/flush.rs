//! Sends everything now, and waits for the acknowledgements.
//!
//! The safe wrapper flushes for no time at all, again and again: in between the client goes back to lingering. So this
//! module calls the C function itself.

use std::time::Duration;

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaRespErr,
};

/// Blocks until every record of `producer` is acknowledged or has failed, which its delivery callback has then heard.
///
/// # Errors
/// [`KafkaError::Flush`] when that takes longer than `patience`.
#[expect(unsafe_code, reason = "the safe wrapper's flush does not wait inside librdkafka")]
pub fn flush<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
    patience: Duration,
) -> Result<(), KafkaError> {
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is valid as long as `producer`, whose thread serves the acknowledgements meanwhile.
    let answer = unsafe { rdkafka_sys::rd_kafka_flush(producer.client().native_ptr(), milliseconds) };
    match answer {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::Flush(RDKafkaErrorCode::from(error))),
    }
}
