//! The pre-tokenizers that `tokenizer.ggml.pre` names, and what else depends on the name.
//!
//! The expressions are those by which llama.cpp cuts, which are not in all places those of the models'
//! makers: where it reads `\p{Lu}` as any letter, so does this table, so that the ids are the same.

use super::split::Stage::{self, DigitsFromRight, Matches, SpacesByPowers, Thousands};
use crate::error::{Error, Result};

/// Which pieces that are tokens as a whole are taken as they are, whatever the merges say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// None.
    Never,
    /// Those of line ends alone.
    LineEnds,
    /// All.
    Always,
}

/// How the tokens of a vocabulary are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// In GPT-2's alphabet of bytes.
    Bytes,
    /// As text; a byte without a token is `<0x41>`.
    Text,
    /// As text, with U+2581 for a space.
    MarkedText,
}

/// A pre-tokenizer.
#[derive(Debug)]
pub(super) struct Pre {
    names: &'static [&'static str],
    /// How a text is cut, and each piece further.
    pub(super) stages: &'static [Stage],
    pub(super) whole: Whole,
    pub(super) alphabet: Alphabet,
    /// Whether prompts begin with BOS where the file does not say.
    pub(super) add_bos: bool,
    /// Whether they do whatever the file says.
    pub(super) always_bos: bool,
}

impl Pre {
    /// The pre-tokenizer with this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find(name: &str) -> Result<&'static Pre> {
        TABLE
            .iter()
            .find(|pre| pre.names.contains(&name))
            .ok_or_else(|| {
                Error::tokenizer(format!(
                    "tokenizer.ggml.pre is {name:?}, a pre-tokenizer that is not known here: convert the model again, with one that llama.cpp knows"
                ))
            })
    }

    /// All names.
    #[cfg(test)]
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().flat_map(|pre| pre.names).copied()
    }

    const fn new(names: &'static [&'static str], stages: &'static [Stage]) -> Pre {
        Pre {
            names,
            stages,
            whole: Whole::Never,
            alphabet: Alphabet::Bytes,
            add_bos: false,
            always_bos: false,
        }
    }

    const fn whole(self) -> Pre {
        Pre {
            whole: Whole::Always,
            ..self
        }
    }

    const fn bos(self) -> Pre {
        Pre {
            add_bos: true,
            ..self
        }
    }
}

/// English contractions in either case.
macro_rules! contraction {
    () => {
        "(?i-u:'(?:[stmd]|re|ve|ll))"
    };
}

/// Letters, with a sign or space in front.
macro_rules! word {
    () => {
        r"[^\r\n\p{L}\p{N}]?\p{L}+"
    };
}

/// Signs, with a space in front.
macro_rules! signs {
    () => {
        r" ?[^\s\p{L}\p{N}]+"
    };
}

