//! SPECs: what users write to say how a model's KV cache is kept.

use std::fmt;
use std::str::FromStr;

use super::text::{parse_codec, parse_codecs};
use super::{KvCodec, KvCodecs, KvError, Tq, TqBits};
use crate::DType;

/// Tokens that are also kept in a denser codec and read from there: the first ones, which much attention sinks into,
/// and the most recent ones.
///
/// A side (keys or values) whose own codec has as many bits is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overlay {
    /// How many tokens from the start.
    pub first: u32,
    /// How many of the most recent ones, the query's own included.
    pub recent: u32,
    /// How they are kept, rotated as the side's own codec is. `None` for `q8_0`, or `tq8` where the head size is no
    /// multiple of 32.
    pub codec: Option<KvCodec>,
}

impl Overlay {
    /// What goes with a codebook codec of fewer than 8 bits.
    pub const STANDARD: Self = Self {
        first: 4,
        recent: 32,
        codec: None,
    };

    /// How a side of the cache keeps these tokens; `None` when its own codec has as many bits.
    pub fn side(&self, codec: KvCodec, head_dim: usize) -> Option<KvCodec> {
        let kept = self
            .codec
            .unwrap_or(if head_dim.is_multiple_of(DType::Q8_0.block_len()) {
                KvCodec::Dense(DType::Q8_0)
            } else {
                KvCodec::Tq(Tq::new(TqBits::B8))
            })
            .with_rotation(codec.rotates());
        (code_bits(kept) > code_bits(codec)).then_some(kept)
    }
}

/// The whole bits that a codec spends on a number, without scales.
fn code_bits(codec: KvCodec) -> usize {
    match codec {
        KvCodec::Tq(tq) => tq.bits.get(),
        KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
            8 * dtype.block_bytes() / dtype.block_len()
        }
    }
}

/// How one layer's cache is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerKv {
    /// The codecs.
    pub codecs: KvCodecs,
    /// Whether keys are divided, and queries multiplied, by a factor per channel that evens out the channels' share in
    /// the scores.
    pub equalise: bool,
    /// Whether keys are stored less their mean.
    pub center: bool,
    /// Which tokens are also kept more exactly.
    pub overlay: Option<Overlay>,
}

impl LayerKv {
    /// The codecs with the policy that goes with them: codebook keys of fewer than 8 bits are equalised and centred, and
    /// where a side has a codebook codec of fewer than 8 bits there is an overlay. All others are plain.
    pub fn standard(codecs: KvCodecs) -> Self {
        let coarse = |codec| matches!(codec, KvCodec::Tq(tq) if tq.bits < TqBits::B8);
        let prepared = coarse(codecs.key) && codecs.key.rotates();
        Self {
            codecs,
            equalise: prepared,
            center: prepared,
            overlay: (coarse(codecs.key) || coarse(codecs.value)).then_some(Overlay::STANDARD),
        }
    }

    /// The codecs and nothing else.
    pub const fn plain(codecs: KvCodecs) -> Self {
        Self {
            codecs,
            equalise: false,
            center: false,
            overlay: None,
        }
    }

    /// Whether keys are prepared with what a calibration finds.
    pub const fn needs_calibration(&self) -> bool {
        self.equalise || self.center
    }

