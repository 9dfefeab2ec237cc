//! The table of open sessions: found by key, kept in the order of their latest record, so that the sessions whose gap
//! has passed are always at the front of the list.

use std::sync::Arc;

use faultline_core::{ServiceIdx, WindowKey};
use rustc_hash::FxHashMap;

use super::run::Run;

/// Marks the end of the list.
const NONE: u32 = u32::MAX;

/// Whose records a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// The session key of the records.
    Key,
    /// Records without a session key: everything one service writes.
    Service(ServiceIdx),
}

/// One open session.
#[derive(Debug)]
pub(super) struct Session {
    pub key: WindowKey,
    pub owner: Owner,
    /// Whether it marks no beginning and no end: everything that one writer writes.
    pub is_stream: bool,
    pub run: Run,
    /// Its first `n_scored` records have been in a settled window.
    pub n_scored: usize,
    /// Its first `n_context` records are the tail of the predecessor that the length cap closed.
    pub n_context: usize,
    /// Records that the length cap has cut off the front.
    pub n_dropped: u64,
    /// Place of its latest record in the order of records.
    pub active_at: i64,
    /// Its records that are still on hold.
    pub n_held: u32,
    /// Whether it is among the sessions that the next `ready` shows.
    pub touched: bool,
    listed: bool,
    prev: u32,
    next: u32,
}

/// Open sessions by key, and in the order in which they were last active.
#[derive(Debug)]
pub(super) struct Sessions {
    slots: Vec<Session>,
    free: Vec<u32>,
    by_key: FxHashMap<Arc<str>, u32>,
    by_service: FxHashMap<ServiceIdx, u32>,
    oldest: u32,
    newest: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: FxHashMap::default(),
            by_service: FxHashMap::default(),
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl Sessions {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn find_key(&self, key: &str) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub fn find_service(&self, service: ServiceIdx) -> Option<u32> {
        self.by_service.get(&service).copied()
    }

    pub fn open(&mut self, key: WindowKey, owner: Owner, is_stream: bool, run: Run) -> u32 {
        let session_key = Arc::clone(&key.session);
        let session = Session {
            key,
            owner,
            is_stream,
            run,
            n_scored: 0,
            n_context: 0,
            n_dropped: 0,
            active_at: i64::MIN,
            n_held: 0,
            touched: false,
            listed: false,
            prev: NONE,
            next: NONE,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = session;
                slot
            }
            None => {
                self.slots.push(session);
                (self.slots.len() - 1) as u32
            }
        };
        match owner {
            Owner::Key => self.by_key.insert(session_key, slot),
            Owner::Service(service) => self.by_service.insert(service, slot),
        };
        slot
    }

    pub fn get(&self, slot: u32) -> &Session {
        &self.slots[slot as usize]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Session {
        &mut self.slots[slot as usize]
    }

    /// Gives the slot back. The session must hold no record and wait for none.
    pub fn free(&mut self, slot: u32) {
        self.unlist(slot);
        let session = &self.slots[slot as usize];
        match session.owner {
            Owner::Key => self.by_key.remove(&session.key.session),
            Owner::Service(service) => self.by_service.remove(&service),
        };
        self.free.push(slot);
    }

    /// The session that has been idle for longest, of those that hold a record.
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Makes it the most recently active one.
    pub fn make_newest(&mut self, slot: u32) {
        if self.newest == slot {
            return;
        }
        self.unlist(slot);
        let previous = std::mem::replace(&mut self.newest, slot);
        let session = &mut self.slots[slot as usize];
        (session.listed, session.prev, session.next) = (true, previous, NONE);
        match previous {
            NONE => self.oldest = slot,
            previous => self.slots[previous as usize].next = slot,
        }
    }

    /// Takes it off the list of active sessions.
    pub fn unlist(&mut self, slot: u32) {
        let session = &mut self.slots[slot as usize];
        if !std::mem::take(&mut session.listed) {
            return;
        }
        let (prev, next) = (session.prev, session.next);
        match prev {
            NONE => self.oldest = next,
            prev => self.slots[prev as usize].next = next,
        }
        match next {
            NONE => self.newest = prev,
            next => self.slots[next as usize].prev = prev,
        }
    }
}
