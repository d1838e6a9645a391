//! Sums of several steps in words.

use walsh::formats::random::SplitMix64;

use super::case::Case;
use super::words::THINGS;
use crate::fidelity::answer::Expected;

const CONTAINERS: [&str; 6] = ["box", "basket", "drawer", "crate", "jar", "chest"];

/// One example, so that a small model knows what is wanted, and answers are short.
const EXAMPLE: &str = "Write the solution of the second problem in one line, exactly in the form of the first one, with no other \
    words.\n\n\
    Problem: A bag holds 14 stones. First 9 more are put in. Then 6 are taken out. Then the number of stones is doubled. \
    How many stones are there in the end?\n\
    Solution: 14 + 9 = 23. 23 - 6 = 17. 17 * 2 = 34. The answer is 34.\n\n";

/// Enough for the longest solution in the form of the example, and a few words around it.
const MOST_TOKENS: usize = 80;

/// What is doubled makes no larger number.
const LARGEST: u64 = 150;

/// A sum of three or four steps.
pub(super) fn sum(random: &mut SplitMix64) -> Case {
    let (container, thing) = (random.pick(&CONTAINERS), random.pick(&THINGS));
    let mut total = between(random, 5, 40);
    let mut problem = format!("A {container} holds {total} {thing}.");
    for step in 0..between(random, 3, 4) {
        let (sentence, after) = next(random, total, thing);
        let then = if step == 0 { "First" } else { "Then" };
        problem += &format!(" {then} {sentence}.");
        total = after;
    }
    Case {
        question: format!(
            "{EXAMPLE}Problem: {problem} How many {thing} are there in the end?\nSolution:"
        ),
        cue: "",
        expected: Expected::Number(total.to_string()),
        most_tokens: MOST_TOKENS,
    }
}

/// A step that `total` allows, and what there is behind it.
fn next(random: &mut SplitMix64, total: u64, thing: &str) -> (String, u64) {
    match random.below(4) {
        0 if total >= 10 => {
            let taken = between(random, 2, total - 5);
            (format!("{taken} are taken out"), total - taken)
        }
        1 if 2 * total <= LARGEST => (format!("the number of {thing} is doubled"), 2 * total),
        2 if total.is_multiple_of(2) && total >= 10 => {
            (format!("half of the {thing} are taken out"), total / 2)
        }
        _ => {
            let more = between(random, 2, 30);
            (format!("{more} more are put in"), total + more)
        }
    }
}

/// A number from `least` to `most`.
fn between(random: &mut SplitMix64, least: u64, most: u64) -> u64 {
    least + random.below((most - least + 1) as usize) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Solves a problem from its words.
    fn solved(problem: &str) -> u64 {
        let mut total = 0;
        for sentence in problem.split_inclusive(['.', '?']) {
            let number = sentence
                .split(' ')
                .find_map(|word| word.parse::<u64>().ok());
            match number {
                Some(first) if sentence.contains("holds") => total = first,
                Some(more) if sentence.contains("put in") => total += more,
                Some(taken) if sentence.contains("taken out") => total -= taken,
                None if sentence.contains("doubled") => total *= 2,
                None if sentence.contains("half") => total /= 2,
                None => assert!(sentence.contains("How many"), "{sentence}"),
                Some(_) => panic!("{sentence}"),
            }
        }
        total
    }

    #[test]
    fn the_expected_number_is_what_the_words_say() {
        let mut random = SplitMix64(5);
        for _ in 0..500 {
            let case = sum(&mut random);
            let problem = case.question.rsplit("Problem: ").next().expect("a problem");
            let problem = problem.strip_suffix("\nSolution:").expect("the cue");
            let expected = Expected::Number(solved(problem).to_string());
            assert_eq!(case.expected, expected, "{problem}");
        }
    }
}
