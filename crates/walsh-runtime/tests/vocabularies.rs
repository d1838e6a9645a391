//! Vocabularies of a test's own making: what a file says of its tokens is done, or refused.

use walsh::formats::gguf::Gguf;
use walsh::formats::gguf::write::{NewValue, Writer};
use walsh_runtime::tokenizer::{Decoder, Special, Tokenizer};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A model file's tokenizer; later entries replace earlier ones.
#[derive(Clone, Default)]
struct File {
    tokens: Vec<(String, i32)>,
    metadata: Vec<(String, NewValue)>,
}

impl File {
    /// Bytes in GPT-2's alphabet, then these merges and control tokens.
    fn merges(pre: &str, merges: &[&str], more: &[(&str, i32)]) -> File {
        let mut next = 0x100;
        let mut alphabet = |byte: u8| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("a character")
            }
        };
        let bytes = (0..=255).map(|byte| (alphabet(byte).to_string(), NORMAL));
        let more = more.iter().map(|(text, kind)| ((*text).to_owned(), *kind));
        let merges: Vec<String> = merges.iter().map(ToString::to_string).collect();
        File {
            tokens: bytes.chain(more).collect(),
            metadata: Vec::new(),
        }
        .with("model", "gpt2")
        .with("pre", pre)
        .with("merges", merges)
    }

    /// SentencePiece's bytes, then these words.
    fn sentence_piece(words: &[&str]) -> File {
        let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
        let special = special.map(|(text, kind)| (text.to_owned(), kind));
        let bytes = (0..=255).map(|byte| (format!("<0x{byte:02X}>"), BYTE));
        let words = words.iter().map(|word| ((*word).to_owned(), NORMAL));
        let tokens: Vec<_> = special.into_iter().chain(bytes).chain(words).collect();
        let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
        File {
            tokens,
            metadata: Vec::new(),
        }
        .with("model", "llama")
        .with("scores", scores)
    }

    fn with(mut self, key: &str, value: impl Into<NewValue>) -> File {
        let key = format!("tokenizer.ggml.{key}");
        self.metadata.retain(|(other, _)| *other != key);
        self.metadata.push((key, value.into()));
        self
    }

    fn id(&self, text: &str) -> i32 {
        let at = self.tokens.iter().position(|(other, _)| other == text);
        at.expect("a token") as i32
    }

    fn open(&self) -> Result<Tokenizer, String> {
        let mut writer = Writer::new();
        let (texts, kinds): (Vec<String>, Vec<i32>) = self.tokens.iter().cloned().unzip();
        writer.set("tokenizer.ggml.tokens", texts).expect("a key");
        if !self
            .metadata
            .iter()
            .any(|(key, _)| key.ends_with(".token_type"))
        {
            writer
                .set("tokenizer.ggml.token_type", kinds)
                .expect("a key");
        }
        for (key, value) in &self.metadata {
            writer.set(key, value.clone()).expect("a key");
        }
        let bytes = writer.to_bytes();
        let gguf = Gguf::parse(&bytes).expect("a file");
        Tokenizer::from_gguf(&gguf).map_err(|error| error.to_string())
    }

    fn tokenizer(&self) -> Tokenizer {
        self.open().expect("a tokenizer")
    }

    fn refusal(&self) -> String {
        let error = self.open().expect_err("a refusal");
        assert!(!error.contains('\n'), "{error}");
        error
    }
}

fn text(tokenizer: &Tokenizer, text: &str) -> Vec<i32> {
    tokenizer.encode(text, Special::Text).expect("tokens")
}

fn ends(tokenizer: &Tokenizer) -> Vec<i32> {
    let ids = 0..tokenizer.vocab_size() as i32;
    ids.filter(|&id| tokenizer.is_end(id)).collect()
}

#[test]
fn merges_may_name_what_is_no_token() {
    let file = File::merges(
        "gpt-2",
        &["h e", "w o", "he l", "l o", "Ġ w"],
        &[("he", NORMAL)],
    );
    let tokenizer = file.tokenizer();
    let ids =
        |letters: &str| -> Vec<i32> { letters.split(' ').map(|text| file.id(text)).collect() };
    assert_eq!(text(&tokenizer, "hello"), ids("h e l l o"));
    assert_eq!(text(&tokenizer, "hewo"), ids("he w o"));
}

#[test]
fn ends_are_known_by_stated_ids() {
    let more = [
        ("<|endoftext|>", CONTROL),
        ("one", NORMAL),
        ("two", NORMAL),
        ("<fim_pad>", NORMAL),
        ("<|call|>", CONTROL),
    ];
    let file = File::merges("gpt-2", &[], &more);
    let by_name = [256, 259, 260];
    assert_eq!(ends(&file.tokenizer()), by_name);
    for key in ["eos", "eot", "eom", "fim_rep", "fim_sep"] {
        let file = file.clone().with(&format!("{key}_token_id"), 257u32);
        assert_eq!(ends(&file.tokenizer()), [256, 257, 259, 260], "{key}");
    }
    // A stated token of infilling is there instead of one that is told by its name, which stays text.
    let stated = file.clone().with("fim_pad_token_id", 257u32).tokenizer();
    assert_eq!(ends(&stated), [256, 257, 260]);
    assert!(!stated.is_control(259));
    assert!(file.tokenizer().is_control(259));
    for key in [
        "fim_pre",
        "fim_suf",
        "fim_mid",
        "unknown",
        "padding",
        "mask",
        "seperator",
        "cls",
    ] {
        let file = file.clone().with(&format!("{key}_token_id"), 257u32);
        assert_eq!(ends(&file.tokenizer()), by_name, "{key}");
    }
}

