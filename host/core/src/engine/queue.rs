//! Which messages may run now: one for each key, and those of a lane in order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::execute::Strand;
use super::job::Job;
use super::overlay::{Overlay, Place, place};
use crate::{RecordId, StateKey};

/// Jobs that one task is given at most. More would keep the other workers idle.
const TASK_JOBS: usize = 64;

/// Jobs that wait to run, and who waits for whom.
#[derive(Default)]
pub(super) struct Queue {
    /// Messages on their way, by record, with those of the same record that arrived since.
    leaders: HashMap<RecordId, Vec<Job>>,
    ready: VecDeque<Job>,
    /// Jobs, and lanes whose next job it is, that are to run while no other does.
    contended: VecDeque<Job>,
    contended_lanes: VecDeque<Place>,
    /// Entities of which a message is ready or running, with those that came after it. So
    /// versions that arrive in order are handled in order, though nothing holds them to it.
    entities: HashMap<StateKey, VecDeque<Job>>,
    lanes: HashMap<Place, Lane>,
    /// Lanes that may have something to run.
    ready_lanes: VecDeque<Place>,
    broken_lanes: Vec<Place>,
}

#[derive(Default)]
struct Lane {
    /// By offset.
    waiting: BTreeMap<u64, Job>,
    /// Its strand is running, or its messages are being checked again.
    busy: bool,
    /// A message of it was not applied: the waiting ones must be checked again.
    broken: bool,
}

impl Lane {
    fn is_free(&self) -> bool {
        !self.busy && !self.broken
    }
}

impl Queue {
    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.leaders.is_empty()
    }

    /// Whether a message of this record is on its way.
    pub(super) fn has(&self, record: &RecordId) -> bool {
        self.leaders.contains_key(record)
    }

    /// A message arrives. If one of its record is on its way, it waits for what becomes of it.
    pub(super) fn admit(&mut self, mut job: Job) {
        match self.leaders.get_mut(&job.record) {
            Some(followers) => followers.push(job),
            None => {
                self.lead(&mut job);
                self.enqueue(job);
            }
        }
    }

    /// A message is on its way, the first one of its record, though it is not to be run yet.
    pub(super) fn lead(&mut self, job: &mut Job) {
        job.leads = true;
        self.leaders.entry(job.record.clone()).or_default();
    }

    /// A message that is on its way is to be run (again).
    pub(super) fn enqueue(&mut self, job: Job) {
        match job.lane_position() {
            None => match job
                .entity()
                .map(|entity| self.entities.entry(entity.clone()))
            {
                Some(Entry::Occupied(mut waiting)) => waiting.get_mut().push_back(job),
                Some(Entry::Vacant(free)) => {
                    free.insert(VecDeque::new());
                    self.make_ready(job);
                }
                None => self.make_ready(job),
            },
            Some(position) => {
                let offset = position.offset;
                let place = place(position);
                self.lanes
                    .entry(place.clone())
                    .or_default()
                    .waiting
                    .insert(offset, job);
                self.ready_lanes.push_back(place);
            }
        }
    }

    fn make_ready(&mut self, job: Job) {
        match job.is_contended() {
            true => self.contended.push_back(job),
            false => self.ready.push_back(job),
        }
    }

    /// Whether a message waits to be run while no other is.
    pub(super) fn has_contended(&self) -> bool {
        !(self.contended.is_empty() && self.contended_lanes.is_empty())
    }

    /// A message that is to be run while no other is, unless its lane is held.
    pub(super) fn next_contended(&mut self, overlay: &Overlay) -> Option<Strand> {
        if let Some(job) = self.contended.pop_front() {
            return Some(vec![job]);
        }
        while let Some(place) = self.contended_lanes.pop_front() {
            let lane = self.lanes.get_mut(&place);
            let Some(lane) = lane.filter(|lane| lane.is_free() && !overlay.is_held(&place)) else {
                // Whoever frees it makes it ready.
                continue;
            };
            if let Some((_, job)) = lane.waiting.pop_first() {
                lane.busy = true;
                return Some(vec![job]);
            }
        }
        None
    }

    /// A message's record is durable: takes those that waited for it. One that waited itself may
    /// find that another is on its way by now, whose followers are not its own.
    pub(super) fn finish(&mut self, job: &Job) -> Vec<Job> {
        match job.leads {
            true => self.leaders.remove(&job.record).unwrap_or_default(),
            false => Vec::new(),
        }
    }

    /// Strands for one task, at most `room` jobs; lanes that are being committed stay.
    pub(super) fn next_task(
        &mut self,
        room: usize,
        tasks: usize,
        overlay: &Overlay,
    ) -> Vec<Strand> {
        let fair = self.ready.len().div_ceil(tasks.max(1));
        let room = room.min(TASK_JOBS);
        let mut strands: Vec<Strand> = Vec::new();
        let mut taken = 0;
        while taken < room
            && let Some(place) = self.ready_lanes.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&place) else {
                continue;
            };
            if !lane.is_free() || overlay.is_held(&place) {
                continue;
            }
            if lane.waiting.values().next().is_some_and(Job::is_contended) {
                self.contended_lanes.push_back(place);
                continue;
            }
            let mut strand = Strand::new();
            while taken < room
                && let Some(next) = lane.waiting.first_entry()
                && !next.get().is_contended()
            {
                strand.push(next.remove());
                taken += 1;
            }
            if strand.is_empty() {
                self.lanes.remove(&place);
                continue;
            }
            lane.busy = true;
            strands.push(strand);
        }
        let singles = (room - taken).min(fair).min(self.ready.len());
        strands.extend(self.ready.drain(..singles).map(|job| vec![job]));
        strands
    }

    /// The message of an entity that was running ended: the next one may run.
    pub(super) fn release_entity(&mut self, entity: StateKey) {
        if let Entry::Occupied(mut waiting) = self.entities.entry(entity) {
            match waiting.get_mut().pop_front() {
                Some(next) => self.make_ready(next),
                None => drop(waiting.remove()),
            }
        }
    }

    /// A strand ended or a lane's messages were checked again.
    pub(super) fn release_lane(&mut self, place: &Place) {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.busy = false;
            self.ready_lanes.push_back(place.clone());
        }
    }

    /// A lane's commit is through: it may run again.
    pub(super) fn wake_lane(&mut self, place: &Place) {
        self.ready_lanes.push_back(place.clone());
    }

    /// A message of the lane was not applied: those after it must not run unchecked.
    pub(super) fn break_lane(&mut self, place: &Place) {
        let lane = self.lanes.entry(place.clone()).or_default();
        if !std::mem::replace(&mut lane.broken, true) {
            self.broken_lanes.push(place.clone());
        }
    }

    /// Takes the messages of broken lanes that stand still, to check them again. The lanes
    /// stay busy until they are released.
    pub(super) fn take_broken(&mut self, overlay: &Overlay) -> Vec<(Place, Vec<Job>)> {
        let mut taken = Vec::new();
        let Self {
            lanes,
            broken_lanes,
            ..
        } = self;
        broken_lanes.retain(|place| {
            let Some(lane) = lanes.get_mut(place) else {
                return false;
            };
            if lane.busy || overlay.is_committing(place) {
                return true;
            }
            overlay.mend(place);
            lane.broken = false;
            lane.busy = true;
            let jobs = std::mem::take(&mut lane.waiting).into_values().collect();
            taken.push((place.clone(), jobs));
            false
        });
        taken
    }
}
