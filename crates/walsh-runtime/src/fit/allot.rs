//! Which side of which layer gets how many bits.

use walsh::formats::codebook::{TqBits, codebook};

/// The widths that sides are kept in, ascending by single bits.
pub(super) const WIDTHS: [TqBits; 5] = [TqBits::B2, TqBits::B3, TqBits::B4, TqBits::B5, TqBits::B6];

/// How the loss of a side falls with a bit more. Were errors of coordinates and layers independent, it would be in proportion
/// to the mean squared error, a factor of 3.5 a bit. What is fitted loses least where a bit is taken to be worth a factor of
/// 5 to 13 (docs/book/src/kv.md), which evens bits out: errors of layers add up, and a sensitivity is measured on few tokens.
fn loss(bits: TqBits) -> f64 {
    codebook(bits).mean_squared_error().powf(1.6)
}

/// Gives each side of a model so many bits that they have `average` each at most. A side's sensitivity is the loss that it
/// causes at the least width; at others it is taken to follow the codebook's error ([`loss`]), and the
/// losses of sides to add up. Each bit goes where it saves most, which is the best that whole bits can do, since what a
/// further one saves gets less and less.
pub(super) fn allot(sensitivities: &[f64], average: f64) -> Vec<TqBits> {
    let errors = WIDTHS.map(loss);
    let saved: Vec<f64> = errors.windows(2).map(|pair| pair[0] - pair[1]).collect();
    let mut widths = vec![0; sensitivities.len()];
    let spare = (average - WIDTHS[0].get() as f64) * sensitivities.len() as f64;
    // A tenth of a bit has no exact form: what is a whole number but for rounding counts as one.
    for _ in 0..(spare + 1e-6) as usize {
        let gain = |side: usize| {
            saved
                .get(widths[side])
                .map(|saved| sensitivities[side] * saved)
        };
        let open = (0..widths.len()).filter_map(|side| Some((gain(side)?, side)));
        // Of equals the first, as in a model that nothing harms.
        let Some((_, best)) = open.rev().max_by(|a, b| a.0.total_cmp(&b.0)) else {
            break;
        };
        widths[best] += 1;
    }
    widths.into_iter().map(|width| WIDTHS[width]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(sensitivities: &[f64], average: f64) -> Vec<usize> {
        let widths = allot(sensitivities, average);
        widths.into_iter().map(TqBits::get).collect()
    }

    /// The loss that the rule takes a distribution of bits to have.
    fn whole(sensitivities: &[f64], widths: &[TqBits]) -> f64 {
        let sides = sensitivities.iter().zip(widths);
        sides.map(|(s, bits)| s * loss(*bits)).sum()
    }

    #[test]
    fn equals_get_the_same() {
        for (average, width) in [(2.0, 2), (3.0, 3), (4.0, 4), (5.0, 5), (6.0, 6)] {
            assert_eq!(bits(&[0.3; 8], average), [width; 8]);
        }
        assert_eq!(bits(&[0.0; 4], 2.5), [4, 2, 2, 2]);
    }

    #[test]
    fn a_budget_is_used_up_and_not_passed() {
        let sides: Vec<f64> = (0..20).map(|side| 1.3f64.powi(side)).collect();
        for tenths in 20..=60 {
            let average = f64::from(tenths) / 10.0;
            let sum: usize = bits(&sides, average).iter().sum();
            assert_eq!(sum, 2 * tenths as usize, "{average}");
        }
        assert_eq!(bits(&sides[..3], 2.5).iter().sum::<usize>(), 7);
        assert_eq!(bits(&[], 3.0), [0usize; 0]);
    }

    #[test]
    fn what_is_sensitive_gets_more() {
        // A bit takes six sevenths of the loss away: what has sixteen times the loss gets the second one as well.
        assert_eq!(bits(&[16.0, 1.0], 3.0), [4, 2]);
        assert_eq!(bits(&[1.0, 1e9], 3.0), [2, 4]);
        assert_eq!(bits(&[1.0, 1e9, 1.0], 3.5), [2, 6, 2]);
        assert_eq!(bits(&[1e9, 0.0], 5.0), [6, 4]);
    }

    #[test]
    fn no_other_distribution_of_as_many_bits_loses_less() {
        let sides = [0.7, 11.0, 2.2, 0.05];
        for total in 8..=24 {
            let got = allot(&sides, f64::from(total) / 4.0);
            let best = (0..WIDTHS.len().pow(4))
                .map(|code| [1, 5, 25, 125].map(|unit| WIDTHS[code / unit % 5]))
                .filter(|widths| {
                    widths.iter().map(|bits| bits.get()).sum::<usize>() == total as usize
                })
                .map(|widths| whole(&sides, &widths))
                .fold(f64::INFINITY, f64::min);
            assert!(whole(&sides, &got) <= best * (1.0 + 1e-12), "{total} bits");
        }
    }
}