/// White space up to its last line end; then white space, of which the last stays with what follows.
macro_rules! spaces {
    () => {
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}

/// Words of letters and marks with a contraction, digits by three at most.
macro_rules! marked_word {
    () => {
        concat!(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", contraction!(), "?")
    };
}

/// Capitals, then small letters; what is in `$letters` and has no case here counts as both.
macro_rules! cased_word {
    ($letters:literal, $end:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[",
            $letters,
            "&&[^a-z]]*[",
            $letters,
            "&&[^A-Z]]+",
            $end,
            r"|[^\r\n\p{L}\p{N}]?[",
            $letters,
            "&&[^a-z]]+[",
            $letters,
            "&&[^A-Z]]*",
            $end
        )
    };
}

/// Chinese characters, by the blocks that Kimi's pre-tokenizer goes by.
macro_rules! han {
    () => {
        r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{2F800}-\x{2FA1F}"
    };
}

const GPT2: Stage = Matches(concat!(
    r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+|",
    signs!(),
    r"|\s+(?!\S)|\s+"
));

const LLAMA3: Stage = Matches(concat!(
    contraction!(),
    "|",
    word!(),
    r"|\p{N}{1,3}|",
    signs!(),
    r"[\r\n]*|",
    spaces!()
));

const QWEN2: Stage = Matches(concat!(
    contraction!(),
    "|",
    word!(),
    r"|\p{N}|",
    signs!(),
    r"[\r\n]*|",
    spaces!()
));

const DEEPSEEK3: Stage = Matches(concat!(
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|",
    spaces!()
));

const DIGIT: Stage = Matches(r"\p{N}");
const DIGITS: Stage = Matches(r"\p{N}+");
const THREE_DIGITS: Stage = Matches(r"\p{N}{1,3}");
const THREE_ASCII_DIGITS: Stage = Matches("[0-9][0-9][0-9]");
const LINES: Stage = Matches(r"[^\n]+|\n+");
const LINE_END: Stage = Matches(r"[\r\n]");
const CHINESE_AND_KANA: Stage = Matches(r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+");
/// White space is left out: the range from U+0800 has some.
const ASIAN: Stage = Matches(r"[[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]&&\S]+");
/// Phrases end at these signs.
const PHRASE: Stage =
    Matches(r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{0964}\x{06D4}\x{060C})]+");

/// Letters that have case, as a list of its makers' own.
const CASED: Stage = Matches(concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}",
    r"\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}",
    r"\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}",
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}",
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}",
    r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}",
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}",
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}",
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}",
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}",
    r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}",
    r"\x{1E900}-\x{1E943}]+"
));

