//! Texts as a whole: where one lies in the tree, and what is no one else's of it.

use super::{Found, NodeId, Prefixes};
use crate::engine::kin::Kin;
use crate::model::graph::Reading;
use crate::pages::Group;

/// A node on the way to a place: how it was read, how many of its tokens count, and where the overlay behind them is kept.
pub(in crate::engine) type Step = (Reading, usize, Option<usize>);

impl Prefixes {
    /// The longest beginning of a text, all of it included, that can be gone on from.
    pub(in crate::engine) fn longest(
        &self,
        kin: &Kin,
        text: &[i32],
        groups: &[Group],
    ) -> Option<Found> {
        let fits = |position: usize, _, tokens: &[i32]| {
            let rest = text.get(position..).unwrap_or_default();
            rest.iter().zip(tokens).take_while(|(a, b)| a == b).count()
        };
        self.find(kin, groups, text.len(), &fits).found
    }

    /// The nodes that lead to a place.
    pub(in crate::engine) fn way(&self, found: &Found) -> Vec<Step> {
        let (mut steps, mut at, mut tokens) = (Vec::new(), found.node, found.tokens);
        while let Some((node, parent)) = self.nodes.get(&at).and_then(|n| Some((n, n.parent?))) {
            let is_whole = tokens == node.tokens.len();
            let checkpoint = node.checkpoint.filter(|_| is_whole);
            steps.push((node.reading, tokens, checkpoint));
            at = parent;
            tokens = self.nodes.get(&at).map_or(0, |node| node.tokens.len());
        }
        steps.reverse();
        steps
    }

    /// Gives up the nodes that lead to a place alone, but for those in `others` and before them; how many tokens that are.
    pub(in crate::engine) fn erase(
        &mut self,
        found: &Found,
        others: &[NodeId],
        groups: &mut [Group],
    ) -> usize {
        let (mut at, mut tokens, mut erased) = (found.node, found.tokens, 0);
        while let Some((node, parent)) = self.nodes.get(&at).and_then(|n| Some((n, n.parent?))) {
            let is_whole = tokens == node.tokens.len();
            if !is_whole || !node.children.is_empty() || others.contains(&at) {
                break;
            }
            erased += tokens;
            self.remove(at, groups);
            at = parent;
            tokens = self.nodes.get(&at).map_or(0, |node| node.tokens.len());
        }
        erased
    }
}
