//! One budget of memory for the caches of several engines.
//!
//! What an engine holds is a number here, its [`Part`]; what is moved between engines is moved by the engines themselves,
//! each on its own thread. An engine that lacks pages [seeks](Part::seek) some: it takes what nobody holds, or else asks the
//! engine whose pages are of the least use, which is one that has free pages, and then the one whose kept beginnings are the
//! oldest, its own included. That one gives what it can before its next step and says so. Last, whoever owns the engines is
//! [told](Budget::on_lack) of the lack, and may close one that nobody uses. An engine that begins comes before those that
//! would grow.
//!
//! *Locks.* The state's lock is held for arithmetic alone: no other lock is taken, nothing is waited for and no cache is
//! touched under it; messages to engines are sent to channels without bounds. The lock of who opens is taken before it, by
//! callers' threads alone, so that engines never wait for it.
//! *Waiting.* An engine asks in one place, and answers what it was asked before it gets there. It waits for an answer only
//! of an engine that had no work when it was asked, and for one message. Two engines cannot wait for each other: what wakes
//! the one that waits is, at the latest, the question of the other. An engine that ends gives back all and wakes all.
//! Who opens an engine holds nothing while it waits, and not for longer than [`PATIENCE`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How long who opens an engine waits for the memory of one text.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes that the caches of several engines may take together.
///
/// Engines that are started [within](super::Engine::within) it begin with as much as is left of what they can use, and have
/// room for one text at least. What they hold moves with the work: an engine that has work and no pages gets those that are
/// free, those with the beginnings of texts that are of no use the longest, whichever engine keeps them, and last those of
/// engines that [its owner closes](Self::on_lack). Texts in work keep theirs. While a layer's cache moves to another
/// place, it is there twice; that is not counted.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    /// `None` for no bound.
    bytes: Option<u64>,
    state: Mutex<State>,
    /// Somebody has given back.
    given: Condvar,
    /// Whoever opens an engine, one at a time.
    opening: Mutex<()>,
    clock: Clock,
}

/// When beginnings of texts were last of use, alike for all engines.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A later time than all before.
    pub(super) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

type OnLack = Arc<dyn Fn() + Send + Sync>;

/// What has an engine look at its part. It is called under the lock, and so does nothing but send.
type Wake = Box<dyn Fn() + Send>;

#[derive(Default)]
struct State {
    parts: BTreeMap<u64, Entry>,
    next: u64,
    /// What an engine that begins waits for; 0 where none does.
    opening: u64,
    on_lack: Option<OnLack>,
}

/// What is known of an engine.
struct Entry {
    name: String,
    held: u64,
    standing: Standing,
    asked: Option<(Asked, u64)>,
    /// Whether an engine that begins has not heard of it yet.
    silent: bool,
    /// Whether it lacks what nobody gives.
    lacks: bool,
    wake: Option<Wake>,
}

impl Entry {
    /// Whether it could give something, or is asked to already.
    fn gives(&self, lack: &Lack) -> bool {
        let Standing { spare, oldest, .. } = self.standing;
        self.asked.is_some() || spare > 0 || oldest.is_some_and(|oldest| oldest < lack.oldest)
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

/// What an engine could give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Bytes that it has no use for now.
    pub(super) spare: u64,
    /// When the beginning was last of use that it would give up first.
    pub(super) oldest: Option<u64>,
    /// Whether nobody is served.
    pub(super) idle: bool,
}

/// What an engine is asked to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) bytes: u64,
    /// Only beginnings that were last of use before then.
    pub(super) before: u64,
    /// Whether another engine cannot begin without.
    pub(super) for_one: bool,
}

/// What an engine lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lack {
    /// What it needs now.
    pub(super) least: u64,
    /// What it would have, so that it need not ask again soon.
    pub(super) bytes: u64,
    /// When the beginning was last of use that it would give up itself; as late as can be where it has none.
    pub(super) oldest: u64,
    /// Whether texts wait for it even when it gives up all beginnings.
    pub(super) texts_wait: bool,
}

