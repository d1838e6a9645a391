//! What an answer says, and whether that is right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a right answer says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    /// There is no right and wrong.
    Anything,
    /// This number somewhere.
    Mention(String),
    /// This number as the last one.
    Number(String),
    /// This call as the first object of JSON.
    Call(Call),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: BTreeMap<String, Value>,
}

/// What an answer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) right: bool,
    /// What was found in it: a number or a call.
    pub(super) found: Option<String>,
}

impl Expected {
    /// What an answer comes to; `None` where there is no right and wrong.
    pub(super) fn judge(&self, answer: &str) -> Option<Verdict> {
        let found = match self {
            Self::Anything => return None,
            Self::Mention(number) => {
                let numbers = numbers(answer);
                let mentioned = numbers.iter().find(|found| *found == number);
                mentioned.or(numbers.first()).cloned()
            }
            Self::Number(_) => numbers(answer).pop(),
            Self::Call(_) => call(answer).and_then(|call| call.text()),
        };
        let right = match self {
            Self::Anything => None,
            Self::Mention(number) | Self::Number(number) => Some(number.clone()),
            Self::Call(call) => call.text(),
        };
        Some(Verdict {
            right: found.is_some() && found == right,
            found,
        })
    }
}

impl Call {
    /// The call as text, the same one for the same call.
    fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// The numbers of a text as they are written, but for signs of grouping and zeros behind the decimal point.
fn numbers(text: &str) -> Vec<String> {
    let mut numbers = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (number, behind) = number(&rest[start..]);
        numbers.push(number);
        rest = behind;
    }
    numbers
}

/// The number that a text starts with, and what follows it.
fn number(text: &str) -> (String, &str) {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let first = digits(text);
    let (mut number, mut rest) = (text[..first].to_owned(), &text[first..]);
    while let Some(group) = rest.strip_prefix(',')
        && first <= 3
        && digits(group) == 3
    {
        number += &group[..3];
        rest = &group[3..];
    }
    if let Some(decimals) = rest.strip_prefix('.') {
        let count = digits(decimals);
        let significant = decimals[..count].trim_end_matches('0');
        if !significant.is_empty() {
            number += ".";
            number += significant;
        }
        rest = &decimals[count..];
    }
    (number, rest)
}

/// The call that the first object in a text is, whatever stands around it.
fn call(text: &str) -> Option<Call> {
    let object = &text[text.find('{')?..];
    let mut objects = serde_json::Deserializer::from_str(object).into_iter();
    objects.next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_however_they_are_written() {
        for (text, expected) in [
            ("", &[][..]),
            ("none", &[]),
            ("14 + 9 = 23. The answer is 23.", &["14", "9", "23", "23"]),
            (
                "**34**, \\boxed{17.50} or $1,234,567.00",
                &["34", "17.5", "1234567"],
            ),
            ("3, 4,5 and 1000,200", &["3", "4", "5", "1000", "200"]),
            ("No. 12a-7", &["12", "7"]),
        ] {
            assert_eq!(numbers(text), expected, "{text}");
        }
    }

    #[track_caller]
    fn judged(expected: &Expected, answer: &str, right: bool, found: Option<&str>) {
        let verdict = Verdict {
            right,
            found: found.map(str::to_owned),
        };
        assert_eq!(expected.judge(answer), Some(verdict), "{answer}");
    }

    #[test]
    fn a_sum_is_right_by_its_last_number() {
        let sum = Expected::Number("34".to_owned());
        judged(&sum, "17 * 2 = 34. The answer is 34.", true, Some("34"));
        judged(&sum, "34 pears, which is 2 dozen and 10", false, Some("10"));
        judged(&sum, "I do not know.", false, None);
        assert_eq!(Expected::Anything.judge("34"), None);
    }

    #[test]
    fn a_number_is_recalled_wherever_it_stands() {
        let number = Expected::Mention("48213".to_owned());
        judged(&number, "In room 4 it is 48213.", true, Some("48213"));
        judged(&number, "148213", false, Some("148213"));
        judged(&number, "48123 or 48231", false, Some("48123"));
        judged(&number, "none", false, None);
    }

    #[test]
    fn a_call_is_right_by_its_name_and_arguments() {
        let right = r#"{"name": "set_timer", "arguments": {"minutes": 5, "label": "soup"}}"#;
        let expected = Expected::Call(call(right).expect("a call"));
        let text = r#"{"name":"set_timer","arguments":{"label":"soup","minutes":5}}"#;
        for answer in [
            right.to_owned(),
            format!("```json\n{right}\n``` as you asked {{"),
            r#"{"arguments": {"label": "soup", "minutes": 5}, "name": "set_timer"}"#.to_owned(),
        ] {
            judged(&expected, &answer, true, Some(text));
        }
        for (from, to) in [
            ("5", "6"),
            ("5", "\"5\""),
            ("label", "name"),
            ("set_", "get_"),
        ] {
            let answer = right.replace(from, to);
            let found = text.replace(from, to);
            let found = match from {
                // The arguments are in the order of their names.
                "label" => r#"{"name":"set_timer","arguments":{"minutes":5,"name":"soup"}}"#,
                _ => &found,
            };
            judged(&expected, &answer, false, Some(found));
        }
        for answer in [
            &right[..40],
            "set_timer(5)",
            "{}",
            r#"{"name": "set_timer"}"#,
        ] {
            judged(&expected, answer, false, None);
        }
    }
}
