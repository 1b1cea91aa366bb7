//! What the client's errors say.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// An error in a line, with what to do about it where that is known.
pub(super) fn describe(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => format!("{error}{}", meaning(code)),
        None => error.to_string(),
    }
}

fn meaning(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            ": the topic is missing: create it with `kafka-topics.sh --create`"
        }
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => {
            ": not permitted: see the cluster's access control lists"
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            ": too few replicas are in sync: see `min.insync.replicas`"
        }
        Code::InconsistentGroupProtocol => {
            ": other consumers of the group use another assignment strategy: give Semel a group of its own"
        }
        _ => "",
    }
}

/// Whether the broker turns down a batch because of what is in it.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    // An invalid record is one without a key for a compacted topic, or with a wild timestamp.
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidMessage
    )
}

/// Whether an error says that no broker answers, and not something of one topic.
pub(super) fn is_outage(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageTimedOut
            | Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::QueueFull
            | Code::PurgeQueue
            | Code::PurgeInflight
    )
}
