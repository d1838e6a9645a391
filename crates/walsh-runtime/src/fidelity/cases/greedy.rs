//! Requests that are answered at length.

use walsh::formats::random::SplitMix64;

use super::case::Case;
use crate::fidelity::answer::Expected;

/// A request has one topic in place of `{}`, or two.
const REQUESTS: [&str; 10] = [
    "Explain in a few sentences how {} works.",
    "Write a short story about {} and {}.",
    "What should a beginner know about {}?",
    "What do {} and {} have in common?",
    "Describe {} in simple words.",
    "Give five tips for a school project about {}.",
    "Why do people argue about {} and {}?",
    "Write a letter in which {} is mentioned.",
    "How did {} change the way people live?",
    "Make a plan for a day that has to do with {} and {}.",
];

const READERS: [&str; 12] = [
    "a child of ten",
    "a retired engineer",
    "a tourist",
    "a farmer",
    "a class of students",
    "a journalist",
    "my grandmother",
    "a nurse",
    "somebody in a hurry",
    "a new neighbour",
    "a sailor",
    "a museum",
];

const TOPICS: [&str; 32] = [
    "a water mill",
    "a lighthouse",
    "the printing press",
    "a compass",
    "baking bread",
    "a suspension bridge",
    "beekeeping",
    "the tides",
    "a steam engine",
    "public libraries",
    "a telescope",
    "growing tomatoes",
    "the postal service",
    "a symphony orchestra",
    "volcanoes",
    "the metric system",
    "a bicycle",
    "sailing",
    "the stock market",
    "photosynthesis",
    "a radio",
    "chess",
    "the Silk Road",
    "vaccination",
    "a refrigerator",
    "river deltas",
    "pottery",
    "the moon",
    "electric trains",
    "bird migration",
    "an elevator",
    "coral reefs",
];

/// A request, answered in at most `tokens` tokens.
pub(super) fn greedy(random: &mut SplitMix64, index: usize, tokens: usize) -> Case {
    let mut question = REQUESTS[index % REQUESTS.len()].to_owned();
    let first = random.below(TOPICS.len());
    let second = (first + 1 + random.below(TOPICS.len() - 1)) % TOPICS.len();
    for topic in [first, second] {
        question = question.replacen("{}", TOPICS[topic], 1);
    }
    question += &format!(" Write for {}.", random.pick(&READERS));
    Case {
        question,
        cue: "\n\nAnswer:",
        expected: Expected::Anything,
        most_tokens: tokens,
    }
}