/// What came of [seeking](Part::seek).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    /// So many bytes more are the engine's.
    Taken(u64),
    /// Another engine was asked, which has no work and answers at once.
    Wait,
    /// It has to do with what it has; another engine may have been asked.
    Nothing,
}

impl Budget {
    /// So many bytes; 0 for no bound, where each engine takes as much as [it would alone](super::EngineOptions::kv_memory).
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Shared {
            bytes: (bytes > 0).then_some(bytes),
            state: Mutex::default(),
            given: Condvar::new(),
            opening: Mutex::default(),
            clock: Clock::default(),
        }))
    }

    /// Calls `told` when engines lack memory that others do not give: ending an [engine](super::Engine) that nobody uses gives back
    /// what it holds. It is called on engines' threads, and so is not to wait for one.
    pub fn on_lack(&self, told: impl Fn() + Send + Sync + 'static) {
        self.0.lock().on_lack = Some(Arc::new(told));
    }

    /// Whether an engine lacks memory that others did not give.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        let state = self.0.lock();
        state.opening > 0 || state.parts.values().any(|entry| entry.lacks)
    }

    /// What each engine holds, by the name that it was started with, at one moment.
    #[must_use]
    pub fn held(&self) -> Vec<(String, u64)> {
        let state = self.0.lock();
        let held = state.parts.values().map(|e| (e.name.clone(), e.held));
        held.collect()
    }

    /// How many bytes it is, if there is a bound.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.0.bytes
    }

    pub(super) fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// A part for an engine: at most so many bytes, and at least `least`, for which it waits.
    pub(super) fn open(&self, name: &str, least: u64, most: u64) -> Result<Part> {
        self.open_within(name, (least, most), PATIENCE)
    }

    fn open_within(
        &self,
        name: &str,
        (least, most): (u64, u64),
        patience: Duration,
    ) -> Result<Part> {
        let shared = &self.0;
        let turn = shared.opening.lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + patience;
        let mut state = shared.lock();
        if shared.left(&state) < least {
            state.opening = least;
            for entry in state.parts.values_mut() {
                entry.silent = true;
                entry.wake();
            }
        }
        // What was left when the owner was told.
        let mut told = None;
        loop {
            let left = shared.left(&state);
            if left >= least {
                break;
            }
            // The owner is told of what engines cannot help by themselves.
            let is_known = state.parts.values().all(|entry| !entry.silent);
            if is_known && told.replace(left) != Some(left) {
                let on_lack = state.on_lack.clone();
                drop(state);
                if let Some(on_lack) = on_lack {
                    on_lack();
                }
                state = shared.lock();
                continue;
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                state.opening = 0;
                let budget = shared.bytes.unwrap_or(u64::MAX);
                return Err(Error::MemoryInUse {
                    needed: least,
                    budget,
                });
            }
            let waited = shared.given.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.opening = 0;
        let held = shared.left(&state).min(most);
        let id = state.next;
        state.next += 1;
        // What they could give is told once somebody may ask.
        state.parts.values().for_each(Entry::wake);
        let entry = Entry {
            name: name.to_owned(),
            held,
            standing: Standing::default(),
            asked: None,
            silent: false,
            lacks: false,
            wake: None,
        };
        state.parts.insert(id, entry);
        drop(state);
        let shared = Arc::clone(shared);
        Ok(Part { shared, id })
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("bytes", &self.0.bytes)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What engines that are there may have of it: who begins comes first.
    fn left_to_grow(&self, state: &State) -> u64 {
        match state.opening {
            0 => self.left(state),
            _ => 0,
        }
    }

    /// What nobody holds.
    fn left(&self, state: &State) -> u64 {
        let held: u64 = state.parts.values().map(|entry| entry.held).sum();
        self.bytes
            .map_or(u64::MAX, |bytes| bytes.saturating_sub(held))
    }
}

/// What an engine holds of a budget. Dropped, all of it is given back: its caches have to be gone before.
pub(super) struct Part {
    shared: Arc<Shared>,
    id: u64,
}

impl Part {
    fn with<T>(&self, of: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.shared.lock().parts.get_mut(&self.id).map(of)
    }

    /// What it holds.
    pub(super) fn held(&self) -> u64 {
        self.with(|entry| entry.held).unwrap_or(0)
    }

    /// How the engine is woken: it is asked for some of its part, or was answered.
    pub(super) fn wake_by(&self, wake: impl Fn() + Send + 'static) {
        self.with(|entry| entry.wake = Some(Box::new(wake)));
    }

    /// A handle that has the engine no longer woken.
    pub(super) fn hush(&self) -> impl Fn() + Send + Sync + use<> {
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        move || {
            if let Some(entry) = shared.lock().parts.get_mut(&id) {
                entry.wake = None;
            }
        }
    }

    /// Whether nobody else can want any of it.
    pub(super) fn is_alone(&self) -> bool {
        let state = self.shared.lock();
        self.shared.bytes.is_none() || (state.parts.len() == 1 && state.opening == 0)
    }

    /// Says what could be given.
    pub(super) fn stand(&self, standing: Standing) {
        self.with(|entry| entry.standing = standing);
    }

    /// What it is asked to give now.
    pub(super) fn asked(&self) -> Option<Asked> {
        let state = self.shared.lock();
        let opening = state.opening.saturating_sub(self.shared.left(&state));
        if opening > 0 {
            return Some(Asked {
                bytes: opening,
                before: u64::MAX,
                for_one: true,
            });
        }
        let (asked, _) = state.parts.get(&self.id)?.asked?;
        Some(asked)
    }

    /// Gives so many bytes back; none says that there are none to give.
    pub(super) fn give(&self, bytes: u64) {
        let mut state = self.shared.lock();
        let Some(entry) = state.parts.get_mut(&self.id) else {
            return;
        };
        entry.held = entry.held.saturating_sub(bytes);
        let is_news = std::mem::take(&mut entry.silent) || bytes > 0;
        let by = entry.asked.take().map(|(_, by)| by);
        for (id, entry) in &state.parts {
            if Some(*id) == by || (bytes > 0 && entry.lacks) {
                entry.wake();
            }
        }
        if is_news {
            self.shared.given.notify_all();
        }
    }

    /// Notes that it lacks nothing.
    pub(super) fn is_content(&self) {
        self.with(|entry| entry.lacks = false);
    }

    /// Seeks more: of what nobody holds, or of another engine.
    pub(super) fn seek(&self, lack: Lack) -> Sought {
        let mut state = self.shared.lock();
        let left = self.shared.left_to_grow(&state);
        let others = state.parts.iter_mut();
        let others = others.filter(|(id, entry)| **id != self.id && entry.asked.is_none());
        let could = others.filter(|(_, entry)| entry.gives(&lack));
        let first = could.min_by_key(|(_, Entry { standing, .. })| match standing.spare {
            0 => (true, standing.oldest.unwrap_or(u64::MAX)),
            // Who has the most.
            spare => (false, u64::MAX - spare),
        });
        if let Some((_, other)) = first.filter(|_| left < lack.least) {
            let asked = Asked {
                bytes: lack.bytes.saturating_sub(left).max(lack.least - left),
                before: lack.oldest,
                for_one: false,
            };
            other.asked = Some((asked, self.id));
            other.wake();
            if other.standing.idle {
                return Sought::Wait;
            }
        }
        drop(state);
        self.take(lack)
    }

    /// Takes what nobody holds.
    pub(super) fn take(&self, lack: Lack) -> Sought {
        let mut state = self.shared.lock();
        let taken = self.shared.left_to_grow(&state).min(lack.bytes);
        let mut others = state.parts.iter().filter(|(id, _)| **id != self.id);
        let others_give = others.any(|(_, entry)| entry.gives(&lack));
        let Some(entry) = state.parts.get_mut(&self.id) else {
            return Sought::Nothing;
        };
        let lacks = lack.texts_wait && taken < lack.least && !others_give;
        let lacked = std::mem::replace(&mut entry.lacks, lacks);
        let is_new = lacks && !lacked;
        entry.held += taken;
        let on_lack = state.on_lack.clone().filter(|_| is_new);
        drop(state);
        if let Some(on_lack) = on_lack {
            on_lack();
        }
        match taken {
            0 => Sought::Nothing,
            taken => Sought::Taken(taken),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.parts.remove(&self.id);
        state.parts.values().for_each(Entry::wake);
        self.shared.given.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LACK: Lack = Lack {
        least: 10,
        bytes: 30,
        oldest: 50,
        texts_wait: true,
    };

    #[test]
    fn who_has_most_to_spare_is_asked_first_and_then_who_has_what_is_oldest() {
        let budget = Budget::new(100);
        let [a, b, c] = ["a", "b", "c"].map(|name| budget.open(name, 10, 33).expect("a part"));
        let (wake, woken) = channel();
        c.wake_by(move || wake.send(()).expect("it is heard"));
        let spare = |spare, oldest| Standing {
            spare,
            oldest,
            idle: true,
        };
        b.stand(spare(0, Some(20)));
        c.stand(spare(5, Some(90)));
        assert_eq!(a.seek(LACK), Sought::Wait);
        let asked = Asked {
            bytes: 29,
            before: 50,
            for_one: false,
        };
        assert_eq!((c.asked(), b.asked()), (Some(asked), None));
        assert_eq!(woken.try_recv(), Ok(()));
        // Who is asked is asked once, and what it has given goes to whoever lacks it.
        c.give(5);
        c.stand(spare(0, Some(90)));
        assert_eq!(c.asked(), None);
        assert_eq!(a.seek(LACK), Sought::Wait);
        assert!(b.asked().is_some() && c.asked().is_none());
        b.give(20);
        b.stand(spare(0, None));
        assert_eq!(a.seek(LACK), Sought::Taken(26));
        assert_eq!((a.held(), b.held(), c.held()), (59, 13, 28));
        // What others have is younger than its own.
        assert_eq!(a.seek(LACK), Sought::Nothing);
        assert!(budget.is_lacking());
        a.is_content();
        assert!(!budget.is_lacking());
    }

    #[test]
    fn the_owner_is_told_of_what_nobody_gives_once() {
        let budget = Budget::new(20);
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        budget.on_lack(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let told = || told.load(Ordering::Relaxed);
        let [a, b] = ["a", "b"].map(|name| budget.open(name, 10, 10).expect("a part"));
        // One that may give something is asked first.
        b.stand(Standing {
            spare: 1,
            ..Standing::default()
        });
        assert_eq!((a.seek(LACK), told()), (Sought::Nothing, 0));
        b.stand(Standing::default());
        b.give(0);
        assert_eq!((a.seek(LACK), told()), (Sought::Nothing, 1));
        assert_eq!((a.seek(LACK), told()), (Sought::Nothing, 1));
        drop(b);
        assert_eq!((a.seek(LACK), told()), (Sought::Taken(10), 1));
    }

    #[test]
    fn who_begins_comes_first_and_does_not_wait_for_ever() {
        let budget = Budget::new(100);
        let a = budget.open("a", 10, 90).expect("a part");
        let other = budget.clone();
        let opened = std::thread::spawn(move || other.open("b", 40, 100));
        while a.asked().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(
            a.asked().map(|asked| (asked.bytes, asked.for_one)),
            Some((30, true))
        );
        // What is left is not for those that are there.
        assert_eq!(a.seek(LACK), Sought::Nothing);
        a.give(30);
        let b = opened.join().expect("no panic").expect("a part");
        assert_eq!((a.held(), b.held()), (60, 40));
        let soon = Duration::from_millis(20);
        let Err(error) = budget.open_within("c", (50, 60), soon) else {
            panic!("there is nothing left");
        };
        assert!(error.to_string().contains("come again"), "{error}");
        assert_eq!((budget.held().len(), a.asked()), (2, None));
    }
}