#[test]
fn an_end_of_a_part_is_not_the_end() {
    let mut more = vec![("<|end|>", CONTROL), ("<|call|>", CONTROL)];
    assert_eq!(
        ends(&File::merges("gpt-2", &[], &more).tokenizer()),
        [256, 257]
    );
    more.push(("<|return|>", CONTROL));
    assert_eq!(
        ends(&File::merges("gpt-2", &[], &more).tokenizer()),
        [257, 258]
    );
    let plain = [("</s>", CONTROL), ("<|tool_response>", CONTROL)];
    let tokenizer = File::merges("gpt-2", &[], &plain).tokenizer();
    assert_eq!(ends(&tokenizer), [257]);
    assert!(!tokenizer.is_control(256));
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let file = File::merges("gpt-2", &[], &[("<|endoftext|>", CONTROL)]);
    for key in [
        "bos", "eos", "unknown", "eot", "eom", "fim_pad", "fim_sep", "prefix",
    ] {
        let error = file
            .clone()
            .with(&format!("{key}_token_id"), 257u32)
            .refusal();
        assert!(error.contains(key) && error.contains("257"), "{error}");
        file.clone()
            .with(&format!("{key}_token_id"), u32::MAX)
            .tokenizer();
    }
}

#[test]
fn what_would_change_tokens_is_refused_and_what_would_not_is_read() {
    let files = [
        File::merges("gpt-2", &[], &[("<|endoftext|>", CONTROL)]),
        File::sentence_piece(&["a"]),
    ];
    for file in files {
        for key in [
            "remove_extra_whitespaces",
            "normalizer.lowercase",
            "normalizer.strip_accents",
            "escape_whitespaces",
            "something_new",
        ] {
            file.clone().with(key, false).tokenizer();
            let error = file.clone().with(key, true).refusal();
            assert!(error.contains(key), "{error}");
        }
        for key in ["precompiled_charsmap", "suppress_tokens"] {
            file.clone().with(key, Vec::<i32>::new()).tokenizer();
            let error = file.clone().with(key, vec![1, 2, 3]).refusal();
            assert!(error.contains(key), "{error}");
        }
        file.clone()
            .with("add_sep_token", true)
            .with("token_type_count", 2u32)
            .with("image_token_id", 3u32)
            .tokenizer();
        let mut kinds: Vec<i32> = file.tokens.iter().map(|token| token.1).collect();
        kinds.push(NORMAL); // one more than there are tokens
        file.clone().with("token_type", kinds.clone()).tokenizer();
        kinds[7] = 9;
        let error = file.clone().with("token_type", kinds.clone()).refusal();
        assert!(error.contains("token 7") && error.contains('9'), "{error}");
        kinds.truncate(5);
        assert!(
            file.with("token_type", kinds)
                .refusal()
                .contains("5 token types")
        );
    }
    let no_scores = File::sentence_piece(&["a"]).with("scores", vec![0.0f32; 2]);
    assert!(no_scores.refusal().contains("2 scores"));
}

#[test]
fn names_of_pre_tokenizers_decide_on_beginnings_and_whole_pieces() {
    let open = |pre: &str| {
        let more = [("<|endoftext|>", CONTROL), ("hello", NORMAL)];
        let file = File::merges(pre, &[], &more).with("bos_token_id", 256u32);
        file.tokenizer()
    };
    for (pre, bos, whole) in [
        ("llama-bpe", true, true),
        ("lfm2", true, true),
        ("tekken", true, true),
        ("chameleon", true, false),
        ("glm4", false, true),
        ("youtu", false, true),
        ("minicpm5", false, true),
        ("smaug-bpe", false, false),
        ("dbrx", false, false),
        ("gpt-4o", false, false),
        ("gemma4", true, false),
    ] {
        let tokenizer = open(pre);
        assert_eq!(tokenizer.add_bos(), bos, "{pre}");
        assert_eq!(text(&tokenizer, "hello") == [257], whole, "{pre}");
    }
    let error = File::merges("nonsense", &[], &[]).refusal();
    assert!(
        error.contains("nonsense") && error.contains("tokenizer.ggml.pre"),
        "{error}"
    );
    let error = File::merges("gpt-2", &[], &[])
        .with("model", "bert")
        .refusal();
    assert!(error.contains("bert"), "{error}");
}

