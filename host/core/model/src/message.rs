//! What is consumed: messages, and what their handlers do.

use std::fmt;

/// The business key: which messages are the same message.
pub type Key = u8;
/// Of the payload.
pub type Fingerprint = u8;
/// A commit's number: the version of all that it writes. 0: not there.
pub type Version = u8;
/// Which run of a handler.
pub type RunId = u8;
/// A value of the state, if it is there.
pub type Value = Option<u8>;

/// A state key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    /// One of two.
    X,
    /// The other.
    Y,
}

/// A message of the topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Where it is delivered.
    pub partition: u8,
    /// And after which others.
    pub offset: u8,
    /// Its business key.
    pub key: Key,
    /// Of its payload.
    pub fingerprint: Fingerprint,
    /// Its lane, if the plugin declares one.
    pub lane: Option<u8>,
    /// What handles it.
    pub handler: Handler,
    /// Whether the handler sends a message when it succeeds.
    pub sends: bool,
}

/// A lane within a partition.
pub type Place = (u8, u8);

impl Message {
    /// The message at an offset of partition 0: no lane, sends nothing.
    pub const fn new(offset: u8, key: Key, handler: Handler) -> Self {
        Self {
            partition: 0,
            offset,
            key,
            fingerprint: 0,
            lane: None,
            handler,
            sends: false,
        }
    }

    /// The same in another partition.
    pub const fn partition(self, partition: u8) -> Self {
        Self { partition, ..self }
    }

    /// The same with another payload.
    pub const fn other_payload(self) -> Self {
        Self {
            fingerprint: 1,
            ..self
        }
    }

    /// The same in a lane.
    pub const fn lane(self, lane: u8) -> Self {
        Self {
            lane: Some(lane),
            ..self
        }
    }

    /// The same with an outgoing message.
    pub const fn sends(self) -> Self {
        Self {
            sends: true,
            ..self
        }
    }

    /// Within which its order is kept.
    pub fn place(&self) -> Option<Place> {
        self.lane.map(|lane| (self.partition, lane))
    }

    /// Whether it comes earlier in the same lane.
    pub fn precedes(&self, other: &Self) -> bool {
        self.place().is_some() && self.place() == other.place() && self.offset < other.offset
    }

    /// Whether it was delivered at the same position.
    pub fn is_at(&self, other: &Self) -> bool {
        (self.partition, self.offset) == (other.partition, other.offset)
    }
}

/// `a@0:1` is the message with key a at offset 1 of partition 0; `a'` has another payload.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = char::from(b'a' + self.key);
        let mark = if self.fingerprint == 0 { "" } else { "'" };
        write!(f, "{key}{mark}@{}:{}", self.partition, self.offset)
    }
}

/// What a handler does: a function of what it reads, but for the whims of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Handler {
    /// Succeeds.
    Succeeds,
    /// Rejects the message.
    Rejects,
    /// Succeeds or fails for now.
    Flaky,
    /// Fails for now or for good, or succeeds.
    Wild,
    /// Reads X and Y and puts one more into each.
    IncrementBoth,
    /// Reads X and puts one more.
    Increment,
    /// The same, or it fails for now.
    FlakyIncrement,
    /// Reads X and Y, which are always equal, and rejects the message if they differ.
    RejectsUnequal,
    /// The same, but it fails for now if they differ.
    RetriesUnequal,
    /// Reads the first and puts a function of it into the second.
    Copy(StateKey, StateKey),
    /// Puts into X.
    Put(u8),
    /// Deletes X.
    Delete,
    /// Adds to X.
    Add(u8),
    /// Adds to X what it doesn't look at, and copies what it read of X to Y.
    AddAndCopy(u8),
}

/// How a handler ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// It succeeded and asks for these writes.
    Done(Vec<Write>),
    /// It failed for now.
    Retry,
    /// It failed for good.
    Reject,
}

/// A write that a handler asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    /// Where.
    pub key: StateKey,
    /// What.
    pub op: StateOp,
}

/// What to do to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateOp {
    /// Replace it.
    Put(u8),
    /// Remove it.
    Delete,
    /// Add to it, whatever it is.
    Add(u8),
}

impl StateOp {
    /// The value afterwards.
    pub fn apply(self, before: Value) -> Value {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
            Self::Add(amount) => Some(before.unwrap_or(0) + amount),
        }
    }
}

impl Handler {
    /// What it reads, in this order.
    pub fn reads(self) -> &'static [StateKey] {
        use StateKey::{X, Y};
        match self {
            Self::IncrementBoth | Self::RejectsUnequal | Self::RetriesUnequal => &[X, Y],
            Self::Increment | Self::FlakyIncrement | Self::AddAndCopy(_) | Self::Copy(X, _) => &[X],
            Self::Copy(Y, _) => &[Y],
            _ => &[],
        }
    }

    /// How it may end after it has read `values`.
    pub fn endings(self, values: &[Value]) -> Vec<Ending> {
        use StateKey::{X, Y};
        let read = |index: usize| values[index].unwrap_or(0);
        let put = |key, value| Write {
            key,
            op: StateOp::Put(value),
        };
        let on_x = |op| Write { key: X, op };
        let done = Ending::Done;
        match self {
            Self::Succeeds => vec![done(vec![])],
            Self::Rejects => vec![Ending::Reject],
            Self::Flaky => vec![done(vec![]), Ending::Retry],
            Self::Wild => vec![done(vec![]), Ending::Retry, Ending::Reject],
            Self::IncrementBoth => vec![done(vec![put(X, read(0) + 1), put(Y, read(1) + 1)])],
            Self::Increment => vec![done(vec![put(X, read(0) + 1)])],
            Self::FlakyIncrement => vec![done(vec![put(X, read(0) + 1)]), Ending::Retry],
            Self::RejectsUnequal if read(0) != read(1) => vec![Ending::Reject],
            Self::RetriesUnequal if read(0) != read(1) => vec![Ending::Retry],
            Self::RejectsUnequal | Self::RetriesUnequal => vec![done(vec![])],
            Self::Copy(_, to) => vec![done(vec![put(to, read(0) * 2 + 1)])],
            Self::Put(value) => vec![done(vec![on_x(StateOp::Put(value))])],
            Self::Delete => vec![done(vec![on_x(StateOp::Delete)])],
            Self::Add(amount) => vec![done(vec![on_x(StateOp::Add(amount))])],
            Self::AddAndCopy(amount) => {
                vec![done(vec![on_x(StateOp::Add(amount)), put(Y, read(0) + 40)])]
            }
        }
    }
}
