//! What reading from full segments needs in memory: maps, indexes, populated windows. It never waits:
//! what is missing is asked for, and the reader is told to come back. Knows no topics' meaning.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::index::SegmentIndex;
use super::layout::Seed;
use super::mapped::SegmentMap;
use super::storage::{Done, FileName, Op};

/// Bytes brought into memory at once.
pub(super) const WINDOW_BYTES: usize = 64 * 1024;

const MAPS_MAX: usize = 64;
const INDEXES_MAX: usize = 16;
const WINDOWS_MAX: usize = 512;
const IN_FLIGHT_MAX: usize = 16;

/// A record that takes more windows than this is read without them: they would push each other
/// out before the last has come.
const WINDOWS_AT_ONCE_MAX: usize = WINDOWS_MAX / 4;

/// Something that must come into memory first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Need {
    Index(u64),
    Map(u64),
    Window(u64, usize),
}

/// What a read waits for: an `Event::Readable` names it when it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Awaited(Need);

/// A need cannot be met: what depends on it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

#[derive(Debug)]
pub(super) struct Reader {
    salt: u64,
    maps: AHashMap<u64, Arc<SegmentMap>>,
    maps_order: VecDeque<u64>,
    indexes: AHashMap<u64, Arc<SegmentIndex>>,
    indexes_order: VecDeque<u64>,
    windows: AHashSet<(u64, usize)>,
    windows_order: VecDeque<(u64, usize)>,
    wanted: VecDeque<Need>,
    known: AHashSet<Need>,
    broken: AHashSet<Need>,
    in_flight: usize,
    /// What a reader must be told of when it has come.
    awaited: AHashSet<Need>,
    woken: VecDeque<Need>,
    /// What was asked for last.
    missing: Need,
}

impl Reader {
    pub(super) fn new(salt: u64) -> Self {
        Self {
            salt,
            maps: AHashMap::new(),
            maps_order: VecDeque::new(),
            indexes: AHashMap::new(),
            indexes_order: VecDeque::new(),
            windows: AHashSet::new(),
            windows_order: VecDeque::new(),
            wanted: VecDeque::new(),
            known: AHashSet::new(),
            broken: AHashSet::new(),
            in_flight: 0,
            awaited: AHashSet::new(),
            woken: VecDeque::new(),
            missing: Need::Map(0),
        }
    }

    /// The index of a full segment.
    pub(super) fn index(&mut self, segment: u64) -> Result<Option<Arc<SegmentIndex>>, Broken> {
        match self.indexes.get(&segment) {
            Some(index) => Ok(Some(Arc::clone(index))),
            None => self.want(Need::Index(segment)).map(|()| None),
        }
    }

    /// The bytes of a segment once `from..to` is in memory.
    pub(super) fn map(
        &mut self,
        segment: u64,
        from: usize,
        to: usize,
    ) -> Result<Option<Arc<SegmentMap>>, Broken> {
        let Some(map) = self.whole(segment, to)? else {
            return Ok(None);
        };
        let windows = from / WINDOW_BYTES..to.div_ceil(WINDOW_BYTES);
        if WINDOWS_AT_ONCE_MAX < windows.len() {
            return Ok(Some(map));
        }
        let mut ready = true;
        for window in windows {
            if !self.windows.contains(&(segment, window)) {
                self.want(Need::Window(segment, window))?;
                ready = false;
            }
        }
        Ok(ready.then_some(map))
    }

    /// The index of a segment, if it is in memory.
    pub(super) fn known_index(&self, segment: u64) -> Option<&SegmentIndex> {
        self.indexes.get(&segment).map(Arc::as_ref)
    }

    /// The bytes of a segment, in memory or not.
    pub(super) fn whole(
        &mut self,
        segment: u64,
        len: usize,
    ) -> Result<Option<Arc<SegmentMap>>, Broken> {
        match self.maps.get(&segment).map(Arc::clone) {
            Some(map) if map.bytes().len() < len => Err(Broken),
            Some(map) => Ok(Some(map)),
            None => self.want(Need::Map(segment)).map(|()| None),
        }
    }

    /// Promises to tell when what was missing last has come.
    pub(super) fn awaited(&mut self) -> Awaited {
        self.awaited.insert(self.missing);
        Awaited(self.missing)
    }

    /// What has come of that which was promised to be told.
    pub(super) fn woken(&mut self) -> Option<Awaited> {
        self.woken.pop_front().map(Awaited)
    }

