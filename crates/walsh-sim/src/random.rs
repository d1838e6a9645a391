use walsh_formats::random::SplitMix64;

/// Puts items in some order.
pub(crate) fn shuffle<T>(items: &mut [T], random: &mut SplitMix64) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

/// Numbers below `count` in an order of their own, each once, with none of them stored.
#[derive(Debug)]
pub(crate) struct Permutation {
    count: u64,
    step: u64,
    next: u64,
    left: u64,
}

impl Permutation {
    pub(crate) fn new(count: u64, random: &mut SplitMix64) -> Self {
        let mut step = 1;
        for _ in 0..16 {
            let candidate = 1 + random.bits() % count.max(1);
            if common_divisor(candidate, count) == 1 {
                step = candidate;
                break;
            }
        }
        Self {
            count,
            step,
            next: random.bits() % count.max(1),
            left: count,
        }
    }
}

impl Iterator for Permutation {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let given = self.next;
        self.next = ((u128::from(given) + u128::from(self.step)) % u128::from(self.count)) as u64;
        Some(given)
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut random = SplitMix64(7);
        let mut orders = std::collections::HashSet::new();
        for count in [0, 1, 2, 3, 12, 97, 1000] {
            for _ in 0..8 {
                let order: Vec<u64> = Permutation::new(count, &mut random).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..count).collect::<Vec<_>>());
                orders.insert(order);
            }
        }
        assert!(orders.len() > 20);
    }
}