    /// What it means at a head size, in words.
    pub fn describe(&self, head_dim: usize) -> String {
        let KvCodecs { key, value } = self.codecs;
        let mut words = if key == value {
            vec![format!("keys and values in {key}")]
        } else {
            vec![format!("keys in {key}, values in {value}")]
        };
        match (self.equalise, self.center) {
            (true, true) => words.push("keys equalised and centred".to_owned()),
            (true, false) => words.push("keys equalised".to_owned()),
            (false, true) => words.push("keys centred".to_owned()),
            (false, false) => {}
        }
        if let Some(overlay) = self.overlay {
            let Overlay { first, recent, .. } = overlay;
            let kept = [("keys", key), ("values", value)]
                .into_iter()
                .filter_map(|(side, codec)| Some((side, overlay.side(codec, head_dim)?)))
                .collect::<Vec<_>>();
            let of = match kept.as_slice() {
                [(_, a), (_, b)] if a == b => format!("in {a}"),
                sides => sides
                    .iter()
                    .map(|(side, codec)| format!("{side} in {codec}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            words.push(format!(
                "first {first} and recent {recent} tokens also {of}"
            ));
        }
        words.join("; ")
    }
}

/// A number of bits per value to stay within, by the best pair and policy known for it. Once keys are equalised and
/// centred they need no more bits than values; half a bit left over goes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Budget {
    /// `3bit`: keys and values of 3 bits.
    B3,
    /// `3.5bit`: keys of 4 bits, values of 3.
    B3Half,
    /// `4bit`: keys and values of 4 bits.
    B4,
    /// `5bit`: keys and values of 5 bits.
    B5,
    /// `8bit`: 8 bits, and nothing else.
    B8,
}

impl Budget {
    /// Every budget, ascending.
    pub const ALL: [Budget; 5] = [
        Budget::B3,
        Budget::B3Half,
        Budget::B4,
        Budget::B5,
        Budget::B8,
    ];

    /// Its name in a SPEC.
    pub const fn name(self) -> &'static str {
        match self {
            Budget::B3 => "3bit",
            Budget::B3Half => "3.5bit",
            Budget::B4 => "4bit",
            Budget::B5 => "5bit",
            Budget::B8 => "8bit",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|budget| budget.name() == name)
    }

    /// What it stands for.
    pub fn kv(self) -> LayerKv {
        let tq = |bits| KvCodec::Tq(Tq::new(bits));
        let (key, value) = match self {
            Budget::B3 => (TqBits::B3, TqBits::B3),
            Budget::B3Half => (TqBits::B4, TqBits::B3),
            Budget::B4 => (TqBits::B4, TqBits::B4),
            Budget::B5 => (TqBits::B5, TqBits::B5),
            Budget::B8 => (TqBits::B8, TqBits::B8),
        };
        LayerKv::standard(KvCodecs {
            key: tq(key),
            value: tq(value),
        })
    }
}

/// Layers from `first` to `last`, both included; negative numbers count from the end, −1 being the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerRange {
    /// The first layer.
    pub first: i32,
    /// The last layer.
    pub last: i32,
}

/// How a model's KV cache is kept: a policy for all layers, and the layers that differ.
///
/// The text form, a SPEC, is a codec, a pair or a [`Budget`], and settings behind semicolons:
///
/// ```
/// use walsh_formats::kv::KvSpec;
/// for spec in [
///     "4bit",                                    // the best that 4 bits per value give
///     "tq4",                                     // keys and values of 4 bits, with equaliser, centre and overlay
///     "tq4+plain",                               // nothing but rotation and codes
///     "k=tq5,v=tq4;first=8;recent=64:f16",       // which tokens are kept more exactly, and how
///     "tq4;equalise=off;overlay=off",
///     "3bit;layers=0-1,-2--1:f16",               // the first two and the last two layers in half precision
/// ] {
///     assert_eq!(spec.parse::<KvSpec>()?.to_string(), spec);
/// }
/// # Ok::<(), walsh_formats::kv::KvError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvSpec {
    /// How layers are kept that no exception names.
    pub all: LayerKv,
    /// The layers that differ, and how.
    pub exceptions: Vec<(Vec<LayerRange>, LayerKv)>,
    /// The budget that it was written as, for the text form alone.
    named: Option<Budget>,
}

impl PartialEq for KvSpec {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all && self.exceptions == other.exceptions
    }
}

impl Eq for KvSpec {}

impl From<LayerKv> for KvSpec {
    fn from(all: LayerKv) -> Self {
        Self {
            all,
            exceptions: Vec::new(),
            named: None,
        }
    }
}

impl KvSpec {
    /// One codec for keys and values of all layers, and nothing else.
    pub fn plain(codec: KvCodec) -> Self {
        LayerKv::plain(KvCodecs::both(codec)).into()
    }

