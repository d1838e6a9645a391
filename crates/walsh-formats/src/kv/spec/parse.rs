//! Reading SPECs.

use std::str::FromStr;

use super::{Budget, KvSpec, LayerKv, LayerRange, Overlay};
use crate::kv::text::{parse_codec, parse_codecs};
use crate::kv::{KvCodec, KvError};

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
        if codec.rotates() != codec.turns() {
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