    /// Whoever waits for it may look again.
    fn wake(&mut self, need: Need) {
        if self.awaited.remove(&need) {
            self.woken.push_back(need);
        }
    }

    /// An index that was made again in memory.
    pub(super) fn keep_index(&mut self, segment: u64, index: Arc<SegmentIndex>) {
        self.broken.remove(&Need::Index(segment));
        if self.indexes.insert(segment, index).is_none() {
            self.indexes_order.push_back(segment);
        }
        if INDEXES_MAX < self.indexes_order.len()
            && let Some(oldest) = self.indexes_order.pop_front()
        {
            self.indexes.remove(&oldest);
        }
    }

    /// The segment is about to be used again or removed.
    pub(super) fn forget(&mut self, segment: u64) {
        let of = |need: &Need| matches!(need, Need::Index(id) | Need::Map(id) | Need::Window(id, _) if *id == segment);
        self.maps.remove(&segment);
        self.maps_order.retain(|id| *id != segment);
        self.indexes.remove(&segment);
        self.indexes_order.retain(|id| *id != segment);
        self.windows.retain(|(id, _)| *id != segment);
        self.windows_order.retain(|(id, _)| *id != segment);
        self.wanted.retain(|need| !of(need));
        self.known.retain(|need| !of(need));
        self.broken.retain(|need| !of(need));
        let gone: Vec<Need> = self
            .awaited
            .iter()
            .filter(|need| of(need))
            .copied()
            .collect();
        gone.into_iter().for_each(|need| self.wake(need));
    }

    pub(super) fn poll(&mut self) -> Option<(Need, Op)> {
        if IN_FLIGHT_MAX <= self.in_flight {
            return None;
        }
        let need = self.wanted.pop_front()?;
        let op = match need {
            Need::Index(segment) => Op::Load {
                file: FileName::Index(segment),
            },
            Need::Map(segment) => Op::Map {
                file: FileName::Segment(segment),
            },
            Need::Window(segment, window) => {
                let map = self.maps.get(&segment).map(Arc::clone);
                let Some(map) = map else {
                    self.known.remove(&need);
                    self.wake(need);
                    return self.poll();
                };
                Op::Populate {
                    map,
                    offset: window * WINDOW_BYTES,
                    bytes: WINDOW_BYTES,
                }
            }
        };
        self.in_flight += 1;
        Some((need, op))
    }

    /// A read that fails for good is damage, not the end of the partition; what may pass is tried
    /// again by the log and does not come here.
    pub(super) fn done(&mut self, need: Need, result: io::Result<Done>) {
        self.in_flight -= 1;
        // The segment may have been forgotten in the meantime.
        if !self.known.remove(&need) {
            return;
        }
        match (need, result) {
            (Need::Index(segment), Ok(Done::Bytes(bytes))) => {
                match SegmentIndex::decode(&bytes, Seed::new(self.salt, segment)) {
                    Some((index, _)) => self.keep_index(segment, Arc::new(index)),
                    None => drop(self.broken.insert(need)),
                }
            }
            (Need::Map(segment), Ok(Done::Map(map))) => self.keep_map(segment, map),
            (Need::Window(segment, window), Ok(_)) => self.keep_window(segment, window),
            (_, Ok(_) | Err(_)) => drop(self.broken.insert(need)),
        }
        self.wake(need);
    }

    fn want(&mut self, need: Need) -> Result<(), Broken> {
        if self.broken.contains(&need) {
            return Err(Broken);
        }
        self.missing = need;
        if self.known.insert(need) {
            self.wanted.push_back(need);
        }
        Ok(())
    }

    fn keep_map(&mut self, segment: u64, map: SegmentMap) {
        self.maps.insert(segment, Arc::new(map));
        self.maps_order.push_back(segment);
        if MAPS_MAX < self.maps_order.len()
            && let Some(oldest) = self.maps_order.pop_front()
        {
            self.maps.remove(&oldest);
            self.windows.retain(|(id, _)| *id != oldest);
            self.windows_order.retain(|(id, _)| *id != oldest);
        }
    }

    fn keep_window(&mut self, segment: u64, window: usize) {
        self.windows.insert((segment, window));
        self.windows_order.push_back((segment, window));
        if WINDOWS_MAX < self.windows_order.len()
            && let Some(oldest) = self.windows_order.pop_front()
        {
            self.windows.remove(&oldest);
        }
    }
}
