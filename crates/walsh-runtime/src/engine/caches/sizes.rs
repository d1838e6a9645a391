//! How a number of bytes is divided among pages of all kinds of layers and copies of overlays.

use walsh::LayerKv;

use super::super::options::EngineOptions;
use crate::pages::{GroupSize, Layers};
use crate::{Model, Result};

/// What caches of an engine consist of, however many pages they have.
#[derive(Debug)]
pub(in crate::engine) struct Sizes {
    pub(in crate::engine) groups: Vec<GroupSize>,
    /// Bytes of a sequence's overlays and states; `None` where there are none.
    overlay: Option<u64>,
    sequences: usize,
    /// Where copies of overlays are kept: how many times as much pages have.
    share: Option<u64>,
}

/// Caches of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Plan {
    /// Of each group.
    pub(in crate::engine) pages: Vec<usize>,
    /// How many copies of overlays; `None` where there are no overlays.
    pub(in crate::engine) copies: Option<usize>,
}

impl Sizes {
    pub(in crate::engine) fn new(model: &Model, options: &EngineOptions) -> Result<Self> {
        let specs: Vec<LayerKv> = model.layer_specs(&options.kv)?;
        let layers = Layers {
            model,
            specs: &specs,
            options: &options.of_each(),
        };
        let groups = layers.groups()?;
        let overlay = layers.overlay_bytes()?;
        // Pages behind which no state is kept are of no use to others: states have as much as they.
        let share = match model.config().recurrent {
            Some(_) => 1,
            None => 4,
        };
        Ok(Self {
            groups,
            overlay,
            sequences: options.sequences,
            share: (overlay.is_some() && options.keep_prefixes).then_some(share),
        })
    }

    /// What is there whatever the number of pages: the overlays of all sequences.
    fn fixed(&self) -> u64 {
        self.sequences as u64 * self.overlay.unwrap_or(0)
    }

    /// The pages of one sequence.
    fn pages_of_one(&self) -> u64 {
        let all = |group: &GroupSize| group.page_bytes * group.least as u64;
        self.groups.iter().map(all).sum()
    }

    fn with_copies(&self, pages: u64) -> u64 {
        pages + self.share.map_or(0, |share| pages / share)
    }

    /// The least, with which one sequence can be served.
    pub(in crate::engine) fn one(&self) -> u64 {
        self.fixed() + self.pages_of_one()
    }

    /// As much as all sequences can use.
    pub(in crate::engine) fn full(&self) -> u64 {
        self.fixed() + self.with_copies(self.sequences as u64 * self.pages_of_one())
    }

    /// Divides so many bytes, at least those for [`one`](Self::one): overlays have what all sequences need, pages what is left or
    /// as much as they can use, and copies of overlays up to a quarter of that, or where layers keep a state as much again.
    pub(in crate::engine) fn plan(&self, bytes: u64) -> Plan {
        let pages_of_one = self.pages_of_one();
        let room = bytes.min(self.full()).saturating_sub(self.fixed());
        let for_pages = match self.share {
            Some(share) => (room / (share + 1) * share).max(pages_of_one),
            None => room,
        };
        // Every group gets the same part of what it could use, and room for one sequence at least.
        let all = u128::from(self.sequences as u64 * pages_of_one).max(1);
        let part = |group: &GroupSize| {
            let most = group.least * self.sequences;
            let pages = most as u128 * u128::from(for_pages) / all;
            (pages as usize).clamp(group.least, most)
        };
        let pages: Vec<usize> = self.groups.iter().map(part).collect();
        let copies = self.overlay.map(|overlay| {
            let copies = room.saturating_sub(self.page_bytes(&pages)) / overlay.max(1);
            let most = pages.iter().sum::<usize>();
            (copies as usize).min(self.share.map_or(0, |_| most))
        });
        Plan { pages, copies }
    }

    fn page_bytes(&self, pages: &[usize]) -> u64 {
        let groups = self.groups.iter().zip(pages);
        groups.map(|(g, pages)| g.page_bytes * *pages as u64).sum()
    }

    /// The bytes of a plan.
    pub(in crate::engine) fn bytes(&self, plan: &Plan) -> u64 {
        let copies = plan.copies.unwrap_or(0) as u64 * self.overlay.unwrap_or(0);
        self.fixed() + self.page_bytes(&plan.pages) + copies
    }

