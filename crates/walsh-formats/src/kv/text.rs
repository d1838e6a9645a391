//! The text form of codecs and of their pairs.

use std::fmt;
use std::str::FromStr;

use super::{KvCodec, KvCodecs, KvError, NormFactor, ScaleKind};

/// The codecs that can be named, for messages.
fn possible_codecs() -> String {
    let names = |turned: bool| {
        let names = KvCodec::all().filter(|codec| codec.turns() == turned);
        names.map(KvCodec::name).collect::<Vec<_>>().join(", ")
    };
    format!(
        "codecs are {} (with +rot if wanted) and {} (with +norot or +norm if wanted)",
        names(false),
        names(true)
    )
}

/// What can stand behind a codec, for messages.
const OPTIONS: &str = "options are +norot, +norm and +plain after a tq codec, +rot after another";

/// Reads a codec. `plain` becomes whether `+plain` stands behind it, which only a SPEC may say: it is about more than
/// the codec.
pub(super) fn parse_codec(
    word: &str,
    given: &str,
    mut plain: Option<&mut bool>,
) -> Result<KvCodec, KvError> {
    let malformed = |why: String| KvError::Malformed {
        given: given.to_owned(),
        why,
    };
    let mut parts = word.split('+');
    let name = parts.next().unwrap_or_default();
    let mut codec = base_codec(name, given)?;
    for option in parts {
        let twice = || malformed(format!("+{option} stands twice"));
        let (option, factor) = match option.strip_prefix("norm:") {
            Some(factor) => ("norm", factor),
            None => (option, "1"),
        };
        match (option, &mut codec) {
            ("rot", codec) if codec.turns() => {
                return Err(malformed(format!(
                    "{name} rotates anyway; +rot is for ggml's types and floats"
                )));
            }
            ("rot", codec) if codec.rotates() => return Err(twice()),
            ("rot", codec) => *codec = codec.with_rotation(true),
            ("norot", codec) if codec.rotates() && codec.turns() => {
                *codec = codec.with_rotation(false);
            }
            ("norot", codec) if codec.turns() => return Err(twice()),
            ("norm", KvCodec::Tq(tq)) if tq.scale == ScaleKind::LeastSquares => {
                let factor = factor.parse().ok().and_then(NormFactor::new);
                tq.scale = ScaleKind::Norm(factor.ok_or_else(|| {
                    malformed("the factor behind +norm: is a number from 1/64 to 64".to_owned())
                })?);
            }
            ("norm", KvCodec::Tq(_)) => return Err(twice()),
            ("plain", codec) if codec.turns() => match plain.as_deref_mut() {
                Some(plain) if *plain => return Err(twice()),
                Some(plain) => *plain = true,
                None => {
                    return Err(malformed(
                        "+plain is for a whole SPEC: it leaves out what is not part of a codec"
                            .to_owned(),
                    ));
                }
            },
            ("norot" | "norm" | "plain", _) => {
                return Err(malformed(format!(
                    "+{option} is for tq codecs, not for {name}"
                )));
            }
            _ => {
                return Err(KvError::Unknown {
                    given: given.to_owned(),
                    what: "option",
                    word: format!("+{option}"),
                    possible: OPTIONS.to_owned(),
                });
            }
        }
    }
    Ok(codec)
}

fn base_codec(name: &str, given: &str) -> Result<KvCodec, KvError> {
    let named = KvCodec::all().find(|codec| codec.name() == name);
    named.ok_or_else(|| KvError::Unknown {
        given: given.to_owned(),
        what: "codec",
        word: name.to_owned(),
        possible: possible_codecs(),
    })
}

/// Reads `CODEC` or `k=CODEC,v=CODEC`; `plain` is filled for keys and values as [`parse_codec`] says.
pub(super) fn parse_codecs(
    text: &str,
    given: &str,
    plain: Option<&mut [bool; 2]>,
) -> Result<KvCodecs, KvError> {
    let malformed = |why: String| KvError::Malformed {
        given: given.to_owned(),
        why,
    };
    let mut found = [false; 2];
    let whole_spec = plain.is_some();
    let mut parse = |word, side: usize| {
        let plain = whole_spec.then_some(&mut found[side]);
        parse_codec(word, given, plain)
    };
    if text.is_empty() {
        return Err(malformed("it names no codec".to_owned()));
    }
    let codecs = if text.contains(['=', ',']) {
        let (mut key, mut value) = (None, None);
        for part in text.split(',') {
            let (side, codec) = part.split_once('=').ok_or_else(|| {
                malformed(format!("{part:?} does not say whether it is for k or v"))
            })?;
            let (slot, index) = match side {
                "k" => (&mut key, 0),
                "v" => (&mut value, 1),
                _ => {
                    return Err(KvError::Unknown {
                        given: given.to_owned(),
                        what: "side",
                        word: format!("{side}="),
                        possible: "the sides are k= and v=; settings come behind a semicolon"
                            .to_owned(),
                    });
                }
            };
            if slot.replace(parse(codec, index)?).is_some() {
                return Err(malformed(format!("{side}= stands twice")));
            }
        }
        match (key, value) {
            (Some(key), Some(value)) => KvCodecs { key, value },
            (None, _) => return Err(malformed("k= is missing".to_owned())),
            (_, None) => return Err(malformed("v= is missing".to_owned())),
        }
    } else {
        let codec = parse(text, 0)?;
        found[1] = found[0];
        KvCodecs::both(codec)
    };
    if let Some(plain) = plain {
        *plain = found;
    }
    Ok(codecs)
}

impl FromStr for KvCodec {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        parse_codec(text, text, None)
    }
}

impl FromStr for KvCodecs {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        parse_codecs(text, text, None)
    }
}

impl fmt::Display for KvCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match (self.turns(), self.rotates()) {
            (true, false) => f.write_str("+norot")?,
            (false, true) => f.write_str("+rot")?,
            _ => {}
        }
        let KvCodec::Tq(tq) = self else {
            return Ok(());
        };
        match tq.scale {
            ScaleKind::LeastSquares => Ok(()),
            ScaleKind::Norm(NormFactor::ONE) => f.write_str("+norm"),
            ScaleKind::Norm(factor) => write!(f, "+norm:{}", factor.get()),
        }
    }
}

impl fmt::Display for KvCodecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key == self.value {
            write!(f, "{}", self.key)
        } else {
            write!(f, "k={},v={}", self.key, self.value)
        }
    }
}
