//! What the tree gives up for others, and where it goes when caches change their size.

use std::collections::HashSet;

use super::{Node, NodeId, Prefixes};
use crate::pages::Group;
use crate::pages::moved;

impl Prefixes {
    /// Gives pages of a group up until so many are free, or none is left to give that was last of use before a time.
    pub(in crate::engine) fn make_room(
        &mut self,
        groups: &mut [Group],
        group: usize,
        wanted: usize,
        before: u64,
    ) {
        while groups[group].pages.free() < wanted {
            let pages = &groups[group].pages;
            let frees = |node: &Node| node.pages_in(group).any(|page| !pages.is_held(page));
            // Where there is a window, whoever goes on has what it sees. Else a node goes whole, and none before what lies
            // behind it does.
            let has_window = pages.has_window();
            let nodes = self.nodes.iter().filter(|(_, node)| node.used < before);
            let candidates = nodes.filter(|(_, node)| match has_window {
                true => node.pages_in(group).next().is_some(),
                false => node.parent.is_some() && node.children.is_empty(),
            });
            let least = candidates.min_by_key(|(_, node)| (!frees(node), node.used, node.start));
            match least {
                None => return,
                Some((&id, _)) if has_window => self.drop_pages(id, groups, group),
                Some((&id, _)) => self.remove(id, groups),
            }
        }
    }

    fn drop_pages(&mut self, id: NodeId, groups: &mut [Group], group: usize) {
        let node = self.nodes.get_mut(&id);
        let pages = node.and_then(|node| node.pages.get_mut(group));
        for page in pages.into_iter().flatten() {
            if let Some(page) = page.take() {
                groups[group].pages.give_up(page);
            }
        }
    }

    /// Removes a node that nothing lies behind, and where its kin's texts begin when it was the last.
    pub(super) fn remove(&mut self, id: NodeId, groups: &mut [Group]) {
        for group in 0..groups.len() {
            self.drop_pages(id, groups, group);
        }
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        self.free_checkpoint(node.checkpoint);
        let Some(parent) = node.parent else { return };
        let Some(node) = self.nodes.get_mut(&parent) else {
            return;
        };
        node.children.retain(|child| *child != id);
        if node.parent.is_none() && node.children.is_empty() {
            self.nodes.remove(&parent);
            self.roots.retain(|_, root| *root != parent);
        }
    }

    /// When that was last of use which is given up first, of what frees pages that no slot has.
    pub(in crate::engine) fn oldest(&self, groups: &[Group]) -> Option<u64> {
        let frees = |group: usize, page: i32| !groups[group].pages.is_held(page);
        let gives = |id: &NodeId| {
            let node = &self.nodes[id];
            let mut of = (0..groups.len())
                .filter(|group| groups[*group].pages.has_window() || node.children.is_empty());
            of.any(|group| node.pages_in(group).any(|page| frees(group, page)))
        };
        let giving = self.nodes.iter().filter(|(id, _)| gives(id));
        giving.map(|(_, node)| node.used).min()
    }

    /// Notes that pages of a group have gone elsewhere.
    pub(in crate::engine) fn move_pages(&mut self, group: usize, moves: &[(i32, i32)]) {
        for node in self.nodes.values_mut() {
            let pages = node.pages.get_mut(group);
            for page in pages.into_iter().flatten().flatten() {
                *page = moved(moves, *page);
            }
        }
    }

    /// Leaves so many copies of overlays, the least useful of which go first: where each that is in use lies and where it
    /// goes.
    pub(in crate::engine) fn resize_checkpoints(&mut self, count: usize) -> Vec<(usize, usize)> {
        let Some(free) = &mut self.checkpoints else {
            return Vec::new();
        };
        // So the next is one that is in use.
        free.clear();
        let in_use = |prefixes: &Self| {
            let nodes = prefixes.nodes.values();
            nodes.filter(|node| node.checkpoint.is_some()).count()
        };
        for _ in count..in_use(self) {
            self.take_checkpoint();
        }
        let used: HashSet<usize> = self.nodes.values().filter_map(|n| n.checkpoint).collect();
        let mut free: Vec<usize> = (0..count).filter(|n| !used.contains(n)).rev().collect();
        let mut moves = Vec::new();
        for node in self.nodes.values_mut() {
            let Some(from) = node.checkpoint else {
                continue;
            };
            let to = match from < count {
                true => Some(from),
                false => free.pop(),
            };
            node.checkpoint = to;
            moves.extend(to.map(|to| (from, to)));
        }
        self.checkpoints = Some(free);
        moves
    }
}