    /// How each of a model's layers is kept.
    ///
    /// # Errors
    /// [`KvError::Layers`] when a range reaches past the model's layers, or two exceptions name the same layer.
    pub fn layers(&self, count: usize) -> Result<Vec<LayerKv>, KvError> {
        let mut layers = vec![self.all; count];
        let mut named = vec![false; count];
        for (ranges, kv) in &self.exceptions {
            for range in ranges {
                let wrong = |why: String| KvError::Layers {
                    given: self.to_string(),
                    why,
                };
                let index = |number: i32| {
                    let count = count as i64;
                    let index = i64::from(number) + if number < 0 { count } else { 0 };
                    (0..count).contains(&index).then_some(index as usize)
                };
                let outside = || {
                    wrong(format!(
                        "layers {range} are not all among the model's {count}"
                    ))
                };
                let first = index(range.first).ok_or_else(outside)?;
                let last = index(range.last).ok_or_else(outside)?;
                if first > last {
                    return Err(wrong(format!(
                        "layers {range} of {count} end before they begin"
                    )));
                }
                for layer in first..=last {
                    if std::mem::replace(&mut named[layer], true) {
                        return Err(wrong(format!("layer {layer} is named twice")));
                    }
                    layers[layer] = *kv;
                }
            }
        }
        Ok(layers)
    }

    /// What it means at a head size, in words.
    pub fn describe(&self, head_dim: usize) -> String {
        let mut words = self.all.describe(head_dim);
        for (ranges, kv) in &self.exceptions {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            words.push_str(&format!(
                "; layers {}: {}",
                ranges.join(", "),
                kv.describe(head_dim)
            ));
        }
        words
    }

    /// Whether some layer's keys are prepared with what a calibration finds.
    pub fn needs_calibration(&self) -> bool {
        let layers = self.exceptions.iter().map(|(_, kv)| kv);
        layers.chain([&self.all]).any(LayerKv::needs_calibration)
    }
}

/// The settings that can stand behind a semicolon, for messages.
const SETTINGS: &str = "settings are first=N, recent=N (with :CODEC if wanted), overlay=off, equalise=on|off, center=on|off and layers=RANGES:SPEC";

/// Reads SPECs; `given` is the whole text, for messages.
struct Parser<'a> {
    given: &'a str,
}

/// The settings of a SPEC, each at most once.
#[derive(Default)]
struct Settings {
    equalise: Option<bool>,
    center: Option<bool>,
    overlay_off: Option<()>,
    first: Option<u32>,
    recent: Option<u32>,
    codec: Option<KvCodec>,
}

