//! The text form of codecs and of their pairs.

use std::fmt;
use std::str::FromStr;

use super::{KvCodec, KvError, ScaleKind, Tq, TqBits};

/// The codecs of keys and values. Its text form is one codec for both, `tq4`, or a pair, `k=tq5,v=tq4`.
///
/// ```
/// use walsh_formats::kv::KvSpec;
/// let spec: KvSpec = "k=f16,v=tq8+norot".parse()?;
/// assert_eq!(spec.to_string(), "k=f16,v=tq8+norot");
/// assert_eq!("tq4".parse::<KvSpec>()?.to_string(), "tq4");
/// # Ok::<(), walsh_formats::kv::KvError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvSpec {
    /// How keys are stored.
    pub key: KvCodec,
    /// How values are stored.
    pub value: KvCodec,
}

impl KvSpec {
    /// The same codec for keys and values.
    pub const fn both(codec: KvCodec) -> Self {
        Self {
            key: codec,
            value: codec,
        }
    }
}

/// The budgets that stand for a pair of codecs together with a policy.
const BUDGETS: [&str; 5] = ["3bit", "3.5bit", "4bit", "5bit", "8bit"];

/// Suffixes of codecs that are known but not built.
const LATER_OPTIONS: [&str; 6] = ["rot", "equalise", "equalize", "center", "centre", "overlay"];

/// The codecs that can be named, for messages.
fn possible_codecs() -> String {
    let dense: Vec<&str> = KvCodec::DENSE.iter().map(|d| d.name()).collect();
    let tq: Vec<String> = TqBits::ALL
        .iter()
        .map(|b| format!("tq{}", b.get()))
        .collect();
    format!(
        "codecs are {}, {} (with +norot or +norm if wanted)",
        dense.join(", "),
        tq.join(", ")
    )
}

fn parse_codec(word: &str, given: &str) -> Result<KvCodec, KvError> {
    let mut parts = word.split('+');
    let name = parts.next().unwrap_or_default();
    let base = base_codec(name, given)?;
    let mut codec = base;
    for option in parts {
        if LATER_OPTIONS.contains(&option) {
            return Err(KvError::NotYet {
                given: given.to_owned(),
                what: format!("the option +{option} is"),
                possible: "options are +norot and +norm, after a tq codec".to_owned(),
            });
        }
        let unknown = || KvError::Unknown {
            given: given.to_owned(),
            what: "option",
            word: format!("+{option}"),
            possible: "options are +norot and +norm, after a tq codec".to_owned(),
        };
        let KvCodec::Tq(tq) = &mut codec else {
            return Err(match option {
                "norot" | "norm" => KvError::Malformed {
                    given: given.to_owned(),
                    why: format!("+{option} is for tq codecs, not for {name}"),
                },
                _ => unknown(),
            });
        };
        match option {
            "norot" if tq.rotate => tq.rotate = false,
            "norm" if tq.scale != ScaleKind::Norm => tq.scale = ScaleKind::Norm,
            "norot" | "norm" => {
                return Err(KvError::Malformed {
                    given: given.to_owned(),
                    why: format!("+{option} stands twice"),
                });
            }
            _ => return Err(unknown()),
        }
    }
    Ok(codec)
}

fn base_codec(name: &str, given: &str) -> Result<KvCodec, KvError> {
    if let Some(dtype) = KvCodec::DENSE.into_iter().find(|d| d.name() == name) {
        return Ok(KvCodec::Dense(dtype));
    }
    if let Some(bits) = TqBits::ALL
        .into_iter()
        .find(|b| name.strip_prefix("tq") == Some(&b.get().to_string()))
    {
        return Ok(KvCodec::Tq(Tq::new(bits)));
    }
    if BUDGETS.contains(&name) {
        return Err(KvError::NotYet {
            given: given.to_owned(),
            what: format!("the budget {name} is"),
            possible: possible_codecs(),
        });
    }
    Err(KvError::Unknown {
        given: given.to_owned(),
        what: "codec",
        word: name.to_owned(),
        possible: possible_codecs(),
    })
}

impl FromStr for KvCodec {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        parse_codec(text, text)
    }
}

impl FromStr for KvSpec {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        let malformed = |why: String| KvError::Malformed {
            given: text.to_owned(),
            why,
        };
        if text.is_empty() {
            return Err(malformed("it is empty".to_owned()));
        }
        if !text.contains(['=', ',']) {
            return Ok(Self::both(parse_codec(text, text)?));
        }
        let (mut key, mut value) = (None, None);
        for part in text.split(',') {
            let (side, codec) = part.split_once('=').ok_or_else(|| {
                malformed(format!("{part:?} does not say whether it is for k or v"))
            })?;
            let slot = match side {
                "k" => &mut key,
                "v" => &mut value,
                "sink" | "recent" | "overlay" | "layers" | "equalise" | "center" => {
                    return Err(KvError::NotYet {
                        given: text.to_owned(),
                        what: format!("the setting {side}= is"),
                        possible: "settings are k= and v=".to_owned(),
                    });
                }
                _ => {
                    return Err(KvError::Unknown {
                        given: text.to_owned(),
                        what: "setting",
                        word: format!("{side}="),
                        possible: "settings are k= and v=".to_owned(),
                    });
                }
            };
            if slot.replace(parse_codec(codec, text)?).is_some() {
                return Err(malformed(format!("{side}= stands twice")));
            }
        }
        match (key, value) {
            (Some(key), Some(value)) => Ok(Self { key, value }),
            (None, _) => Err(malformed("k= is missing".to_owned())),
            (_, None) => Err(malformed("v= is missing".to_owned())),
        }
    }
}

impl fmt::Display for KvCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvCodec::Dense(dtype) => f.write_str(dtype.name()),
            KvCodec::Tq(tq) => {
                write!(f, "tq{}", tq.bits.get())?;
                if !tq.rotate {
                    f.write_str("+norot")?;
                }
                if tq.scale == ScaleKind::Norm {
                    f.write_str("+norm")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for KvSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key == self.value {
            write!(f, "{}", self.key)
        } else {
            write!(f, "k={},v={}", self.key, self.value)
        }
    }
}
