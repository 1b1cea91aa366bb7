//! Places where a host may die, so that tests can let it.

use std::sync::OnceLock;

macro_rules! crash_points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A place before or after something that others can see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CrashPoint {
            $($(#[$doc])* $point,)*
        }

        impl CrashPoint {
            /// Every one, in the order of the protocol.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name: what is done, and whether it was done.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

crash_points! {
    /// About to ask the source for messages.
    ReceiveBefore = "receive.before",
    /// Messages are here; nobody knows of them.
    ReceiveAfter = "receive.after",
    /// About to bury messages that have no record of their own.
    BuryBefore = "bury.before",
    /// They are buried and not acknowledged.
    BuryAfter = "bury.after",
    /// About to look up records.
    CheckBefore = "check.before",
    /// Records are looked up; nothing ran.
    CheckAfter = "check.after",
    /// A handler is about to run.
    RunBefore = "run.before",
    /// A handler ran; its effects are not staged.
    RunAfter = "run.after",
    /// About to send half messages.
    PrepareBefore = "prepare.before",
    /// Half messages are confirmed; their runs are not committed.
    PrepareAfter = "prepare.after",
    /// A batch is about to be sent to the store.
    CommitBefore = "commit.before",
    /// Inside the store's transaction: about to carry out a run's statements.
    StatementsBefore = "statements.before",
    /// They are carried out, and nothing is durable.
    StatementsAfter = "statements.after",
    /// Inside the store's transaction: everything is written and nothing is durable.
    CommitWritten = "commit.written",
    /// The store has answered; nobody has heard.
    CommitAfter = "commit.after",
    /// About to end the transactions of half messages.
    EndBefore = "end.before",
    /// The ends of transactions are sent.
    EndAfter = "end.after",
    /// About to answer those who wait at the source.
    SettleBefore = "settle.before",
    /// They are answered; nothing is acknowledged.
    SettleAfter = "settle.after",
    /// About to acknowledge.
    AcknowledgeBefore = "acknowledge.before",
    /// The acknowledgement is sent.
    AcknowledgeAfter = "acknowledge.after",
    /// About to look for parked messages that are due.
    WakeBefore = "wake.before",
    /// Parked messages are taken up; nothing ran.
    WakeAfter = "wake.after",
    /// About to look for rows in the outbox.
    ScanBefore = "scan.before",
    /// Rows are found; nothing is published.
    ScanAfter = "scan.after",
    /// About to publish rows.
    PublishBefore = "publish.before",
    /// The broker has answered; the rows are still in the outbox.
    PublishAfter = "publish.after",
    /// About to delete rows that the broker confirmed.
    ConfirmBefore = "confirm.before",
    /// They are deleted; the relay has not heard.
    ConfirmAfter = "confirm.after",
    /// About to bury rows that the broker will never take.
    RefuseBefore = "refuse.before",
    /// They are buried; the relay has not heard.
    RefuseAfter = "refuse.after",
    /// About to answer a check-back for a half message.
    FenceBefore = "fence.before",
    /// The run is fenced or known as done; the broker has not heard.
    FenceAfter = "fence.after",
    /// About to expire done records.
    ExpireBefore = "expire.before",
    /// Done records are expired.
    ExpireAfter = "expire.after",
}

static HOOK: OnceLock<fn(CrashPoint)> = OnceLock::new();

/// Calls `hook` at each crash point from now on, on whichever thread passes it. The first hook
/// stays. A host that is not under test has none, and a crash point costs it one load.
pub fn at_crash_points(hook: fn(CrashPoint)) {
    HOOK.get_or_init(|| hook);
}

/// A host passes a place where it may die.
#[inline]
pub fn crash_point(point: CrashPoint) {
    if let Some(hook) = HOOK.get() {
        hook(point);
    }
}
