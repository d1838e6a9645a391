//! Beginnings of texts whose keys and values are kept, so that they are not read again.

mod held;
mod room;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::budget::Clock;
use super::kin::Kin;
use crate::model::graph::Reading;
use crate::pages::{Group, PAGE};

/// A node of the tree, or one that was.
pub(super) type NodeId = u64;

/// What a call has read and left behind: a node of the tree.
#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    children: Vec<NodeId>,
    /// One call, or as many of one token each as there are tokens of [`Reading::Codes`].
    reading: Reading,
    tokens: Vec<i32>,
    /// The position of the first of them.
    start: usize,
    /// Of each group, the pages that the positions lie in. A page that begins before them holds what its positions
    /// before them have, too. A group with a window may have lost some.
    pages: Vec<Vec<Option<i32>>>,
    /// Where the overlay is kept as it was behind the last position.
    checkpoint: Option<usize>,
    /// When it was last of use.
    used: u64,
}

impl Node {
    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// Its pages of a group.
    fn pages_in(&self, group: usize) -> impl Iterator<Item = i32> {
        let pages = self.pages.get(group);
        pages.into_iter().flatten().copied().flatten()
    }

    /// The entry of a page table that its first page is.
    fn first_entry(&self) -> usize {
        self.start / PAGE
    }
}

/// What a node is made from.
pub(super) struct Kept {
    pub(super) reading: Reading,
    pub(super) tokens: Vec<i32>,
    /// Of each group, those of its positions.
    pub(super) pages: Vec<Vec<Option<i32>>>,
    /// The number of the overlay's copy, [taken](Prefixes::take_checkpoint) before.
    pub(super) checkpoint: Option<usize>,
}

/// Where a text can be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) node: NodeId,
    /// How many of the node's tokens count.
    tokens: usize,
    /// How many tokens need not be read.
    pub(super) position: usize,
}

/// What is known of a text before it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) found: Option<Found>,
    /// Where it parts from what others have read, where that is within a call.
    pub(super) parts_at: Option<usize>,
}

/// A tree of calls: texts that were read by the same calls have the same nodes, and whoever begins with them goes on from
/// there with the same bits.
///
/// Nodes share pages with the texts that are served. They go, the least recently used first, when those need more.
pub(super) struct Prefixes {
    nodes: BTreeMap<NodeId, Node>,
    /// The number of the next node.
    next: NodeId,
    /// Where the texts of each kin begin.
    roots: HashMap<Kin, NodeId>,
    /// The numbers of free copies of overlays; `None` where pages say it all.
    checkpoints: Option<Vec<usize>>,
    clock: Clock,
}

impl Prefixes {
    /// An empty tree; with how many copies of overlays, where caches have any.
    pub(super) fn new(checkpoints: Option<usize>, clock: Clock) -> Self {
        Self {
            nodes: BTreeMap::new(),
            next: 0,
            roots: HashMap::new(),
            checkpoints: checkpoints.map(|count| (0..count).rev().collect()),
            clock,
        }
    }

