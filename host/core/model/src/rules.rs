//! The rules of the protocol, each of which can be taken out.

/// The rules that are in force: all of them, or all but one.
#[derive(Clone, Copy, Debug)]
pub struct Rules<R> {
    /// The one that was taken out.
    pub without: Option<R>,
}

impl<R: Copy + PartialEq> Rules<R> {
    /// All rules.
    pub const ALL: Self = Self { without: None };

    /// All but this one.
    pub fn without(rule: R) -> Self {
        Self {
            without: Some(rule),
        }
    }

    /// Whether this one is in force.
    pub fn keep(self, rule: R) -> bool {
        self.without != Some(rule)
    }
}

/// Declares rules. The lines above each say what goes wrong without it.
macro_rules! rules {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[doc = $harm:literal])+ $rule:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $harm])+ $rule,)+ }

        impl $name {
            /// Every rule.
            pub const EACH: &[Self] = &[$(Self::$rule,)+];

            /// What goes wrong without it.
            pub fn harm(self) -> &'static str {
                match self { $(Self::$rule => concat!($($harm,)+).trim(),)+ }
            }
        }
    };
}

pub(crate) use rules;

rules! {
    /// The rules of consumption, in the order of [`Protocol`](crate::Protocol)'s steps. Each
    /// line says what goes wrong without the rule.
    pub enum Rule {
        // Check.
        /// A message whose key was used by another payload is dropped: it is lost.
        MismatchIsBuriedByTheCheck,

        // Run.
        /// Messages of a lane run side by side in one host: the later one commits first.
        LaneRunsInOrder,
        /// A message waits behind its lane before its own predecessors are recorded.
        WaitingKeepsItsPlace,

        /// A run that read through one batch is staged in the next: the indices of what it
        /// saw mean other runs there.
        StagingTestsReads,

        // Commit.
        /// What was handled between check and commit is handled again.
        CommitTestsDone,
        /// A dead letter's message comes back to life.
        CommitTestsDead,
        /// Of two payloads that race for a key, the loser is lost.
        CommitTestsPayload,
        /// A message with another payload takes over the parked row: the parked one is lost.
        CommitTestsParkedPayload,
        /// A zombie overwrites a parked row: a failure is counted twice, or not at all.
        ParkingCompares,
        /// A zombie buries a message that has attempts left.
        ExhaustionCompares,
        /// The attempt's number stands for the row's version: a replay brings it back, and a
        /// failure from before counts after it.
        VersionsAreUnique,
        /// A message that was done while it was parked runs again.
        DoneDeletesTheRow,
        /// A message overtakes one of its lane that was parked since the check.
        CommitTestsLane,
        /// In one batch, a message overtakes one of its lane that was not applied.
        RefusalHoldsTheLane,
        /// In one batch, a message is parked behind its lane's head, while one before it
        /// was refused and is parked nowhere: it is taken up first.
        RefusalHoldsTheWaiting,
        /// Two runs read the same value and one's write is lost.
        ReadsAreTested,
        /// Each of two runs reads what the other writes, as if both came first.
        UnwrittenReadsAreTested,
        /// A handler that saw torn state buries a good message.
        RejectionTestsReads,
        /// A handler that saw torn state spends an attempt of a good message.
        ParkingTestsReads,
        /// A crash between effects and record: the effects happen again.
        EffectsWithRecord,
        /// A crash between record and outgoing messages: they are never sent.
        OutboxWithRecord,
        /// The run that lost puts its outgoing message into the winner's place.
        RowsOfTheWinner,
        /// A request that is sent again after a replay buries the message again.
        OwnRunIsRecognised,

        // Versions.
        /// A deleted value that is written anew looks like the one that was read.
        VersionsNeverRestart,
        /// A sum that was read before an addition counts as current.
        AdditionsBumpTheVersion,
        /// An addition writes the sum that its host saw: another host's is lost.
        AdditionsAddAtTheCommit,
        /// A run stands although the staged write that it read was refused.
        OverlayReadsAreTested,
        /// The version of a staged write is guessed: another commit gets that number.
        VersionsAreNotGuessed,

        // Unknown outcome.
        /// A message whose commit never arrived counts as recorded.
        UnknownIsCheckedAgain,

        // Acknowledge.
        /// A message is acknowledged whose run is only staged; the host crashes.
        AcknowledgedIsDurable,
        /// A mismatch is acknowledged before its dead letter is written.
        BuriedIsDurable,
        /// Recorded messages are acknowledged over an unrecorded one.
        PrefixIsAcknowledged,

        // Parked messages and dead letters.
        /// A dead letter keeps its lane waiting for ever.
        DeadLetterFreesTheLane,
        /// A message that waits behind another is never taken up.
        WaitingIsTakenUp,
        /// A dropped dead letter is forgotten: a late duplicate is handled.
        DroppedLeavesATombstone,

        // Relay.
        /// An outgoing message is seen that was never committed.
        CommittedIsPublished,
        /// The row is deleted, then the relay crashes before it publishes.
        PublishedIsDeleted,
        /// A publish without confirmation counts as done.
        ConfirmedIsDeleted,
        /// A later message of the lane is seen first.
        LowestIsPublished,
        /// Each publish has an id of its own: consumers can't tell it from another message.
        IdOfTheMessage,
        /// A relay that goes on from where it was misses what failed before.
        SweepBeginsAtTheLowest,

        // What is assumed of the source.
        /// A host gets an offset without the unacknowledged ones below it.
        PrefixIsDelivered,
    }
}
