//! What slots have left behind, taken out of the caches and put there again.

use super::Runner;
use crate::engine::left::Left;
use crate::engine::prefixes::{Found, Kept};
use crate::engine::slots::{Held, Link, SlotText};
use crate::model::graph::Reading;
use crate::{Error, Result};

impl Runner {
    /// Where the text that a slot had last lies, as far as it is still kept.
    fn place_of(&self, slot: usize) -> Option<(&Held, Found)> {
        let held = self.held.get(slot)?.as_ref()?;
        let prefixes = self.prefixes.as_ref()?;
        let found = prefixes.longest(&held.kin, &held.tokens, &self.caches.pool.groups)?;
        Some((held, found))
    }

    /// The text that a slot had last, and what it has left behind.
    pub(in crate::engine) fn save_slot(&mut self, slot: usize) -> Result<SlotText> {
        let nothing = || refused(slot, "it holds no text: let it serve one first");
        let (held, found) = self.place_of(slot).ok_or_else(nothing)?;
        let prefixes = self.prefixes.as_ref().ok_or_else(nothing)?;
        let mut pages = prefixes.pages_of(&found, &self.caches.pool.groups);
        for pages in &mut pages {
            pages.sort_unstable();
        }
        let way = prefixes.way(&found);
        let mut overlays = Vec::new();
        for copy in way.iter().filter_map(|(_, _, copy)| *copy) {
            overlays.extend(self.caches.overlays_of_copy(copy)?);
        }
        let pages = self.caches.pool.pieces(&pages, found.position)?;
        let link = |&(reading, tokens, overlay): &(Reading, usize, Option<usize>)| Link {
            reading,
            tokens,
            overlay: overlay.is_some(),
        };
        Ok(SlotText {
            kin: held.kin.clone(),
            tokens: held.tokens[..found.position].to_vec(),
            links: way.iter().map(link).collect(),
            left: Left {
                pages: self.caches.read_all(&self.device, &pages)?,
                overlays: self.caches.read_all(&self.device, &overlays)?,
            },
        })
    }

    /// Puts a text among those that are kept, as if the slot, which no request has, had served it.
    pub(in crate::engine) fn restore_slot(&mut self, slot: usize, text: SlotText) -> Result<()> {
        self.held[slot] = None;
        let restored = self.restore(slot, &text);
        self.clear(slot);
        restored?;
        self.held[slot] = Some(Held {
            kin: text.kin,
            prompt: text.tokens.len(),
            tokens: text.tokens,
        });
        let whole = self.held[slot].as_ref().map(|held| held.tokens.len());
        match self.place_of(slot) {
            Some((_, found)) if Some(found.position) == whole => Ok(()),
            _ => {
                self.held[slot] = None;
                Err(refused(
                    slot,
                    "there is no room for what the text's caches have beside their codes: start the server with more --kv-memory",
                ))
            }
        }
    }

    fn restore(&mut self, slot: usize, text: &SlotText) -> Result<()> {
        let tokens = text.tokens.len();
        if tokens >= self.context {
            let context = self.context;
            let needed = tokens + 1;
            return Err(Error::ContextFull { needed, context });
        }
        let chunk = self.chunk;
        let is_long = |link: &&Link| link.reading == Reading::CodesAndFresh && link.tokens > chunk;
        if let Some(link) = text.links.iter().find(is_long) {
            let read = link.tokens;
            return Err(refused(
                slot,
                format_args!(
                    "the text was read in chunks of {read} tokens, and this engine reads {chunk} at once: start it with a larger context"
                ),
            ));
        }
        let Some(prefixes) = &mut self.prefixes else {
            return Err(refused(slot, "this engine keeps no texts"));
        };
        let groups = &mut self.caches.pool.groups;
        let mut pages = Vec::new();
        for index in 0..groups.len() {
            let seen = groups[index].pages.seen(tokens);
            prefixes.make_room(groups, index, seen.len(), u64::MAX);
            let group = &mut groups[index].pages;
            if group.free() < seen.len() {
                let (needed, free) = (seen.len(), group.free());
                return Err(refused(
                    slot,
                    format_args!(
                        "its text needs {needed} pages, and others have all but {free}: come again when less is being served"
                    ),
                ));
            }
            pages.push(group.hold(slot, seen));
        }
        let pieces = self.caches.pool.pieces(&pages, tokens)?;
        let copies = text.links.iter().filter(|link| link.overlay).count();
        let overlay_bytes = self.caches.overlay_bytes(slot)?;
        if !self.caches.fits(&pieces, &text.left.pages)
            || text.left.overlays.len() != copies * overlay_bytes
        {
            return Err(refused(
                slot,
                "what was saved has not the size that this engine keeps texts in: save it anew",
            ));
        }
        self.caches
            .write_all(&self.device, pieces, &text.left.pages)?;
        let mut overlays = text.left.overlays.chunks_exact(overlay_bytes.max(1));
        let mut parent = prefixes.root(&text.kin);
        let mut start = 0;
        for link in &text.links {
            let positions = start..start + link.tokens;
            start = positions.end;
            let mut checkpoint = None;
            if link.overlay
                && let Some(bytes) = overlays.next()
                && let Some(copy) = prefixes.take_checkpoint()
            {
                let pieces = self.caches.overlays_of_copy(copy)?;
                self.caches.write_all(&self.device, pieces, bytes)?;
                checkpoint = Some(copy);
            }
            let groups = &mut self.caches.pool.groups;
            let pages_of = |group: &crate::pages::Group| group.pages.pages_of(slot, &positions);
            let kept = Kept {
                reading: link.reading,
                tokens: text.tokens[positions.clone()].to_vec(),
                pages: groups.iter().map(pages_of).collect(),
                checkpoint,
            };
            let Some(node) = prefixes.insert(parent, kept, groups) else {
                return Err(refused(
                    slot,
                    "its text was lost again, which is a fault of Walsh",
                ));
            };
            parent = node;
        }
        Ok(())
    }

    /// Forgets the text that a slot had last, and gives up what only that has left behind; how many tokens that are.
    pub(in crate::engine) fn erase_slot(&mut self, slot: usize) -> usize {
        let found = self.place_of(slot).map(|(_, found)| found);
        self.held[slot] = None;
        let others = (0..self.held.len()).filter_map(|other| Some(self.place_of(other)?.1.node));
        let others: Vec<_> = others.collect();
        let groups = &mut self.caches.pool.groups;
        match (&mut self.prefixes, found) {
            (Some(prefixes), Some(found)) => prefixes.erase(&found, &others, groups),
            _ => 0,
        }
    }
}

fn refused(slot: usize, what: impl ToString) -> Error {
    let what = what.to_string();
    Error::Slot { slot, what }
}
