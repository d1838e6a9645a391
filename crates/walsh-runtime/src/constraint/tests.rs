use std::fs::File;
use std::time::Instant;

use memmap2::Mmap;
use serde_json::{Value, json};
use walsh::formats::gguf::Gguf;
use walsh::formats::random::SplitMix64;

use super::shapes::Shape;
use super::*;
use crate::Watch;
use crate::store::{Store, StoreOptions};
use crate::tokenizer::Decoder;

/// The tokenizer of a model that is fetched if it is not there.
pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    let store = Store::open(StoreOptions::default()).unwrap();
    let path = store
        .pull(name, &Watch::default(), &mut |_| {})
        .unwrap_or_else(|error| {
            panic!("this test needs the model {name}, which cannot be fetched: {error}")
        });
    // SAFETY: the store never writes to a file that is in place.
    let file = unsafe { Mmap::map(&File::open(path).unwrap()).unwrap() };
    Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap()
}

#[test]
fn tokens_are_known_by_what_they_add_to_a_text() {
    for name in ["smollm2-135m", "gemma3-270m"] {
        let tokenizer = tokenizer(name);
        let trie = trie::of(&tokenizer).unwrap();
        let ends: Vec<i32> = trie.eos_tokens().iter().map(|id| *id as i32).collect();
        assert_eq!(ends, tokenizer.ends());
        assert_eq!(trie.vocab_size(), tokenizer.vocab_size());
        let mut texts = 0;
        for token in 0..tokenizer.vocab_size() as i32 {
            let bytes = trie.token(token as u32);
            let mut decoder = Decoder::new();
            let mut text = decoder.push(&tokenizer, token);
            text += &decoder.finish();
            if tokenizer.is_end(token) || tokenizer.is_control(token) {
                assert!(trie.is_special_token(token as u32), "{name} {token}");
            } else if !bytes.is_empty() {
                assert_eq!(bytes, &*tokenizer.token_bytes(token), "{name} {token}");
                assert_eq!(String::from_utf8_lossy(bytes), text, "{name} {token}");
                texts += 1;
            } else {
                // Nothing, or a byte that UTF-8 has not.
                assert!(text.is_empty() || text == "\u{fffd}", "{name} {token}");
            }
        }
        assert!(texts * 10 > tokenizer.vocab_size() * 9, "{name}: {texts}");
    }
}

/// A text of tokens that are drawn from those that are allowed, and the microseconds that each mask took.
fn draw(
    guides: &Guides,
    tokenizer: &Tokenizer,
    constraint: &Constraint,
    random: &mut SplitMix64,
) -> (String, Vec<u128>) {
    let guide = guides.guide(constraint).unwrap();
    let (mut matcher, mut allowed) = guide.next.recv().unwrap().unwrap();
    let (mut tokens, mut times) = (Vec::new(), Vec::new());
    loop {
        let choices = allowed.to_list();
        let token = choices[(random.uniform() * choices.len() as f64) as usize];
        if tokenizer.is_end(token as i32) {
            return (tokenizer.decode(&tokens), times);
        }
        tokens.push(token as i32);
        assert!(tokens.len() < 2000, "{}", tokenizer.decode(&tokens));
        let start = Instant::now();
        matcher.consume_token(token).unwrap();
        (matcher, allowed) = what_is_next(matcher).unwrap();
        times.push(start.elapsed().as_micros());
    }
}

/// Prints what a mask takes: `cargo test --release -p walsh-runtime --lib -- constraint --nocapture`.
#[test]
fn whatever_is_chosen_the_json_is_of_its_schema() {
    for name in ["smollm2-135m", "gemma3-270m"] {
        let tokenizer = tokenizer(name);
        let start = Instant::now();
        let guides = Guides::new(&tokenizer).unwrap();
        let made = start.elapsed();
        let mut random = SplitMix64(19);
        let (mut times, mut begun) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let shape = Shape::random(&mut random, 3);
            let schema = shape.schema().to_string();
            let constraint = Constraint::JsonSchema(schema.clone());
            let start = Instant::now();
            guides.guide(&constraint).unwrap();
            begun.push(start.elapsed().as_micros());
            let (text, took) = draw(&guides, &tokenizer, &constraint, &mut random);
            times.extend(took);
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{error}: {text} by {schema}"));
            assert!(shape.holds(&value), "{text} by {schema}");
        }
        let shown = |times: &mut Vec<u128>| {
            times.sort_unstable();
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
            format!(
                "p50 {} p99 {} most {} of {}",
                at(0.5),
                at(0.99),
                at(1.0),
                times.len()
            )
        };
        println!(
            "{name}: trie {made:?}; begin, in microseconds: {}; a mask: {}",
            shown(&mut begun),
            shown(&mut times)
        );
    }
}

