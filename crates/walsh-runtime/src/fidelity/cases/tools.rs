//! Requests for which a tool has to be called, in JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use walsh::formats::random::SplitMix64;

use super::case::Case;
use super::words::{NAMES, TOWNS};
use crate::fidelity::answer::{Call, Expected};

/// How many tools can be chosen from, beside that of the example.
const OFFERED: usize = 3;

/// Enough for the longest call, and for the marks of a block of code around it.
const MOST_TOKENS: usize = 80;

/// What an argument can be.
enum Kind {
    Town,
    Name,
    /// From the first to the second.
    Number(usize, usize),
    Word(&'static [&'static str]),
}

/// A tool, with its parameters and ways to ask for it, which have those between braces.
struct Tool {
    name: &'static str,
    about: &'static str,
    parameters: &'static [(&'static str, Kind)],
    requests: &'static [&'static str],
}

const DISHES: &[&str] = &["pancakes", "lentil soup", "apple pie", "fried rice"];
const CURRENCIES: &[&str] = &["USD", "EUR", "GBP", "JPY"];
const INTO: &[&str] = &["CHF", "SEK", "NOK", "CAD"];
const ROOMS: &[&str] = &["kitchen", "bedroom", "office", "bathroom"];
const MUSIC: &[&str] = &["jazz", "blues", "folk", "techno"];
const MESSAGES: &[&str] = &[
    "I will be late",
    "the parcel is here",
    "dinner is ready",
    "the meeting is over",
];

const TOOLS: [Tool; 8] = [
    Tool {
        name: "get_weather",
        about: "the weather forecast of a city",
        parameters: &[("city", Kind::Town), ("days", Kind::Number(2, 9))],
        requests: &[
            "What will the weather be like in {city} for the next {days} days?",
            "I need the forecast of {days} days for {city}.",
        ],
    },
    Tool {
        name: "set_timer",
        about: "start a timer for something",
        parameters: &[
            ("minutes", Kind::Number(3, 59)),
            ("label", Kind::Word(DISHES)),
        ],
        requests: &[
            "Start a timer of {minutes} minutes for the {label}.",
            "The {label} must not burn: remind me in {minutes} minutes.",
        ],
    },
    Tool {
        name: "convert_currency",
        about: "convert an amount of money",
        parameters: &[
            ("amount", Kind::Number(20, 950)),
            ("from", Kind::Word(CURRENCIES)),
            ("to", Kind::Word(INTO)),
        ],
        requests: &[
            "How much is {amount} {from} in {to}?",
            "Convert {amount} {from} to {to}.",
        ],
    },
    Tool {
        name: "book_table",
        about: "book a table in a restaurant",
        parameters: &[
            ("city", Kind::Town),
            ("people", Kind::Number(2, 8)),
            ("hour", Kind::Number(17, 22)),
        ],
        requests: &[
            "Book a table for {people} people in {city} at {hour} o'clock.",
            "There are {people} of us and we want to eat in {city} at {hour} o'clock. Get us a table.",
        ],
    },
    Tool {
        name: "send_message",
        about: "send a text message to a person",
        parameters: &[("to", Kind::Name), ("text", Kind::Word(MESSAGES))],
        requests: &["Send {to} this message: {text}", "Write to {to}: {text}"],
    },
    Tool {
        name: "play_music",
        about: "play music of a genre in a room",
        parameters: &[
            ("genre", Kind::Word(MUSIC)),
            ("room", Kind::Word(ROOMS)),
            ("volume", Kind::Number(1, 10)),
        ],
        requests: &[
            "Play {genre} in the {room} at volume {volume}.",
            "I would like to hear {genre} in the {room}, volume {volume}.",
        ],
    },
    Tool {
        name: "set_temperature",
        about: "set the temperature of a room",
        parameters: &[
            ("room", Kind::Word(ROOMS)),
            ("degrees", Kind::Number(15, 26)),
        ],
        requests: &[
            "Make it {degrees} degrees in the {room}.",
            "The {room} should have {degrees} degrees.",
        ],
    },
    Tool {
        name: "find_train",
        about: "find a train between two cities",
        parameters: &[
            ("from", Kind::Town),
            ("to", Kind::Town),
            ("hour", Kind::Number(5, 21)),
        ],
        requests: &[
            "Which train goes from {from} to {to} at {hour} o'clock?",
            "I have to be on a train from {from} to {to} at {hour} o'clock. Find one.",
        ],
    },
];