impl Parser<'_> {
    fn malformed(&self, why: impl Into<String>) -> KvError {
        KvError::Malformed {
            given: self.given.to_owned(),
            why: why.into(),
        }
    }

    /// A budget, a codec or a pair, with the policy that goes with it.
    fn base(&self, text: &str) -> Result<LayerKv, KvError> {
        if let Some(budget) = Budget::named(text) {
            return Ok(budget.kv());
        }
        let looks_like_budget = text
            .strip_suffix("bit")
            .is_some_and(|bits| bits.parse::<f64>().is_ok());
        if looks_like_budget {
            return Err(KvError::Unknown {
                given: self.given.to_owned(),
                what: "budget",
                word: text.to_owned(),
                possible: format!("budgets are {}", Budget::ALL.map(Budget::name).join(", ")),
            });
        }
        let mut plain = [false; 2];
        let codecs = parse_codecs(text, self.given, Some(&mut plain))?;
        match plain {
            [false, false] => Ok(LayerKv::standard(codecs)),
            [true, true] => Ok(LayerKv::plain(codecs)),
            _ => Err(self.malformed(
                "+plain stands behind one of the codecs: put it behind both, or write what to leave out, such as ;overlay=off",
            )),
        }
    }

    fn spec(&self) -> Result<KvSpec, KvError> {
        if self.given.is_empty() {
            return Err(self.malformed("it is empty"));
        }
        let mut parts = self.given.split(';');
        let base = parts.next().unwrap_or_default();
        let mut all = self.base(base)?;
        let mut settings = Settings::default();
        let mut exceptions = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "layers" => exceptions.push(self.exception(value)?),
                "equalise" | "equalize" => {
                    self.once(name, &mut settings.equalise, self.switch(part, value)?)?;
                }
                "center" | "centre" => {
                    self.once(name, &mut settings.center, self.switch(part, value)?)?;
                }
                "overlay" => {
                    if value != "off" {
                        return Err(self.malformed(format!(
                            "{part:?}: overlay can be off; which tokens it keeps is said by first= and recent="
                        )));
                    }
                    self.once(name, &mut settings.overlay_off, ())?;
                }
                "first" => self.tokens(part, value, &mut settings, |s| &mut s.first)?,
                "recent" => self.tokens(part, value, &mut settings, |s| &mut s.recent)?,
                _ => {
                    return Err(KvError::Unknown {
                        given: self.given.to_owned(),
                        what: "setting",
                        word: part.to_owned(),
                        possible: SETTINGS.to_owned(),
                    });
                }
            }
        }
        self.apply(&mut all, &settings)?;
        Ok(KvSpec {
            all,
            exceptions,
            named: Budget::named(base),
        })
    }

    fn apply(&self, kv: &mut LayerKv, settings: &Settings) -> Result<(), KvError> {
        kv.equalise = settings.equalise.unwrap_or(kv.equalise);
        kv.center = settings.center.unwrap_or(kv.center);
        let kept = settings.first.is_some() || settings.recent.is_some();
        if settings.overlay_off.is_some() {
            if kept {
                return Err(self.malformed("overlay=off contradicts first= and recent="));
            }
            kv.overlay = None;
        }
        if !kept {
            return Ok(());
        }
        // Beside codecs that have no overlay of their own, what is not said is zero.
        let base = kv.overlay.unwrap_or(Overlay {
            first: 0,
            recent: 0,
            codec: None,
        });
        let overlay = Overlay {
            first: settings.first.unwrap_or(base.first),
            recent: settings.recent.unwrap_or(base.recent),
            codec: settings.codec.or(base.codec),
        };
        // A head size that every codec takes: what is asked is only which has more bits.
        let used = [kv.codecs.key, kv.codecs.value]
            .into_iter()
            .any(|codec| overlay.side(codec, 64).is_some());
        if !used {
            return Err(self.malformed(format!(
                "{} has no fewer bits than the codec of the overlay: leave first= and recent= out, or name a denser one, such as recent=32:f16",
                kv.codecs
            )));
        }
        kv.overlay = (overlay.first > 0 || overlay.recent > 0).then_some(overlay);
        Ok(())
    }

    fn once<T>(&self, name: &str, slot: &mut Option<T>, value: T) -> Result<(), KvError> {
        match slot.replace(value) {
            Some(_) => Err(self.malformed(format!("{name}= stands twice"))),
            None => Ok(()),
        }
    }

    fn switch(&self, part: &str, value: &str) -> Result<bool, KvError> {
        match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.malformed(format!("{part:?}: it can be on or off"))),
        }
    }

    /// `N` or `N:CODEC`.
    fn tokens(
        &self,
        part: &str,
        value: &str,
        settings: &mut Settings,
        slot: impl Fn(&mut Settings) -> &mut Option<u32>,
    ) -> Result<(), KvError> {
        let (number, codec) = match value.split_once(':') {
            Some((number, codec)) => (number, Some(codec)),
            None => (value, None),
        };
        let count = number
            .parse::<u32>()
            .ok()
            .filter(|count| *count <= 1 << 20)
            .ok_or_else(|| {
                self.malformed(format!(
                    "{part:?}: it takes a number of tokens up to 1048576"
                ))
            })?;
        let name = part.split('=').next().unwrap_or_default();
        self.once(name, slot(settings), count)?;
        let Some(codec) = codec else { return Ok(()) };
        let codec = parse_codec(codec, self.given, None)?;
        if codec.rotates() != matches!(codec, KvCodec::Tq(_)) {
            return Err(self.malformed(format!(
                "{part:?}: the overlay is rotated as the codec beside it is; name its codec without +rot and +norot"
            )));
        }
        match settings.codec.replace(codec) {
            Some(other) if other != codec => {
                Err(self
                    .malformed("first= and recent= name different codecs, but the overlay has one"))
            }
            _ => Ok(()),
        }
    }

    /// `RANGES:SPEC`.
    fn exception(&self, text: &str) -> Result<(Vec<LayerRange>, LayerKv), KvError> {
        let (ranges, spec) = text.split_once(':').ok_or_else(|| {
            self.malformed(
                "layers= takes ranges, a colon and how they are kept, such as layers=0-1,-2--1:f16",
            )
        })?;
        let ranges: Result<_, _> = ranges.split(',').map(|text| self.range(text)).collect();
        Ok((ranges?, self.base(spec)?))
    }

    /// `N` or `N-N`, each number with a minus in front of it or not.
    fn range(&self, text: &str) -> Result<LayerRange, KvError> {
        let wrong = || {
            self.malformed(format!(
                "{text:?} is not a layer such as 3 or -1, nor a range of layers such as 0-1 or -2--1"
            ))
        };
        let number = |text: &str| text.parse::<i32>().map_err(|_| wrong());
        let signs = usize::from(text.starts_with('-'));
        let (first, last) = match text[signs..].split_once('-') {
            Some((first, last)) => (&text[..signs + first.len()], last),
            None => (text, text),
        };
        if last.starts_with('+') || first.starts_with('+') {
            return Err(wrong());
        }
        Ok(LayerRange {
            first: number(first)?,
            last: number(last)?,
        })
    }
}