#[test]
fn patterns_and_grammars_hold() {
    let tokenizer = tokenizer("smollm2-135m");
    let guides = Guides::new(&tokenizer).unwrap();
    let mut random = SplitMix64(3);
    let pattern = r"(ab|[0-9]{2}){1,3}/\d+\.é?\n";
    let whole = regex_automata::meta::Regex::new(&format!("^(?:{pattern})$")).unwrap();
    let sum = "start: term (\"+\" term)*\nterm: /[0-9]{1,2}/ | \"(\" term \"-\" /[1-9]/ \")\"";
    for _ in 0..20 {
        let regex = Constraint::Regex(pattern.into());
        let (text, _) = draw(&guides, &tokenizer, &regex, &mut random);
        assert!(whole.is_match(&text), "{text:?}");
        let (text, _) = draw(
            &guides,
            &tokenizer,
            &Constraint::Lark(sum.into()),
            &mut random,
        );
        let known = |c: char| c.is_ascii_digit() || "+-()".contains(c);
        assert!(!text.is_empty() && text.chars().all(known), "{text}");
        assert_eq!(
            text.matches('(').count(),
            text.matches(')').count(),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let tokenizer = tokenizer("smollm2-135m");
    let guides = Guides::new(&tokenizer).unwrap();
    let schema = |schema: Value| Constraint::JsonSchema(schema.to_string());
    let regex = |text: &str| Constraint::Regex(text.into());
    let lark = |text: &str| Constraint::Lark(text.into());
    let nested = format!("start: {}\"a\"{}", "(".repeat(9999), ")".repeat(9999));
    let cases = [
        (
            Constraint::JsonSchema("{\"type\":\n \"str".into()),
            "line 2 column",
        ),
        (schema(json!(3)), "must be an object or boolean"),
        (schema(json!({"type": "objekt"})), "objekt"),
        (schema(json!({"enum": []})), "Unsatisfiable"),
        (
            schema(json!({"type": "object", "required": ["a"], "properties": {"a": false}})),
            "property 'a'",
        ),
        (
            schema(json!({"type": "integer", "minimum": 5, "maximum": 3})),
            "minimum (5)",
        ),
        (schema(json!({"$ref": "#/$defs/node"})), "#/$defs/node"),
        (schema(json!({"$ref": "other.json#/y"})), "other.json#/y"),
        (
            schema(json!({"type": "string", "pattern": "(ab"})),
            "unclosed group",
        ),
        (schema(json!({"not": {"type": "string"}})), "not"),
        (regex("ab{3,1}"), "at character 3"),
        (regex("(?=a)b"), "look-around"),
        (regex(r"[^\s\S]"), "neither a token nor the end"),
        (lark("start: \"a\" |\n  b c"), "2(5)"),
        (lark("start: start"), "neither a token nor the end"),
        (lark("begin: \"a\""), "no start rule"),
        (lark("start: <|nothing|>"), "<|nothing|>"),
        (lark(&nested), "nested"),
        (lark(&"x".repeat(MOST_BYTES + 1)), "at most 4 MiB"),
    ];
    for (constraint, part) in &cases {
        let error = guides.guide(constraint).err();
        let shown = format!("{constraint:?}")
            .chars()
            .take(200)
            .collect::<String>();
        let error = error
            .unwrap_or_else(|| panic!("accepted: {shown}"))
            .to_string();
        assert!(error.starts_with("constraint: "), "{error}");
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
        assert!(error.len() < 600, "{error}");
        println!("{shown}: {error}");
    }
}

/// Most of what is drawn is a name that was there already, as models like them best.
#[test]
fn no_object_has_a_name_twice() {
    let tokenizer = tokenizer("smollm2-135m");
    let guides = Guides::new(&tokenizer).unwrap();
    let mut random = SplitMix64(29);
    let any = Constraint::JsonSchema(json!({"type": "object"}).to_string());
    let wanted = [
        "{\"", "a", "\":", " ", "1", ",", " \"", "\"", "{", "}", "\\", "u0061",
    ];
    let wanted: Vec<i32> = wanted
        .iter()
        .flat_map(|text| {
            tokenizer
                .encode(text, crate::tokenizer::Special::Text)
                .unwrap()
        })
        .collect();
    let (mut objects, mut names) = (0, 0);
    for _ in 0..300 {
        let mut guide = guides.guide(&any).unwrap();
        let mut text = Vec::new();
        for place in 0..120 {
            let mut logits = vec![0.0; tokenizer.vocab_size()];
            guide.mask(&mut logits).unwrap();
            let is_allowed = |token: &i32| logits[*token as usize] > f32::NEG_INFINITY;
            if (0..logits.len() as i32).any(|t| tokenizer.is_end(t) && is_allowed(&t)) {
                break;
            }
            let of = |from: &mut dyn Iterator<Item = i32>| from.filter(is_allowed).collect();
            let mut choices: Vec<i32> = of(&mut wanted.iter().copied());
            // All objects come to an end.
            let closing = |token: &i32| *tokenizer.token_bytes(*token) == *b"}";
            if place > 60
                && let Some(close) = choices.iter().copied().find(closing)
            {
                choices = vec![close];
            }
            if choices.is_empty() {
                choices = of(&mut (0..logits.len() as i32));
            }
            let token = choices[random.below(choices.len())];
            text.extend_from_slice(&tokenizer.token_bytes(token));
            guide.accept(token, &tokenizer.token_bytes(token));
        }
        let Ok(value) = serde_json::from_slice::<Value>(&text) else {
            continue;
        };
        let read = count(&value);
        let mut written = names::Names::default();
        for (at, byte) in text.iter().enumerate() {
            assert!(
                !written.doubles(&[*byte]),
                "{}",
                String::from_utf8_lossy(&text[..=at])
            );
            written.push(&[*byte]);
        }
        objects += 1;
        names += read;
    }
    println!("{objects} objects, {names} names");
    assert!(
        objects > 100 && 2 * names > 3 * objects,
        "{objects} {names}"
    );
}

/// How many names a value has.
fn count(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.len() + map.values().map(count).sum::<usize>(),
        Value::Array(values) => values.iter().map(count).sum(),
        _ => 0,
    }
}
