//! What an engine has under way, and the next thing that comes of it.

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::{JoinError, JoinSet};

use super::EngineError;
use super::check::Finding;
use super::execute::Remains;
use super::overlay::{Overlay, Place, Staged};
use crate::{Outcome, ParkedRow, Position, SourceError, StoreError};

type Waiting<T> = Option<BoxFuture<'static, T>>;
type Committed = (Vec<Staged>, Result<Vec<Outcome>, StoreError>);
/// Messages that were checked again, and the lane that waits for them.
type Rechecked = (Option<Place>, Result<Vec<Finding>, EngineError>);
type Acknowledged = (Vec<Position>, Result<(), SourceError>);
/// How many messages are parked, and when the first is due.
type Parked = (u64, Option<u64>);

/// At most one of each kind is under way, but for tasks and rechecks.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) tasks: JoinSet<(usize, Vec<Remains>)>,
    pub(super) commit: Waiting<Committed>,
    pub(super) rechecks: FuturesUnordered<BoxFuture<'static, Rechecked>>,
    pub(super) settle: Waiting<()>,
    pub(super) acknowledge: Waiting<Acknowledged>,
    pub(super) wake: Waiting<Result<Vec<ParkedRow>, StoreError>>,
    pub(super) settling: Waiting<Result<Parked, StoreError>>,
    pub(super) expire: Waiting<Result<u64, StoreError>>,
}

/// Something that came to its end.
pub(super) enum Progress {
    Ran(Result<(usize, Vec<Remains>), JoinError>),
    Staged,
    Committed(Vec<Staged>, Result<Vec<Outcome>, StoreError>),
    Rechecked(Option<Place>, Result<Vec<Finding>, EngineError>),
    Told,
    Acknowledged(Vec<Position>, Result<(), SourceError>),
    Due(Result<Vec<ParkedRow>, StoreError>),
    Settled(Result<Parked, StoreError>),
    Expired(Result<u64, StoreError>),
}

impl Pending {
    /// Waits for the next thing. May be dropped and called again without losing any.
    ///
    /// The order is fixed, so that a simulated run can be repeated. What is rare comes first: it
    /// can't crowd out the rest.
    pub(super) async fn next(&mut self, overlay: &Overlay) -> Progress {
        tokio::select! {
            biased;
            Some(result) = OptionFuture::from(self.expire.as_mut()) => {
                self.expire = None;
                Progress::Expired(result)
            }
            Some(parked) = OptionFuture::from(self.settling.as_mut()) => {
                self.settling = None;
                Progress::Settled(parked)
            }
            Some(rows) = OptionFuture::from(self.wake.as_mut()) => {
                self.wake = None;
                Progress::Due(rows)
            }
            Some((positions, result)) = OptionFuture::from(self.acknowledge.as_mut()) => {
                self.acknowledge = None;
                Progress::Acknowledged(positions, result)
            }
            Some(()) = OptionFuture::from(self.settle.as_mut()) => {
                self.settle = None;
                Progress::Told
            }
            Some((lane, findings)) = self.rechecks.next() => Progress::Rechecked(lane, findings),
            Some((batch, outcomes)) = OptionFuture::from(self.commit.as_mut()) => {
                self.commit = None;
                Progress::Committed(batch, outcomes)
            }
            Some(ran) = self.tasks.join_next() => Progress::Ran(ran),
            () = overlay.staged(), if self.commit.is_none() => Progress::Staged,
        }
    }

    /// Gives up what a shutdown need not wait for.
    pub(super) fn drop_optional(&mut self) {
        self.rechecks.clear();
        self.wake = None;
        self.settling = None;
        self.expire = None;
    }

    pub(super) fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    pub(super) fn is_acknowledging(&self) -> bool {
        self.acknowledge.is_some()
    }

    pub(super) fn is_settling(&self) -> bool {
        self.settle.is_some()
    }

    /// Whether nothing is under way that could bring work.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.commit.is_none()
            && self.rechecks.is_empty()
            && self.settle.is_none()
            && self.acknowledge.is_none()
            && self.wake.is_none()
            && self.settling.is_none()
    }
}
