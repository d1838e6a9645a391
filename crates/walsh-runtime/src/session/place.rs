//! Where a session's text lies: among those of its forks, with which it shares pages.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::graph::{Reading, Wanted};
use crate::model::steps::Steps;
use crate::pages::{PAGE, Pool, Texts};
use crate::{Model, Result, SessionOptions};

use super::left::left_of_layer;

/// How many recorded lists are kept for chunks of various lengths.
const KEPT_STEPS: usize = 6;

/// What a recorded list was recorded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepKey {
    Body(usize, Reading),
    Head(usize, usize),
    Vectors(usize),
    Token(Wanted),
}

/// What a text has beside its pages.
pub(super) struct Text {
    pub(super) memory: Texts,
    /// Lists over it. They lie here because they hold on to the memory that they run over, which may have to go while their
    /// session does nothing.
    pub(super) steps: Steps<StepKey>,
}

/// Texts that were forked from each other, and their pages.
struct Store {
    pool: Pool,
    /// By their slots in the pool.
    texts: Vec<Option<Text>>,
    /// How many slots of states each has.
    states: usize,
}

/// A text's own of a store. Dropped, its pages are given back.
pub(super) struct Place {
    store: Arc<Mutex<Store>>,
    slot: usize,
}

impl Place {
    /// One with nothing in it, in a store of its own whose pages a whole context has room in.
    pub(super) fn new(model: &Model, options: &SessionOptions, states: usize) -> Result<Self> {
        let pool = Pool::new((model, options), 1, &|_, size| size.least)?;
        let mut store = Store {
            pool,
            texts: Vec::new(),
            states,
        };
        let text = store.text()?;
        store.texts.push(Some(text));
        Ok(Self {
            store: Arc::new(Mutex::new(store)),
            slot: 0,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the pages and the text. No other text of the store is read or written in the meantime.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Pool, &mut Text) -> T) -> T {
        let store = &mut *self.lock();
        let Some(text) = &mut store.texts[self.slot] else {
            unreachable!("a place has its text until it is dropped");
        };
        work(&store.pool, text)
    }

    /// Its slot in the pool.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Another text that begins with the first positions of this one, which were read.
    pub(super) fn fork(&self, stored: usize) -> Result<Self> {
        let store = &mut *self.lock();
        let fork = store.text()?;
        if let Some(text) = &store.texts[self.slot] {
            for (from, to) in text.memory.layers.iter().zip(&fork.memory.layers) {
                let (from, to) = (left_of_layer(from, stored)?, left_of_layer(to, stored)?);
                for (from, to) in from.iter().zip(&to) {
                    store.pool.device().copy(from, to)?;
                }
            }
        }
        let slot = store.free_slot();
        store.texts[slot] = Some(fork);
        for group in &mut store.pool.groups {
            group.pages.share_all((self.slot, slot), stored);
        }
        Ok(Self {
            store: Arc::clone(&self.store),
            slot,
        })
    }

    /// Sees to it that tokens at these positions can be read, and see what comes before them. Where tokens see back only
    /// so far, what lies a window and a chunk before the last of them goes: the text can be cut back by a chunk.
    pub(super) fn reserve(&self, positions: &Range<usize>, chunk: usize) -> Result<()> {
        let store = &mut *self.lock();
        for index in 0..store.pool.groups.len() {
            let pages = &mut store.pool.groups[index].pages;
            pages.leave(self.slot, (positions.end - 1).saturating_sub(chunk));
            let missing = pages.missing(self.slot, positions);
            if missing > pages.free() {
                store.grow(index, missing)?;
            }
            let pages = &mut store.pool.groups[index].pages;
            if let Some(copy) = pages.take(self.slot, positions) {
                store.pool.copy_page(index, copy)?;
            }
        }
        let Some(text) = &store.texts[self.slot] else {
            return Ok(());
        };
        let slots = self.slot..self.slot + 1;
        text.memory.write_tables(&mut store.pool, slots)
    }

    /// Takes pages for what a file has of `stored` positions, of which `reached` have been there, into an empty text.
    pub(super) fn hold(&self, stored: usize, (reached, chunk): (usize, usize)) {
        for group in &mut self.lock().pool.groups {
            let kept = group.pages.window().map(|window| window + chunk);
            let lost = kept.map_or(0, |kept| reached.saturating_sub(kept));
            group
                .pages
                .hold(self.slot, lost / PAGE..stored.div_ceil(PAGE));
        }
    }

    /// Gives back the pages behind the first positions.
    pub(super) fn cut(&self, positions: usize) {
        for group in &mut self.lock().pool.groups {
            group.pages.cut(self.slot, positions);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let store = &mut *self.lock();
        store.texts[self.slot] = None;
        for group in &mut store.pool.groups {
            group.pages.clear(self.slot);
        }
    }
}

impl Store {
    /// An empty text.
    fn text(&self) -> Result<Text> {
        Ok(Text {
            memory: Texts::new(&self.pool, 1, self.states)?,
            steps: Steps::new(KEPT_STEPS),
        })
    }

    /// A slot that no text has.
    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.texts.iter().position(Option::is_none) {
            return slot;
        }
        for group in &mut self.pool.groups {
            group.pages.add_slot();
        }
        self.texts.push(None);
        self.texts.len() - 1
    }

    /// Makes room for so many more pages of a group: twice as many as there are, if memory allows, so that little is moved
    /// often.
    fn grow(&mut self, group: usize, missing: usize) -> Result<()> {
        let there = self.pool.groups[group].pages.pages();
        self.lay_out(group, there + missing.max(there))
            .or_else(|_| self.lay_out(group, there + missing))
    }

    /// Gives a group more pages, in other memory. Where it fails, some layers may have more than others, which nobody uses.
    fn lay_out(&mut self, group: usize, pages: usize) -> Result<()> {
        let used = self.pool.groups[group].pages.used();
        let stay: Vec<(i32, i32)> = used.into_iter().map(|page| (page, page)).collect();
        for layer in self.pool.layers_of(group).to_vec() {
            self.pool.lay_out(layer, pages, &stay)?;
            for text in self.texts.iter_mut().flatten() {
                text.steps = Steps::new(KEPT_STEPS);
                text.memory.follow(&self.pool, layer)?;
            }
        }
        self.pool.groups[group].pages.resize(pages);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place of four pages in a model whose layers see all.
    fn place() -> Place {
        let device = walsh::open("cpu:threads=1").expect("the processor");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/architectures");
        let model = Model::open(&device, format!("{folder}/smollm3.gguf")).expect("the model");
        let options = SessionOptions {
            context: 256,
            chunk: 64,
            ..SessionOptions::default()
        };
        Place::new(&model, &options, 1).expect("a place")
    }

    /// How many pages texts have, how many more than one has, and how many nobody has.
    fn pages(place: &Place) -> [usize; 3] {
        place.with(|pool, _| {
            let pages = &pool.groups[0].pages;
            [pages.held(), pages.shared(), pages.free()]
        })
    }

    #[test]
    fn texts_share_pages_until_they_write_to_them() {
        let origin = place();
        let reserve = |place: &Place, positions| place.reserve(&positions, 64).expect("pages");
        reserve(&origin, 0..100);
        assert_eq!(pages(&origin), [2, 0, 2]);
        let fork = origin.fork(100).expect("a fork");
        assert_eq!(pages(&origin), [2, 2, 2]);
        // The second page is copied, and then each has its own.
        reserve(&fork, 100..101);
        assert_eq!(pages(&origin), [3, 1, 1]);
        reserve(&origin, 100..130);
        assert_eq!(pages(&origin), [4, 1, 0]);
        // None is left: there are twice as many.
        reserve(&fork, 101..140);
        assert_eq!(pages(&origin), [5, 1, 3]);
        fork.cut(64);
        assert_eq!(pages(&origin), [3, 1, 5]);
        drop(origin);
        assert_eq!(pages(&fork), [1, 0, 7]);
        let next = fork.fork(10).expect("a fork");
        assert_eq!((next.slot(), pages(&next)), (0, [1, 1, 7]));
        next.cut(0);
        assert_eq!(pages(&fork), [1, 0, 7]);
    }
}