    fn place(&mut self, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    /// Where texts of a kin begin.
    pub(super) fn root(&mut self, kin: &Kin) -> NodeId {
        if let Some(root) = self.roots.get(kin) {
            return *root;
        }
        let root = self.place(Node {
            parent: None,
            children: Vec::new(),
            reading: Reading::Codes,
            tokens: Vec::new(),
            start: 0,
            pages: Vec::new(),
            checkpoint: None,
            used: 0,
        });
        self.roots.insert(kin.clone(), root);
        root
    }

    /// Looks for the longest beginning of a text, of `most` tokens at most, that can be gone on from. `fits` says how many
    /// of a node's tokens the text has from a position on, read as it would be.
    pub(super) fn find(
        &self,
        kin: &Kin,
        groups: &[Group],
        most: usize,
        fits: &dyn Fn(usize, Reading, &[i32]) -> usize,
    ) -> Search {
        let Some(root) = self.roots.get(kin) else {
            return Search::default();
        };
        let mut visited: Vec<Found> = Vec::new();
        let (mut open, mut known) = (vec![(*root, 0)], 0);
        while let Some((id, position)) = open.pop() {
            for child in &self.nodes[&id].children {
                let node = &self.nodes[child];
                let tokens = fits(position, node.reading, &node.tokens);
                known = known.max(position + tokens);
                let whole = tokens == node.tokens.len();
                if tokens == 0 || (node.reading == Reading::CodesAndFresh && !whole) {
                    continue;
                }
                let end = position + tokens;
                if end <= most || (node.reading == Reading::Codes && position < most) {
                    visited.push(Found {
                        node: *child,
                        tokens: end.min(most) - position,
                        position: end.min(most),
                    });
                }
                if whole {
                    open.push((*child, end));
                }
            }
        }
        visited.sort_unstable_by_key(|found| std::cmp::Reverse(found.position));
        let found = visited
            .into_iter()
            .find(|found| self.is_whole(found, groups));
        let reached = found.map_or(0, |found| found.position);
        Search {
            found,
            parts_at: (known > reached && known < most).then_some(known),
        }
    }

    /// Whether all is there that going on takes.
    fn is_whole(&self, found: &Found, groups: &[Group]) -> bool {
        let node = &self.nodes[&found.node];
        let ends = found.tokens == node.tokens.len();
        let overlay = self.checkpoints.is_none() || (ends && node.checkpoint.is_some());
        let has_pages = |(index, group): (usize, &Group)| {
            let seen = group.pages.seen(found.position);
            self.pages(found.node, index, seen).is_some()
        };
        overlay && groups.iter().enumerate().all(has_pages)
    }

    /// The pages of a group for entries of a row, the last first, of a text that ends in a node; `None` where one is missing.
    fn pages(&self, id: NodeId, group: usize, seen: Range<usize>) -> Option<Vec<(usize, i32)>> {
        let (mut found, mut end, mut at) = (Vec::new(), seen.end, id);
        while end > seen.start {
            let node = self.nodes.get(&at)?;
            let first = node.first_entry();
            for entry in (first.max(seen.start)..end).rev() {
                let page = *node.pages.get(group)?.get(entry - first)?;
                found.push((entry, page?));
            }
            end = end.min(first.max(seen.start));
            if end > seen.start {
                at = node.parent?;
            }
        }
        Some(found)
    }

    /// The pages of each group that a text has which goes on from a place.
    pub(super) fn pages_of(&self, found: &Found, groups: &[Group]) -> Vec<Vec<(usize, i32)>> {
        let of = |(index, group): (usize, &Group)| {
            let seen = group.pages.seen(found.position);
            self.pages(found.node, index, seen).unwrap_or_default()
        };
        groups.iter().enumerate().map(of).collect()
    }

    /// Where the overlay behind a place is kept.
    pub(super) fn checkpoint(&self, found: &Found) -> Option<usize> {
        self.nodes.get(&found.node)?.checkpoint
    }

    /// The calls that have read what lies before a place: of each node, how and how many tokens.
    pub(super) fn calls(&self, found: &Found) -> Vec<(Reading, usize)> {
        let mut calls = Vec::new();
        let (mut at, mut tokens) = (found.node, found.tokens);
        while let Some(parent) = self.nodes[&at].parent {
            calls.push((self.nodes[&at].reading, tokens));
            at = parent;
            tokens = self.nodes[&at].tokens.len();
        }
        calls.reverse();
        calls
    }

    /// The node that ends where a text goes on from, cut off a run of tokens where it must be.
    pub(super) fn go_on(&mut self, found: &Found, groups: &mut [Group]) -> NodeId {
        let id = match found.tokens < self.nodes[&found.node].tokens.len() {
            true => self.cut(found.node, found.tokens, groups),
            false => found.node,
        };
        self.touch(id);
        id
    }

    /// Notes that a node and all before it were of use.
    fn touch(&mut self, id: NodeId) {
        let (clock, mut at) = (self.clock.tick(), Some(id));
        while let Some(node) = at.and_then(|id| self.nodes.get_mut(&id)) {
            node.used = clock;
            at = node.parent;
        }
    }

    /// Cuts a run of tokens in two; the first part is a node of its own.
    fn cut(&mut self, id: NodeId, tokens: usize, groups: &mut [Group]) -> NodeId {
        let Some(node) = self.nodes.get_mut(&id) else {
            return id;
        };
        let rest = node.tokens.split_off(tokens);
        let first_tokens = std::mem::replace(&mut node.tokens, rest);
        let (start, first) = (node.start, node.first_entry());
        node.start += tokens;
        let (last, from) = (
            node.start.div_ceil(PAGE) - first,
            node.first_entry() - first,
        );
        let mut first_pages = Vec::new();
        for (pages, group) in node.pages.iter_mut().zip(groups) {
            first_pages.push(pages[..last].to_vec());
            // A page that both have counts twice.
            for page in pages[from..last].iter().flatten() {
                group.pages.keep(*page);
            }
            pages.drain(..from);
        }
        let (parent, reading, used) = (node.parent, node.reading, node.used);
        let cut = self.place(Node {
            parent,
            children: vec![id],
            reading,
            tokens: first_tokens,
            start,
            pages: first_pages,
            checkpoint: None,
            used,
        });
        if let Some(node) = self.nodes.get_mut(&id) {
            node.parent = Some(cut);
        }
        let parent = parent.and_then(|parent| self.nodes.get_mut(&parent));
        for child in parent.into_iter().flat_map(|parent| &mut parent.children) {
            if *child == id {
                *child = cut;
            }
        }
        cut
    }

    /// Keeps what a call has left behind a node, and returns its own; `None` where the node is no longer there.
    pub(super) fn insert(
        &mut self,
        parent: NodeId,
        kept: Kept,
        groups: &mut [Group],
    ) -> Option<NodeId> {
        let Some(node) = self.nodes.get(&parent) else {
            self.free_checkpoint(kept.checkpoint);
            return None;
        };
        let alike = |id: &&NodeId| {
            let node = &self.nodes[*id];
            node.reading == kept.reading && node.tokens == kept.tokens
        };
        let id = match node.children.iter().find(alike).copied() {
            Some(id) => {
                self.complete(id, kept, groups);
                id
            }
            None => self.append(parent, kept, groups),
        };
        self.touch(id);
        Some(id)
    }

    /// A new node.
    fn append(&mut self, parent: NodeId, kept: Kept, groups: &mut [Group]) -> NodeId {
        for (pages, group) in kept.pages.iter().zip(groups) {
            for page in pages.iter().flatten() {
                group.pages.keep(*page);
            }
        }
        let id = self.place(Node {
            parent: Some(parent),
            children: Vec::new(),
            reading: kept.reading,
            tokens: kept.tokens,
            start: self.nodes[&parent].end(),
            pages: kept.pages,
            checkpoint: kept.checkpoint,
            used: 0,
        });
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.push(id);
        }
        id
    }