static TABLE: &[Pre] = &[
    Pre::new(
        &["default", ""],
        &[
            Matches(r"[\p{P}$+<=>^~|]+"),
            GPT2,
            DIGITS,
            THREE_ASCII_DIGITS,
        ],
    ),
    Pre::new(
        &[
            "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de",
            "a.x-4.0", "mellum", "modern-bert", "jina-v1-en", "jina-v2-code", "roberta-bpe",
            "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4",
        ],
        &[GPT2],
    ),
    Pre::new(
        &[
            "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b",
            "mellum2",
        ],
        &[DIGIT, GPT2],
    ),
    Pre::new(
        &["falcon"],
        &[Matches(r"[\p{P}$+<=>^~|`]+"), GPT2, THREE_ASCII_DIGITS],
    ),
    Pre::new(
        &[
            "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
            "lfm2", "jina-v5-nano",
        ],
        &[LLAMA3],
    )
    .whole()
    .bos(),
    Pre::new(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    Pre::new(&["glm4", "glm5"], &[LLAMA3]).whole(),
    Pre::new(&["jais-2"], &[LLAMA3, SpacesByPowers]),
    Pre::new(
        &["minicpm5"],
        &[
            THREE_DIGITS,
            Matches(concat!(
                contraction!(),
                "|",
                word!(),
                r"|\p{N}+|",
                signs!(),
                r"[\r\n]*|",
                spaces!()
            )),
        ],
    )
    .whole(),
    Pre::new(
        &[
            "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez", "hunyuan",
            "solar-open", "grok-2",
            // A line end after white space, not several: cut at the same places.
            "bailingmoe", "bailingmoe2", "llada-moe",
        ],
        &[QWEN2],
    ),
    Pre::new(&["laguna"], &[LINES, QWEN2]),
    Pre::new(
        &["qwen35"],
        &[Matches(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|",
            spaces!()
        ))],
    ),
    Pre::new(
        &["seed-coder"],
        &[Matches(concat!(
            contraction!(),
            "|",
            word!(),
            r"|\p{N}|",
            signs!(),
            "|",
            spaces!()
        ))],
    ),
    Pre::new(
        &["ufakzeka"],
        &[Matches(concat!(
            word!(),
            r"|\p{N}|",
            signs!(),
            r"[\r\n]*|",
            spaces!()
        ))],
    ),
    Pre::new(
        &["exaone-moe"],
        &[Matches(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}\p{M}*(?: ?\p{L}\p{M}*)*|\p{N}|",
            signs!(),
            r"[\r\n/]?|",
            spaces!()
        ))],
    ),
    Pre::new(
        &["deepseek-llm"],
        &[
            LINE_END,
            CASED,
            Matches(
                r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}\x{3002}]+",
            ),
            Matches(r"\s+$"),
            ASIAN,
            DIGITS,
        ],
    ),
    Pre::new(
        &["deepseek-coder"],
        &[
            LINE_END,
            Matches(r"\s?\p{L}+"),
            Matches(r"\s?\p{P}+"),
            ASIAN,
            DIGIT,
        ],
    ),
    Pre::new(
        &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        &[THREE_DIGITS, CHINESE_AND_KANA, DEEPSEEK3],
    ),
    Pre::new(
        &["spark2_5"],
        &[
            THREE_DIGITS,
            CHINESE_AND_KANA,
            Matches(
                r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
            ),
            DIGIT,
        ],
    ),
    Pre::new(
        &["afmoe"],
        &[
            DigitsFromRight,
            Matches(
                r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{0E40}-\x{0EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{1100}-\x{11FF}]+",
            ),
            DEEPSEEK3,
        ],
    ),
    Pre::new(
        &["youtu"],
        &[
            Matches(
                r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+",
            ),
            Matches(concat!(
                marked_word!(),
                r"|\p{N}|",
                signs!(),
                r"[\r\n/]*|",
                spaces!()
            )),
        ],
    )
    .whole(),
    Pre::new(
        &["tiny_aya", "cohere2moe"],
        &[
            DigitsFromRight,
            Matches(concat!(
                marked_word!(),
                r"|\p{N}{1,3}|",
                signs!(),
                r"[\r\n/]*|",
                spaces!()
            )),
        ],
    ),
    Pre::new(
        &["tekken"],
        &[Matches(concat!(
            cased_word!(r"\p{L}", ""),
            r"|\p{N}|",
            signs!(),
            r"[\r\n/]*|",
            spaces!()
        ))],
    )
    .whole()
    .bos(),
    Pre::new(
        &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        &[Matches(concat!(
            cased_word!(r"\p{L}", concat!(contraction!(), "?")),
            r"|\p{N}{1,3}|",
            signs!(),
            r"[\r\n/]*|",
            spaces!()
        ))],
    ),
    Pre::new(
        &["granite-embed-multi-97m"],
        &[Matches(concat!(
            cased_word!(r"\p{L}\p{M}", concat!(contraction!(), "?")),
            r"|\p{N}{1,3}|",
            signs!(),
            r"[\r\n/]*|",
            spaces!()
        ))],
    )
    .whole(),
    Pre::new(
        &["kimi-k2"],
        &[Matches(concat!(
            "[",
            han!(),
            r"]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^",
            han!(),
            "]]+",
            contraction!(),
            r"?|\p{N}{1,3}|",
            signs!(),
            r"[\r\n]*|",
            spaces!()
        ))],
    ),
    Pre::new(
        &["chameleon"],
        &[
            Matches("<sentinel:[0-9]+>"),
            Matches("IMGIMG[A-I]{1,4}Z"),
            Matches(r"[\t\n]|    |  "),
            DIGIT,
            Matches(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
    )
    .bos(),
    Pre::new(&["superbpe"], &[DIGITS, Thousands]),
    Pre::new(&["poro-chat", "bloom", "gpt3-finnish"], &[PHRASE]),
    Pre::new(&["viking"], &[PHRASE, DIGIT]),
    Pre {
        whole: Whole::LineEnds,
        alphabet: Alphabet::MarkedText,
        add_bos: true,
        always_bos: true,
        ..Pre::new(&["gemma4", "granite-embed-multi-311m"], &[LINES])
    },
    Pre {
        alphabet: Alphabet::MarkedText,
        ..Pre::new(&["sarvam-moe"], &[LINES])
    },
    Pre {
        alphabet: Alphabet::Text,
        ..Pre::new(&["whitespace"], &[Matches(r"\S+")])
    },
];
