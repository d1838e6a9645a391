//! Templates as Python's Jinja2 renders them, and templates that try to do harm.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;

use super::jinja::{self, Json};
use super::{Message, Template};

/// What `tools/templates.py` writes.
#[derive(Deserialize)]
struct Golden {
    contexts: BTreeMap<String, Json>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    /// By the names of contexts; null where Python raises or Walsh refuses.
    texts: BTreeMap<String, Option<String>>,
}

#[test]
fn templates_render_as_in_python() {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../../tests/golden/templates.json")).unwrap();
    let mut wrong = Vec::new();
    let mut renderings = 0;
    for case in &golden.cases {
        for (context, expected) in &case.texts {
            renderings += 1;
            let Json::Map(given) = &golden.contexts[context] else {
                panic!("{context} is no context");
            };
            let text = jinja::render(&case.template, given);
            if text.as_deref().ok() != expected.as_deref() {
                wrong.push(format!(
                    "{} [{context}]\n  {}\n  wanted {expected:?}\n  got {text:?}",
                    case.name, case.template
                ));
            }
            if let Err(message) = text {
                assert!(
                    !message.contains('\n') && message.chars().count() < 300,
                    "{message}"
                );
            }
        }
    }
    assert!(renderings > 600, "{renderings}");
    assert!(
        wrong.is_empty(),
        "{} of {renderings}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A source of parts, each so many times.
fn source(parts: &[(&str, usize)]) -> String {
    parts
        .iter()
        .map(|(part, times)| part.repeat(*times))
        .collect()
}

/// Templates of one line that must be refused.
const HOSTILE: &str = include_str!("hostile.txt");

#[test]
fn templates_that_try_to_do_harm_are_refused() {
    let nested = [
        source(&[("{{ ", 1), ("(", 5000), ("1", 1), (")", 5000), (" }}", 1)]),
        source(&[("{% if 1 %}", 50_000), ("{% endif %}", 50_000)]),
        source(&[("{% if 1 %}", 500), ("{% endif %}", 500)]),
        source(&[("{% set x %}", 20_000), ("{% endset %}", 20_000)]),
        source(&[("{{", 1), (" not", 200_000), (" 1 }}", 1)]),
        source(&[("{{ ", 1), ("-", 200_000), ("1 }}", 1)]),
        source(&[("{{ ", 1), ("1+", 200_000), ("1 }}", 1)]),
        source(&[("{{ 'a'", 1), ("|upper", 100_000), (" }}", 1)]),
        source(&[("{{ a", 1), (".a", 100_000), (" }}", 1)]),
        source(&[("{{ ", 1), ("[", 1000), ("]", 1000), (" }}", 1)]),
        source(&[("{{ ", 1), ("1 if 0 else ", 50_000), ("1 }}", 1)]),
        source(&[
            ("{% ", 1),
            ("if 0 %}{% el", 20_000),
            ("if 0 %}{% endif %}", 1),
        ]),
        source(&[
            ("{% ", 1),
            ("if 0 %}{% el", 100_000),
            ("if 0 %}{% endif %}", 1),
        ]),
    ];
    let lines = HOSTILE
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_string);
    let context = [("content".to_string(), Json::from("hi"))];
    let begun = Instant::now();
    let mut count = 0;
    for source in lines.chain(nested) {
        let start: String = source.chars().take(200).collect();
        count += 1;
        match jinja::render(&source, &context) {
            Ok(text) => panic!("{start} gave {} bytes", text.len()),
            Err(message) => {
                assert!(message.chars().count() < 300, "{start}: {message}");
                assert!(!message.contains(char::is_control), "{start}: {message}");
            }
        }
    }
    // A second for each would be too much too, and is only reached by what has no bound.
    assert!(
        begun.elapsed().as_secs() < 2 * count,
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn what_is_deep_or_long_within_the_bounds_renders() {
    let fine = [
        (source(&[("{{", 1), (" not", 4000), (" 1 }}", 1)]), "True"),
        (source(&[("{{ ", 1), ("1+", 2000), ("1 }}", 1)]), "2001"),
        (source(&[("{{ 'a'", 1), ("|upper", 2000), (" }}", 1)]), "A"),
        (
            source(&[("{{ ", 1), ("(", 70), ("1", 1), (")", 70), (" }}", 1)]),
            "1",
        ),
        (
            source(&[("{% for i in [1] %}", 140), ("x", 1), ("{% endfor %}", 140)]),
            "x",
        ),
        (
            source(&[
                ("{% filter upper %}", 140),
                ("x", 1),
                ("{% endfilter %}", 140),
            ]),
            "X",
        ),
        (
            source(&[
                ("{% ", 1),
                ("if 0 %}{% el", 500),
                ("if 1 %}x{% endif %}", 1),
            ]),
            "x",
        ),
        (source(&[("{# #}\n", 150_000)]), ""),
    ];
    for (source, expected) in fine {
        let text = jinja::render(&source, &[]);
        assert_eq!(text.as_deref(), Ok(expected), "{}", &source[..20]);
    }
    let count = "{% macro m(n) %}{{ m(n - 1) if n else 'end' }}{% endmacro %}{{ m(200) }}";
    assert_eq!(jinja::render(count, &[]).as_deref(), Ok("end"));
}

#[test]
fn a_long_conversation_widens_the_bounds() {
    let source = "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = ns.text + m.content %}{% endfor %}{{ ns.text }}";
    let template = Template::new(source, Vec::new(), None).unwrap();
    let messages = vec![Message::user("x".repeat(50_000)); 100];
    assert_eq!(template.render(&messages, true).unwrap().len(), 5_000_000);
}