impl Tool {
    /// The tool as a line of JSON.
    fn schema(&self) -> String {
        let parameter = |(name, kind): &(&str, Kind)| {
            let of = match kind {
                Kind::Number(..) => "integer",
                _ => "string",
            };
            format!("{}: {}", json!(name), json!(of))
        };
        let parameters: Vec<String> = self.parameters.iter().map(parameter).collect();
        format!(
            "{{\"name\": {}, \"description\": {}, \"parameters\": {{{}}}}}",
            json!(self.name),
            json!(self.about),
            parameters.join(", ")
        )
    }
}

/// A request for one of some tools.
pub(super) fn call(random: &mut SplitMix64) -> Case {
    let mut tools: Vec<&Tool> = TOOLS.iter().collect();
    let offered: Vec<&Tool> = (0..OFFERED)
        .map(|_| tools.swap_remove(random.below(tools.len())))
        .collect();
    let tool = random.pick(&offered);
    let mut request = (*random.pick(tool.requests)).to_owned();
    let mut arguments = BTreeMap::new();
    for (name, kind) in tool.parameters {
        let mut value = argument(random, kind);
        // No train goes from a town to itself.
        while arguments.values().any(|other| *other == value) {
            value = argument(random, kind);
        }
        let shown = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        request = request.replace(&format!("{{{name}}}"), &shown);
        arguments.insert((*name).to_owned(), value);
    }
    let schemas: Vec<String> = offered.iter().map(|tool| tool.schema()).collect();
    Case {
        question: format!(
            "You can call these tools:\n\
             {{\"name\": \"turn_on_light\", \"description\": \"turn on the light in a room\", \"parameters\": {{\"room\": \"string\"}}}}\n\
             {}\n\n\
             Answer each request with the JSON of one call and nothing else.\n\n\
             Request: Turn on the light in the hall.\n\
             Call: {{\"name\": \"turn_on_light\", \"arguments\": {{\"room\": \"hall\"}}}}\n\n\
             Request: {request}\nCall:",
            schemas.join("\n")
        ),
        cue: "",
        expected: Expected::Call(Call {
            name: tool.name.to_owned(),
            arguments,
        }),
        most_tokens: MOST_TOKENS,
    }
}

fn argument(random: &mut SplitMix64, kind: &Kind) -> Value {
    match kind {
        Kind::Town => json!(random.pick(&TOWNS)),
        Kind::Name => json!(random.pick(&NAMES)),
        Kind::Number(least, most) => json!(least + random.below(most - least + 1)),
        Kind::Word(words) => json!(random.pick(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_all_arguments_of_a_tool_that_is_offered() {
        let mut random = SplitMix64(3);
        for _ in 0..300 {
            let case = call(&mut random);
            let Expected::Call(call) = &case.expected else {
                panic!("{:?}", case.expected);
            };
            let request = case.question.rsplit("Request: ").next().expect("a request");
            assert!(
                !request.contains('{') && !request.contains('}'),
                "{request}"
            );
            for value in call.arguments.values() {
                let shown = value.to_string();
                assert!(
                    request.contains(shown.trim_matches('"')),
                    "{request} {shown}"
                );
            }
            let schema = |line: &str| serde_json::from_str::<Value>(line).expect("a schema");
            let lines = case.question.lines().filter(|line| line.starts_with('{'));
            let schemas: Vec<Value> = lines.map(schema).collect();
            assert_eq!(schemas.len(), 1 + OFFERED);
            let own = schemas
                .iter()
                .find(|tool| tool["name"] == call.name.as_str());
            let parameters = own.expect("offered")["parameters"]
                .as_object()
                .expect("parameters");
            let names = call.arguments.keys();
            assert_eq!(parameters.len(), names.len());
            for name in names {
                let is_number = call.arguments[name].is_u64();
                assert_eq!(parameters[name] == "integer", is_number, "{name}");
            }
        }
    }
}
