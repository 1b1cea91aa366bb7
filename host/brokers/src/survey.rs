//! What there is to say of a broker, without changing it.

use std::collections::BTreeMap;
use std::time::Duration;

use semel_core::Finding;

/// A topic, or a queue, as a host is going to use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicUse {
    /// Its name.
    pub topic: String,
    /// What for.
    pub role: TopicRole,
}

/// What a host does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRole {
    /// Plugins consume it.
    Consumed,
    /// The relay publishes to it.
    Published,
    /// Half messages go there, too.
    PublishedInTransactions,
}

/// What was found at a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Good or bad.
    pub findings: Vec<Finding>,
    /// For how long the messages of consumed topics are kept, and so may be delivered again, where
    /// the broker tells. [`Duration::MAX`] is for ever.
    pub kept: BTreeMap<String, Duration>,
}

impl Survey {
    /// Nothing can be found out.
    #[cfg(any(feature = "kafka", feature = "rabbitmq", feature = "rocketmq"))]
    pub(crate) fn unreachable(reason: impl std::fmt::Display) -> Self {
        let finding = Finding::failure("broker", format!("it can't be reached: {reason}"))
            .advise("check the address, and that a broker listens there and lets this user in");
        Self {
            findings: vec![finding],
            ..Self::default()
        }
    }
}