impl FromStr for KvSpec {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        Parser { given: text }.spec()
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for LayerKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standard = Self::standard(self.codecs);
        let KvCodecs { key, value } = self.codecs;
        let both_tq = matches!((key, value), (KvCodec::Tq(_), KvCodec::Tq(_)));
        if *self == Self::plain(self.codecs) && *self != standard && both_tq {
            return if key == value {
                write!(f, "{key}+plain")
            } else {
                write!(f, "k={key}+plain,v={value}+plain")
            };
        }
        write!(f, "{}", self.codecs)?;
        self.write_settings(f)
    }
}

impl LayerKv {
    /// Where the policy differs from the one that goes with the codecs.
    fn write_settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standard = Self::standard(self.codecs);
        let switch = |on| if on { "on" } else { "off" };
        if self.equalise != standard.equalise {
            write!(f, ";equalise={}", switch(self.equalise))?;
        }
        if self.center != standard.center {
            write!(f, ";center={}", switch(self.center))?;
        }
        match (self.overlay, standard.overlay) {
            (None, Some(_)) => f.write_str(";overlay=off"),
            (Some(overlay), base) => {
                let none = Overlay {
                    first: 0,
                    recent: 0,
                    codec: None,
                };
                let base = base.unwrap_or(none);
                let codec = match overlay.codec {
                    Some(codec) => format!(":{codec}"),
                    None => String::new(),
                };
                if overlay.first != base.first {
                    write!(f, ";first={}", overlay.first)?;
                }
                if overlay.recent != base.recent || overlay.codec != base.codec {
                    write!(f, ";recent={}{codec}", overlay.recent)?;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for KvSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self
            .named
            .filter(|budget| budget.kv().codecs == self.all.codecs)
        {
            Some(budget) => {
                f.write_str(budget.name())?;
                self.all.write_settings(f)?;
            }
            None => write!(f, "{}", self.all)?,
        }
        for (ranges, kv) in &self.exceptions {
            f.write_str(";layers=")?;
            for (index, range) in ranges.iter().enumerate() {
                if index > 0 {
                    f.write_str(",")?;
                }
                write!(f, "{range}")?;
            }
            write!(f, ":{kv}")?;
        }
        Ok(())
    }
}
