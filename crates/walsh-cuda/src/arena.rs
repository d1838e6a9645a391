//! Device memory in large slabs, handed out in aligned blocks.
//!
//! The driver takes long to allocate and gives memory in pieces of 2 MiB: thousands of small tensors must not each ask
//! it. Blocks of a slab are handed out best fit; what is given back joins its free neighbours. A slab in which nothing
//! is used any more goes back to the driver, but for one of the ordinary size.

use std::collections::BTreeMap;

use walsh_core::Result;

/// Blocks begin at multiples of this: what the driver itself guarantees.
pub(crate) const ALIGN: u64 = 256;

/// The size of an ordinary slab.
const SLAB: u64 = 64 << 20;

/// Blocks from this size on have a slab of their own.
const LARGE: u64 = SLAB / 2;

/// The driver's own granule: slabs of other sizes are rounded up to it.
const GRANULE: u64 = 2 << 20;

/// Where slabs come from.
pub(crate) trait Slabs {
    /// Allocates a slab and gives its address, or `None` when the memory is used up.
    ///
    /// # Errors
    /// When the device fails.
    fn allocate(&mut self, bytes: u64) -> Result<Option<u64>>;

    /// Gives a slab back.
    fn release(&mut self, address: u64);
}

/// A range of device memory. It must be given back to the arena that it came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The address of its first byte.
    pub(crate) address: u64,
    /// Its size, a multiple of [`ALIGN`].
    pub(crate) bytes: u64,
}

/// A slab's free ranges, by address: size. No two of them touch.
struct Slab {
    bytes: u64,
    free: BTreeMap<u64, u64>,
}

/// The allocator.
pub(crate) struct Arena<S: Slabs> {
    source: S,
    slabs: BTreeMap<u64, Slab>,
}

impl<S: Slabs> Arena<S> {
    pub(crate) fn new(source: S) -> Self {
        Self {
            source,
            slabs: BTreeMap::new(),
        }
    }

    /// A block of at least `bytes`; `None` when the device has no room for it. Nothing is lost then.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Result<Option<Block>> {
        let Some(bytes) = bytes.max(1).checked_next_multiple_of(ALIGN) else {
            return Ok(None);
        };
        if let Some(block) = self.take(bytes) {
            return Ok(Some(block));
        }
        let least = bytes.checked_next_multiple_of(GRANULE);
        let Some(least) = least else { return Ok(None) };
        let wanted = if bytes < LARGE { SLAB } else { least };
        for slab in [wanted, least] {
            if self.grow(slab)? {
                return Ok(self.take(bytes));
            }
        }
        // A slab that is kept for later stands in the way of one that is needed now.
        if self.release_unused() && self.grow(least)? {
            return Ok(self.take(bytes));
        }
        Ok(None)
    }

    /// Takes a block back.
    pub(crate) fn free(&mut self, block: Block) {
        let Some((&base, slab)) = self.slabs.range_mut(..=block.address).next_back() else {
            debug_assert!(false, "{block:?} is of no slab");
            return;
        };
        let (mut start, mut end) = (block.address, block.address + block.bytes);
        debug_assert!(end <= base + slab.bytes, "{block:?} lies within its slab");
        if let Some((&before, &bytes)) = slab.free.range(..start).next_back() {
            debug_assert!(before + bytes <= start, "{block:?} is freed once");
            if before + bytes == start {
                start = before;
            }
        }
        if let Some(bytes) = slab.free.remove(&end) {
            end += bytes;
        }
        slab.free.insert(start, end - start);
        if end - start == slab.bytes {
            self.unused(base);
        }
    }

    /// The bytes of all slabs that are not handed out.
    pub(crate) fn free_bytes(&self) -> u64 {
        let free = |slab: &Slab| slab.free.values().sum::<u64>();
        self.slabs.values().map(free).sum()
    }

    /// The smallest free range that holds `bytes`, cut.
    fn take(&mut self, bytes: u64) -> Option<Block> {
        let ranges = self.slabs.iter().flat_map(|(base, slab)| {
            let free = slab.free.iter();
            free.map(move |(start, size)| (*size, *base, *start))
        });
        let (size, base, address) = ranges.filter(|(size, ..)| *size >= bytes).min()?;
        let slab = self.slabs.get_mut(&base)?;
        slab.free.remove(&address);
        if size > bytes {
            slab.free.insert(address + bytes, size - bytes);
        }
        Some(Block { address, bytes })
    }

    fn grow(&mut self, bytes: u64) -> Result<bool> {
        let Some(address) = self.source.allocate(bytes)? else {
            return Ok(false);
        };
        let free = BTreeMap::from([(address, bytes)]);
        self.slabs.insert(address, Slab { bytes, free });
        Ok(true)
    }

    /// Decides about a slab in which nothing is used any more.
    fn unused(&mut self, base: u64) {
        let spare = |(other, slab): (&u64, &Slab)| {
            *other != base && slab.bytes == SLAB && slab.free.get(other) == Some(&SLAB)
        };
        let ordinary = self.slabs.get(&base).is_some_and(|s| s.bytes == SLAB);
        if !ordinary || self.slabs.iter().any(spare) {
            self.slabs.remove(&base);
            self.source.release(base);
        }
    }

    /// Gives back every slab in which nothing is used; whether there was one.
    fn release_unused(&mut self) -> bool {
        let unused = |(base, slab): (&u64, &Slab)| {
            (slab.free.get(base) == Some(&slab.bytes)).then_some(*base)
        };
        let bases: Vec<u64> = self.slabs.iter().filter_map(unused).collect();
        for base in &bases {
            self.slabs.remove(base);
            self.source.release(*base);
        }
        !bases.is_empty()
    }
}