#[test]
fn text_is_not_put_into_bytes_where_the_vocabulary_is_of_characters() {
    let more = [
        ("\u{2581}", NORMAL),
        ("\u{2581}é", NORMAL),
        ("<0xE2>", BYTE),
        ("\n\n", NORMAL),
    ];
    let file = File::merges("gemma4", &["\u{2581} é"], &more).with("bos_token_id", 0u32);
    let tokenizer = file.tokenizer();
    assert_eq!(text(&tokenizer, "a é"), [i32::from(b'a'), 257]);
    assert_eq!(text(&tokenizer, "\n\n€"), [259, 258]);
    assert_eq!(tokenizer.decode(&[257, 257]), " é é");
}

/// Gemma 4's files have a name of their own for byte pairs of marked text; whatever they say, texts have a beginning.
#[test]
fn gemma_4s_kind_is_byte_pairs_of_marked_text() {
    let words = [
        ("\u{2581}", NORMAL),
        ("a", NORMAL),
        ("\u{2581}a", NORMAL),
        ("\n\n", NORMAL),
        ("<0xC3>", BYTE),
        ("<0xBC>", BYTE),
        ("<bos>", CONTROL),
        ("<turn|>", CONTROL),
        ("<|tool_call>", USER_DEFINED),
    ];
    let file = File {
        tokens: words.map(|(text, kind)| (text.to_owned(), kind)).into(),
        metadata: Vec::new(),
    }
    .with("model", "gemma4")
    .with("merges", vec!["\u{2581} a".to_owned()])
    .with("bos_token_id", 6u32)
    .with("add_bos_token", false);
    let tokenizer = file.tokenizer();
    let found = text(&tokenizer, "a a\n\nü<|tool_call>");
    assert_eq!(found, [1, 2, 3, 4, 5, 8]);
    assert_eq!(tokenizer.decode(&found), "a a\n\nü<|tool_call>");
    assert!(tokenizer.add_bos() && ends(&tokenizer) == [7]);
    let error = file.with("model", "gemma5").refusal();
    assert!(error.contains("gpt2, gemma4 or llama"), "{error}");
}

#[test]
fn what_goes_on_is_no_beginning() {
    let file = File::sentence_piece(&["\u{2581}", "a", "\u{2581}a"]).with("add_eos_token", true);
    let tokenizer = file.tokenizer();
    let (space, letter, both) = (259, 260, 261);
    let after = |previous, text| {
        tokenizer
            .encode_after(previous, text, Special::Parse)
            .expect("tokens")
    };
    assert_eq!(after(None, "a"), [1, both]);
    assert_eq!(after(Some(letter), "a"), [letter]);
    assert_eq!(after(Some(letter), " a"), [both]);
    assert_eq!(after(Some(letter), "a</s>a"), [letter, 2, both]);
    assert_eq!(after(Some(1), " a"), [space, both]); // after a control token
    assert!(after(Some(1), "").is_empty());
    // A whole text has its end.
    let whole = tokenizer.encode_prompt("a", Special::Text).expect("tokens");
    assert_eq!(whole, [1, both, 2]);
}

#[test]
fn text_never_becomes_a_control_token() {
    let more = [("<|x|>", CONTROL), ("abc", CONTROL), ("<u>", USER_DEFINED)];
    let merges = ["a b", "ab c"];
    let tokenizer = File::merges("llama-bpe", &merges, &more)
        .with("bos_token_id", 256u32)
        .tokenizer();
    for written in ["<|x|>", "abc", "<|x|>abc", "<|<|x|>x|>"] {
        let ids = text(&tokenizer, written);
        assert!(
            ids.iter().all(|&id| !tokenizer.is_control(id)),
            "{written}: {ids:?}"
        );
        assert_eq!(tokenizer.decode(&ids), written);
    }
    assert_eq!(text(&tokenizer, "<u>"), [258]);
    let file = File::sentence_piece(&["\u{2581}", "s>", "<", "/", "s", ">", "</"]);
    let tokenizer = file.tokenizer();
    let ids = text(&tokenizer, "</s>");
    assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids), "</s>");
}

#[test]
fn hard_texts_come_back() {
    let strings: Vec<String> =
        serde_json::from_str(include_str!("../../../tests/data/hard_strings.json")).expect("texts");
    let byte = |hex: &str, at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
    let tokenizers = [
        File::merges(
            "tekken",
            &["a n", "Ġ t"],
            &[("<|x|>", CONTROL), ("Ġt", NORMAL)],
        )
        .with("bos_token_id", 256u32),
        File::sentence_piece(&["\u{2581}", "a", "\u{2581}a"]),
    ]
    .map(|file| file.tokenizer());
    for hex in &strings {
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|at| byte(hex, at)).collect();
        let Ok(shown) = std::str::from_utf8(&bytes) else {
            continue; // cannot come back
        };
        for tokenizer in &tokenizers {
            let ids = text(tokenizer, shown);
            // SentencePiece cannot tell its sign for a space from one.
            if !shown.contains('\u{2581}') {
                assert_eq!(tokenizer.decode(&ids), shown);
            }
            let mut decoder = Decoder::new();
            let pieces = ids.iter().map(|&id| decoder.push(tokenizer, id));
            let streamed: String = pieces.collect();
            let streamed = streamed + &decoder.finish();
            assert!(
                streamed.ends_with(shown) || shown.contains('\u{2581}'),
                "{shown:?}"
            );
        }
    }
}