    /// Divides so many bytes where groups have so many pages at least; `None` where they cannot have those.
    pub(in crate::engine) fn plan_with(&self, bytes: u64, least: &[usize]) -> Option<Plan> {
        let mut nominal = bytes.min(self.full());
        loop {
            let mut plan = self.plan(nominal);
            for (pages, least) in plan.pages.iter_mut().zip(least) {
                *pages = (*pages).max(*least);
            }
            let over = self.bytes(&plan).saturating_sub(bytes);
            if over == 0 {
                return Some(plan);
            }
            if nominal <= self.one() {
                return None;
            }
            // Less for those that can do with less.
            nominal = (nominal - over.max(nominal / 64).min(nominal)).max(self.one());
        }
    }

    /// The same where more bytes are taken if they have to be, and no more than that.
    pub(in crate::engine) fn plan_near(&self, bytes: u64, least: &[usize]) -> Plan {
        let bytes = bytes.max(self.one());
        self.plan_with(bytes, least).unwrap_or_else(|| {
            let mut plan = self.plan(self.one());
            for (pages, least) in plan.pages.iter_mut().zip(least) {
                *pages = (*pages).max(*least);
            }
            plan
        })
    }

    /// How many bytes there have to be for groups to have so many pages each.
    pub(in crate::engine) fn bytes_for(&self, pages: &[usize]) -> u64 {
        let part = |(group, pages): (&GroupSize, &usize)| {
            let pages = u128::from(self.pages_of_one()) * *pages as u128;
            pages.div_ceil(group.least.max(1) as u128) as u64
        };
        let for_pages = self.groups.iter().zip(pages).map(part).max().unwrap_or(0);
        // What is lost where numbers do not divide evenly.
        let rounding = self.share.map_or(0, |share| 2 * (share + 1));
        self.fixed() + self.with_copies(for_pages) + rounding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(overlay: Option<u64>, share: Option<u64>) -> Sizes {
        let group = |window, page_bytes, least| GroupSize {
            window,
            page_bytes,
            least,
        };
        Sizes {
            groups: vec![group(None, 1000, 20), group(Some(70), 3000, 3)],
            overlay,
            sequences: 4,
            share,
        }
    }

    #[test]
    fn a_plan_takes_no_more_than_its_bytes() {
        for sizes in [
            sizes(None, None),
            sizes(Some(700), None),
            sizes(Some(700), Some(4)),
            sizes(Some(9000), Some(1)),
        ] {
            let (one, full) = (sizes.one(), sizes.full());
            for bytes in (one..full + 5000).step_by(777) {
                let plan = sizes.plan(bytes);
                assert!(sizes.bytes(&plan) <= bytes, "{bytes} {plan:?} {sizes:?}");
                assert!(plan.pages[0] >= 20 && plan.pages[1] >= 3);
                assert_eq!(sizes.plan_with(bytes, &[0, 0]), Some(plan.clone()));
                for more in [[1, 0], [0, 1], [2, 1]] {
                    let wanted = [plan.pages[0] + more[0], plan.pages[1] + more[1]];
                    if wanted[0] <= 80 && wanted[1] <= 12 {
                        let found = sizes.plan(sizes.bytes_for(&wanted));
                        let has = found.pages.iter().zip(&wanted).all(|(a, b)| a >= b);
                        assert!(has, "{wanted:?} {found:?} {sizes:?}");
                    }
                }
            }
            assert_eq!(sizes.plan(full).pages, [80, 12]);
            assert_eq!(sizes.plan(one).pages, [20, 3]);
        }
    }

    #[test]
    fn who_has_pages_keeps_them_and_others_have_less() {
        let sizes = sizes(Some(700), Some(4));
        let bytes = sizes.one() + 30_000;
        let even = sizes.plan(bytes);
        let plan = sizes.plan_with(bytes, &[20, 11]).expect("a plan");
        assert!(
            plan.pages[1] == 11 && plan.pages[0] < even.pages[0],
            "{plan:?}"
        );
        assert!(sizes.bytes(&plan) <= bytes);
        assert_eq!(sizes.plan_with(sizes.one(), &[21, 3]), None);
    }
}