impl<S: Slabs> Drop for Arena<S> {
    fn drop(&mut self) {
        // Whoever holds a block keeps the arena alive: nothing is used any more.
        for base in self.slabs.keys() {
            self.source.release(*base);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// A device of so many bytes, which remembers what it gave.
    #[derive(Clone)]
    struct Fake(Rc<RefCell<State>>);

    struct State {
        left: u64,
        next: u64,
        given: BTreeMap<u64, u64>,
        calls: usize,
    }

    impl Fake {
        fn new(bytes: u64) -> Self {
            Self(Rc::new(RefCell::new(State {
                left: bytes,
                next: 1 << 40,
                given: BTreeMap::new(),
                calls: 0,
            })))
        }

        fn slabs(&self) -> usize {
            self.0.borrow().given.len()
        }
    }

    impl Slabs for Fake {
        fn allocate(&mut self, bytes: u64) -> Result<Option<u64>> {
            let mut state = self.0.borrow_mut();
            state.calls += 1;
            if bytes > state.left {
                return Ok(None);
            }
            state.left -= bytes;
            let address = state.next;
            // Slabs touch: ranges of two of them must not be taken for one.
            state.next += bytes;
            state.given.insert(address, bytes);
            Ok(Some(address))
        }

        fn release(&mut self, address: u64) {
            let mut state = self.0.borrow_mut();
            let bytes = state.given.remove(&address).expect("a slab that was given");
            state.left += bytes;
        }
    }

    fn take<S: Slabs>(arena: &mut Arena<S>, bytes: u64) -> Block {
        let block = arena.allocate(bytes).unwrap();
        block.unwrap_or_else(|| panic!("no room for {bytes}"))
    }

    #[test]
    fn small_blocks_share_a_slab_and_large_ones_have_their_own() {
        let fake = Fake::new(1 << 30);
        let mut arena = Arena::new(fake.clone());
        let blocks: Vec<Block> = (0..100).map(|i| take(&mut arena, i * 100)).collect();
        assert_eq!(fake.slabs(), 1);
        let large = take(&mut arena, (100 << 20) + 1);
        assert_eq!(fake.slabs(), 2);
        assert_eq!(fake.0.borrow().given[&large.address], 102 << 20);
        arena.free(large);
        assert_eq!(fake.slabs(), 1);
        blocks.into_iter().for_each(|block| arena.free(block));
        assert_eq!(fake.slabs(), 1, "one ordinary slab is kept");
        assert_eq!(arena.free_bytes(), SLAB);
    }

    #[test]
    fn blocks_are_aligned_and_disjoint_whatever_the_order() {
        let fake = Fake::new(1 << 32);
        let mut arena = Arena::new(fake.clone());
        let mut held: Vec<Block> = Vec::new();
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..4000 {
            if random(5) < 3 || held.is_empty() {
                let bytes = 1 << random(26);
                let block = take(&mut arena, bytes + random(1000));
                assert_eq!(block.address % ALIGN, 0);
                assert!(block.bytes >= bytes);
                let end = block.address + block.bytes;
                let apart = |b: &Block| b.address + b.bytes <= block.address || end <= b.address;
                assert!(held.iter().all(apart));
                let state = fake.0.borrow();
                let (base, slab) = state.given.range(..=block.address).next_back().unwrap();
                assert!(end <= base + slab);
                held.push(block);
            } else {
                let block = held.swap_remove(random(held.len() as u64) as usize);
                arena.free(block);
            }
            let slabs: u64 = fake.0.borrow().given.values().sum();
            let used: u64 = held.iter().map(|b| b.bytes).sum();
            assert_eq!(arena.free_bytes(), slabs - used);
        }
        held.into_iter().for_each(|block| arena.free(block));
        assert!(fake.slabs() <= 1);
        drop(arena);
        assert_eq!(fake.slabs(), 0, "an arena gives everything back");
    }

    #[test]
    fn neighbours_join_in_either_order() {
        for order in [[0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2], [1, 2, 0]] {
            let mut arena = Arena::new(Fake::new(SLAB));
            let mut blocks: Vec<Option<Block>> =
                (0..3).map(|_| Some(take(&mut arena, SLAB / 4))).collect();
            for at in order {
                arena.free(blocks[at].take().unwrap());
            }
            let whole = take(&mut arena, SLAB);
            assert_eq!(whole.bytes, SLAB);
        }
    }

    #[test]
    fn a_failed_allocation_leaves_everything_usable() {
        let fake = Fake::new(40 << 20);
        let mut arena = Arena::new(fake.clone());
        // There is no room for an ordinary slab; one of the exact size does.
        let small = take(&mut arena, 3 << 20);
        assert_eq!(fake.0.borrow().given[&small.address], 4 << 20);
        assert_eq!(arena.allocate(64 << 20).unwrap(), None);
        assert_eq!(arena.allocate(u64::MAX).unwrap(), None);
        assert_eq!(arena.allocate(u64::MAX - ALIGN).unwrap(), None);
        let other = take(&mut arena, 36 << 20);
        assert_eq!(arena.allocate(2 << 20).unwrap(), None);
        arena.free(other);
        arena.free(small);
        take(&mut arena, 40 << 20);
    }

    #[test]
    fn a_spare_slab_does_not_stand_in_the_way_of_a_large_block() {
        let fake = Fake::new(100 << 20);
        let mut arena = Arena::new(fake.clone());
        let small = take(&mut arena, 1);
        arena.free(small);
        assert_eq!(fake.slabs(), 1);
        take(&mut arena, 100 << 20);
        assert_eq!(fake.slabs(), 1);
    }

    #[test]
    fn an_empty_block_has_an_address_of_its_own() {
        let mut arena = Arena::new(Fake::new(1 << 30));
        let (a, b) = (take(&mut arena, 0), take(&mut arena, 0));
        assert_ne!(a.address, b.address);
    }

    #[test]
    fn a_device_that_fails_is_an_error_and_not_an_empty_one() {
        struct Broken;
        impl Slabs for Broken {
            fn allocate(&mut self, _: u64) -> Result<Option<u64>> {
                Err(walsh_core::Error::Device {
                    device: "cuda:0".into(),
                    message: "lost".into(),
                })
            }
            fn release(&mut self, _: u64) {}
        }
        assert!(Arena::new(Broken).allocate(1).is_err());
    }
}