    /// Gives a node what it has lost and another text has.
    fn complete(&mut self, id: NodeId, kept: Kept, groups: &mut [Group]) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        for ((pages, others), group) in node.pages.iter_mut().zip(kept.pages).zip(groups) {
            for (page, other) in pages.iter_mut().zip(others) {
                if let (None, Some(other)) = (&page, other) {
                    group.pages.keep(other);
                    *page = Some(other);
                }
            }
        }
        match node.checkpoint {
            None => node.checkpoint = kept.checkpoint,
            Some(_) => self.free_checkpoint(kept.checkpoint),
        }
    }

    fn free_checkpoint(&mut self, number: Option<usize>) {
        if let Some(free) = &mut self.checkpoints {
            free.extend(number);
        }
    }

    /// The number of a copy of the overlay that may be written over; `None` where there is none at all. Places where texts
    /// were seen to part keep theirs longest.
    pub(super) fn take_checkpoint(&mut self) -> Option<usize> {
        if let Some(number) = self.checkpoints.as_mut()?.pop() {
            return Some(number);
        }
        let with = self.nodes.values_mut();
        let with = with.filter(|node| node.checkpoint.is_some());
        let least = with.min_by_key(|node| (node.children.len() > 1, node.used, node.start));
        least?.checkpoint.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageGroup;

    /// Groups of one layer each, of eight pages that one slot may have; of each the window.
    fn groups<const N: usize>(windows: [Option<usize>; N]) -> [Group; N] {
        windows.map(|window| Group::new(PageGroup::new(window, (1, 512), 8), Vec::new()))
    }

    fn tokens(range: Range<i32>) -> Vec<i32> {
        range.collect()
    }

    /// What a slot has read at some positions, whose tokens are their numbers.
    fn read(groups: &mut [Group], reading: Reading, positions: Range<usize>) -> Kept {
        for group in &mut *groups {
            group.pages.leave(0, positions.start);
            group.pages.take(0, &positions);
        }
        let pages = groups
            .iter()
            .map(|group| group.pages.pages_of(0, &positions));
        Kept {
            reading,
            pages: pages.collect(),
            tokens: tokens(positions.start as i32..positions.end as i32),
            checkpoint: None,
        }
    }

    fn find(prefixes: &Prefixes, groups: &[Group], text: &[i32]) -> Search {
        prefixes.find(
            &Kin::default(),
            groups,
            text.len() - 1,
            &|position, _, tokens| {
                let rest = text.get(position..).unwrap_or_default();
                rest.iter().zip(tokens).take_while(|(a, b)| a == b).count()
            },
        )
    }

    /// What is found, by where it ends.
    fn position(search: Search) -> usize {
        search.found.map_or(0, |found| found.position)
    }

    #[test]
    fn a_run_of_tokens_is_cut_where_texts_part_and_a_chunk_is_not() {
        let mut groups = groups([None]);
        let mut prefixes = Prefixes::new(None, Clock::default());
        let root = prefixes.root(&Kin::default());
        let chunk = read(&mut groups, Reading::CodesAndFresh, 0..50);
        let chunk = prefixes.insert(root, chunk, &mut groups).expect("a node");
        let run = read(&mut groups, Reading::Codes, 50..170);
        prefixes.insert(chunk, run, &mut groups).expect("a node");
        groups[0].pages.clear(0);
        // Both have a page of the first 64 positions.
        assert_eq!((groups[0].pages.free(), groups[0].pages.held()), (4, 0));
        // Within the chunk nothing can be gone on from; a text parts there.
        let within = find(&prefixes, &groups, &tokens(0..30));
        assert_eq!((position(within), within.parts_at), (0, None));
        let parts = [tokens(0..30), tokens(900..940)].concat();
        assert_eq!(find(&prefixes, &groups, &parts).parts_at, Some(30));
        let text = [tokens(0..100), tokens(900..940)].concat();
        let found = find(&prefixes, &groups, &text).found.expect("a place");
        assert_eq!(found.position, 100);
        assert_eq!(
            prefixes.calls(&found),
            [(Reading::CodesAndFresh, 50), (Reading::Codes, 50)]
        );
        let pages = prefixes.pages_of(&found, &groups);
        assert_eq!(pages, [vec![(1, 2), (0, 1)]]);
        prefixes.go_on(&found, &mut groups);
        // All of it is still there, in three nodes.
        let all = find(&prefixes, &groups, &tokens(0..171))
            .found
            .expect("a place");
        assert_eq!(prefixes.calls(&all).len(), 3);
        assert_eq!(
            prefixes.pages_of(&all, &groups),
            [vec![(2, 3), (1, 2), (0, 1)]]
        );
        // The last part goes first; the second page is the first part's too.
        prefixes.make_room(&mut groups, 0, 5, u64::MAX);
        assert_eq!(position(find(&prefixes, &groups, &tokens(0..171))), 100);
        prefixes.make_room(&mut groups, 0, 8, u64::MAX);
        assert_eq!(groups[0].pages.free(), 8);
        assert_eq!(find(&prefixes, &groups, &text), Search::default());
    }

    #[test]
    fn a_window_loses_what_lies_farthest_back() {
        let mut groups = groups([None, Some(70)]);
        let mut prefixes = Prefixes::new(None, Clock::default());
        let mut node = prefixes.root(&Kin::default());
        for start in [0, 64, 128, 192, 256] {
            let chunk = read(&mut groups, Reading::CodesAndFresh, start..start + 64);
            node = prefixes.insert(node, chunk, &mut groups).expect("a node");
        }
        assert_eq!((groups[1].pages.free(), groups[1].pages.held()), (3, 3));
        for group in &mut groups {
            group.pages.clear(0);
        }
        let text = tokens(0..400);
        assert_eq!(position(find(&prefixes, &groups, &text)), 320);
        assert_eq!(position(find(&prefixes, &groups, &text[..200])), 192);
        // A token at 192 sees the pages from 123 on.
        prefixes.make_room(&mut groups, 1, 5, u64::MAX);
        assert_eq!(position(find(&prefixes, &groups, &text[..200])), 0);
        assert_eq!(position(find(&prefixes, &groups, &text)), 320);
        assert_eq!(groups[0].pages.free(), 3);
        prefixes.make_room(&mut groups, 1, 8, u64::MAX);
        assert_eq!(find(&prefixes, &groups, &text).found, None);
    }

    #[test]
    fn copies_of_overlays_are_lent() {
        let mut groups = groups([None]);
        let mut prefixes = Prefixes::new(Some(2), Clock::default());
        let root = prefixes.root(&Kin::default());
        let mut node = root;
        for start in [0, 64, 128] {
            let checkpoint = prefixes.take_checkpoint();
            assert!(checkpoint.is_some());
            let chunk = Kept {
                checkpoint,
                ..read(&mut groups, Reading::CodesAndFresh, start..start + 64)
            };
            node = prefixes.insert(node, chunk, &mut groups).expect("a node");
        }
        // The first has lost its own to the third.
        let text = tokens(0..300);
        assert_eq!(position(find(&prefixes, &groups, &text)), 192);
        assert_eq!(position(find(&prefixes, &groups, &text[..130])), 128);
        assert_eq!(position(find(&prefixes, &groups, &text[..100])), 0);
        // Nothing is kept behind a node that is gone, and its copy is free again.
        groups[0].pages.clear(0);
        prefixes.make_room(&mut groups, 0, 8, u64::MAX);
        let kept = Kept {
            checkpoint: prefixes.take_checkpoint(),
            ..read(&mut groups, Reading::Codes, 192..200)
        };
        assert_eq!(prefixes.insert(node, kept, &mut groups), None);
        let free = [prefixes.take_checkpoint(), prefixes.take_checkpoint()];
        assert!(free.iter().all(Option::is_some));
        assert_eq!(prefixes.take_checkpoint(), None);
    }
}
