//! A number that stands somewhere in a long text.

use walsh::formats::random::SplitMix64;

use super::case::{Case, Measure};
use super::words::{FAMILIES, NAMES, THINGS, TOWNS};
use crate::Result;
use crate::fidelity::answer::Expected;

/// Enough for a sentence with the number.
const MOST_TOKENS: usize = 24;

/// The number stands at as many depths, one question after the other.
const DEPTHS: usize = 10;

/// Sentences of a paragraph.
const PARAGRAPH: usize = 8;

const WHEN: [&str; 10] = [
    "In the morning",
    "After lunch",
    "On the way home",
    "Before the rain came",
    "As on every other day",
    "Some time later",
    "While the others slept",
    "At the end of the week",
    "Without saying much",
    "To everybody's surprise",
];

const DID: [&str; 12] = [
    "walked along the river with",
    "wrote a long letter to",
    "played cards against",
    "waited at the station for",
    "cooked a soup for",
    "looked for the keys of",
    "painted the fence of",
    "told an old joke to",
    "sold some of the apples to",
    "asked for the name of",
    "carried the bags of",
    "sang a song for",
];

const AND: [&str; 10] = [
    "and the weather stayed fine",
    "and nobody noticed",
    "although it was getting late",
    "and then went back to work",
    "because the shop was closed",
    "and the dog came along",
    "until the lamps were lit",
    "as if nothing had happened",
    "and they talked about the harvest",
    "though the road was wet",
];

/// A sentence about nothing that is asked for. It has no number in it.
fn filler(random: &mut SplitMix64) -> String {
    let (when, name, did) = (random.pick(&WHEN), random.pick(&NAMES), random.pick(&DID));
    let (other, and) = (random.pick(&NAMES), random.pick(&AND));
    match random.below(3) {
        0 => format!("{when}, {name} {did} {other}, {and}."),
        1 => {
            let (thing, town) = (random.pick(&THINGS), random.pick(&TOWNS));
            format!("{name} {did} {other} and spoke of the {thing} from {town}, {and}.")
        }
        _ => {
            let town = random.pick(&TOWNS);
            format!("{when}, a stranger from {town} {did} {name}, {and}.")
        }
    }
}

/// A question that is about as long as `length` tokens allow together with its answer, and not longer.
pub(super) fn recall(
    random: &mut SplitMix64,
    index: usize,
    length: usize,
    measure: &Measure<'_>,
) -> Result<Case> {
    let who = format!("{} {}", random.pick(&NAMES), random.pick(&FAMILIES));
    let number = (10_000 + random.below(90_000)).to_string();
    let depth = (2 * (index % DEPTHS) + 1) as f64 / (2 * DEPTHS) as f64;
    let case = |sentences: &[String]| Case {
        question: question(sentences, &who, &number, depth),
        cue: "\nAnswer:",
        expected: Expected::Mention(number.clone()),
        most_tokens: MOST_TOKENS,
    };
    // A text of a few dozen sentences says how many fill the length, but for some too many that are cut off again.
    const SAMPLE: usize = 64;
    let mut sentences: Vec<String> = (0..SAMPLE).map(|_| filler(random)).collect();
    let (bare, sample) = (measure(&case(&[]))?, measure(&case(&sentences))?);
    let each = (sample - bare.min(sample)).max(SAMPLE) / SAMPLE;
    let room = length.saturating_sub(bare + MOST_TOKENS);
    sentences.resize_with(room.div_ceil(each), || filler(random));
    loop {
        let case = case(&sentences);
        let over = (measure(&case)? + MOST_TOKENS).saturating_sub(length);
        if over == 0 || sentences.is_empty() {
            return Ok(case);
        }
        let kept = sentences.len().saturating_sub(over.div_ceil(2 * each));
        sentences.truncate(kept);
    }
}

/// A text of these sentences with the number at a depth from 0, its beginning, to 1, and what is asked behind it.
fn question(sentences: &[String], who: &str, number: &str, depth: f64) -> String {
    let at = (depth * sentences.len() as f64) as usize;
    let fact = format!("The locker number of {who} is {number}.");
    let (before, behind) = sentences.split_at(at);
    let all = before.iter().chain([&fact]).chain(behind);
    let mut text = String::new();
    for (index, sentence) in all.enumerate() {
        text += match index {
            0 => "",
            index if index % PARAGRAPH == 0 => "\n\n",
            _ => " ",
        };
        text += sentence;
    }
    format!(
        "Read this text. A locker number is hidden in it, and you will be asked for it.\n\n{text}\n\n\
         What is the locker number of {who}? Answer with the number alone."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_fills_the_length_and_has_the_number_once_at_its_depth() {
        let words = |case: &Case| Ok(case.question.split_whitespace().count());
        for (index, length) in [(0, 300), (4, 2048), (9, 8192)] {
            let mut random = SplitMix64(index as u64);
            let case = recall(&mut random, index, length, &words).expect("a question");
            let filled = words(&case).expect("a number") + MOST_TOKENS;
            assert!(
                (length - length / 10..=length).contains(&filled),
                "{filled}"
            );
            let Expected::Mention(number) = &case.expected else {
                panic!("{:?}", case.expected);
            };
            assert_eq!(case.question.matches(number.as_str()).count(), 1);
            let digits = case.question.matches(|c: char| c.is_ascii_digit()).count();
            assert_eq!(digits, number.len());
            let at = case.question.find(number.as_str()).expect("there");
            let depth = at as f64 / case.question.len() as f64;
            let wanted = (2 * index + 1) as f64 / 20.0;
            assert!((depth - wanted).abs() < 0.15, "{depth} {wanted}");
        }
    }

    #[test]
    fn a_length_that_nothing_fits_into_gives_the_question_alone() {
        let words = |case: &Case| Ok(case.question.split_whitespace().count());
        let case = recall(&mut SplitMix64(1), 0, 10, &words).expect("a question");
        assert!(case.question.contains("locker number of"));
        assert!(words(&case).expect("a number") < 60);
    }
}
