//! SPECs: what reads back, and what is refused.

use super::{Budget, KvSpec, LayerKv, Overlay};
use crate::kv::{KvCodec, KvCodecs};

fn spec(text: &str) -> KvSpec {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn codecs_read_back() {
    for text in [
        "f16",
        "tq4",
        "tq8+norot",
        "tq4+norm",
        "tq6+norot+norm",
        "tq4+norm:1.05",
        "q8_0",
        "q4_0+rot",
        "k=tq5,v=tq4",
        "k=f16,v=tq8+norot",
    ] {
        assert_eq!(text.parse::<KvCodecs>().unwrap().to_string(), text);
        assert_eq!(spec(text).to_string(), text);
    }
    assert_eq!(
        "v=tq4,k=tq4".parse::<KvCodecs>().unwrap().to_string(),
        "tq4"
    );
}

#[test]
fn specs_read_back_in_their_shortest_form() {
    for (text, shortest) in [
        ("4bit", "4bit"),
        ("k=tq4,v=tq4", "tq4"),
        ("tq8+norm:1", "tq8+norm"),
        ("k=tq4,v=tq3", "k=tq4,v=tq3"),
        ("3.5bit", "3.5bit"),
        ("2.25bit", "2.25bit"),
        ("8bit", "8bit"),
        ("4bit;overlay=off", "4bit;overlay=off"),
        ("tq4+plain", "tq4+plain"),
        (
            "5bit;recent=8;layers=1:3.5bit",
            "5bit;recent=8;layers=1:k=tq4,v=tq3",
        ),
        ("tq8+plain", "tq8"),
        ("k=tq5+plain,v=tq3+plain", "k=tq5+plain,v=tq3+plain"),
        ("tq4;equalise=off;center=off;overlay=off", "tq4+plain"),
        ("k=f16,v=tq4;overlay=off", "k=f16,v=tq4;overlay=off"),
        ("tq4;first=4;recent=32", "tq4"),
        ("tq4;recent=64:f16", "tq4;recent=64:f16"),
        ("tq4;first=2:f16", "tq4;first=2;recent=32:f16"),
        ("tq4;first=0;recent=0", "tq4;overlay=off"),
        ("q4_0;recent=16", "q4_0;recent=16"),
        ("q4_0;equalise=on", "q4_0;equalise=on"),
        ("tq4;equalize=off;centre=off", "tq4;equalise=off;center=off"),
        ("tq4;layers=0-1,-2--1:f16", "tq4;layers=0-1,-2--1:f16"),
        (
            "tq4;layers=3-3:k=tq5,v=tq4;layers=-1:8bit",
            "tq4;layers=3:k=tq5,v=tq4;layers=-1:tq8",
        ),
    ] {
        let read = spec(text);
        assert_eq!(read.to_string(), shortest);
        assert_eq!(spec(shortest), read, "{text}");
    }
}

#[test]
fn what_a_word_stands_for() {
    let tq4 = spec("tq4").all;
    assert!(tq4.equalise && tq4.center);
    assert_eq!(tq4.overlay, Some(Overlay::STANDARD));
    for plain in ["f16", "q4_0", "q4_0+rot", "tq8", "8bit", "tq4+plain"] {
        let kv = spec(plain).all;
        assert_eq!(kv, LayerKv::plain(kv.codecs), "{plain}");
    }
    assert!(!spec("tq4+norot").needs_calibration());
    assert!(spec("f16;layers=0:tq4").needs_calibration());
    for budget in Budget::ALL {
        assert_eq!(spec(budget.name()).all, budget.kv());
        assert_eq!(budget.name(), format!("{}bit", budget.bits()));
        // Whether it is written as a budget or not makes no difference.
        assert_eq!(spec(budget.name()), budget.kv().into());
    }
}

#[test]
fn an_overlay_holds_the_sides_with_fewer_bits() {
    let codec = |text: &str| text.parse::<KvCodec>().unwrap();
    let side = |overlay: Overlay, text, d| overlay.side(codec(text), d).map(|c| c.to_string());
    let standard = Overlay::STANDARD;
    assert_eq!(side(standard, "tq4", 64).as_deref(), Some("q8_0+rot"));
    assert_eq!(side(standard, "tq4", 80).as_deref(), Some("tq8"));
    assert_eq!(
        side(standard, "tq4+norot", 112).as_deref(),
        Some("tq8+norot")
    );
    assert_eq!(side(standard, "q4_0", 64).as_deref(), Some("q8_0"));
    for same in ["tq8", "q8_0", "f16", "f32"] {
        assert_eq!(side(standard, same, 64), None, "{same}");
    }
    let f16 = Overlay {
        codec: Some(codec("f16")),
        ..standard
    };
    assert_eq!(side(f16, "tq8", 64).as_deref(), Some("f16+rot"));
}

#[test]
fn layers_are_resolved_against_a_model() {
    let layers = spec("tq4;layers=0-1,-2--1:f16").layers(6).unwrap();
    let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["f16", "f16", "tq4", "tq4", "f16", "f16"]);
    for (text, part) in [
        (
            "tq4;layers=0-6:f16",
            "layers 0-6 are not all among the model's 6",
        ),
        ("tq4;layers=-7:f16", "not all among"),
        ("tq4;layers=-1-0:f16", "end before they begin"),
        ("tq4;layers=0-1:f16;layers=1:f32", "layer 1 is named twice"),
    ] {
        let wrong = spec(text).layers(6).unwrap_err().to_string();
        assert!(wrong.contains(part), "{text}: {wrong}");
    }
}

#[test]
fn layers_of_their_own_make_a_spec() {
    let pairs = |texts: &[&str]| -> Vec<KvCodecs> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    for (layers, text) in [
        (&["tq3"][..], "tq3"),
        (&["tq4", "tq3", "tq3"], "tq3;layers=0:tq4"),
        (
            &["tq4", "tq4", "k=tq5,v=tq2", "tq3", "tq3", "tq3", "tq4"],
            "tq4;layers=3-5:tq3;layers=2:k=tq5,v=tq2",
        ),
        (
            &["tq2", "tq6", "tq2", "tq6", "tq6", "tq2", "tq2"],
            "tq2;layers=1,3-4:tq6",
        ),
    ] {
        let layers = pairs(layers);
        let made = KvSpec::of_layers(&layers).unwrap();
        assert_eq!(made.to_string(), text);
        assert_eq!(spec(text), made);
        let codecs: Vec<KvCodecs> = made
            .layers(layers.len())
            .unwrap()
            .iter()
            .map(|kv| kv.codecs)
            .collect();
        assert_eq!(codecs, layers);
    }
    assert_eq!(KvSpec::of_layers(&[]), None);
}

#[test]
fn wrong_specs_say_what_is_possible() {
    for (text, part) in [
        ("", "it is empty"),
        (
            "tq7",
            "unknown codec \"tq7\"; codecs are f32, f16, bf16, q8_0, q5_0, q4_0 (with +rot if wanted) and tq2, tq3, tq4, tq5, tq6, tq8",
        ),
        ("Q8_0", "unknown codec"),
        ("tq04", "unknown codec"),
        (
            "6bit",
            "unknown budget \"6bit\"; budgets are 2.25bit, 2.5bit, 3bit, 3.5bit, 4bit, 5bit, 8bit",
        ),
        ("tq4+equalise", "unknown option \"+equalise\""),
        ("tq4+rot", "rotates anyway"),
        ("q4_0+rot+rot", "stands twice"),
        ("k=tq4,v=tq4,recent=32", "unknown side \"recent=\""),
        ("f16+norot", "is for tq codecs"),
        ("f16+plain", "is for tq codecs"),
        ("f16+x", "unknown option \"+x\""),
        ("tq4+norot+norot", "stands twice"),
        ("tq4+plain+plain", "stands twice"),
        ("tq4+norm+norm:2", "stands twice"),
        ("tq4+norm:0", "from 1/64 to 64"),
        ("tq4+norm:nan", "from 1/64 to 64"),
        ("tq4+norm:", "from 1/64 to 64"),
        ("q8_0+norm:2", "is for tq codecs"),
        ("k=tq4+plain,v=tq4", "put it behind both"),
        ("tq4+", "unknown option \"+\""),
        ("k=tq4", "v= is missing"),
        ("v=tq4", "k= is missing"),
        ("k=tq4,k=tq4,v=f16", "k= stands twice"),
        ("tq4,tq5", "does not say whether it is for k or v"),
        ("q=tq4,v=tq4", "unknown side \"q=\""),
        ("k=,v=tq4", "unknown codec \"\""),
        ("tq4;", "unknown setting \"\"; settings are first=N"),
        ("tq4;reset=3", "unknown setting \"reset=3\""),
        ("tq4;recent", "takes a number of tokens"),
        ("tq4;recent=-1", "takes a number of tokens"),
        ("tq4;recent=9999999999", "takes a number of tokens"),
        ("tq4;recent=1;recent=2", "recent= stands twice"),
        ("tq4;recent=4:f16;first=4:f32", "different codecs"),
        ("tq4;recent=4:q8_0+rot", "without +rot and +norot"),
        ("tq4;overlay=off;recent=4", "contradicts"),
        ("tq4;overlay=on", "overlay can be off"),
        ("f16;recent=4", "no fewer bits"),
        ("tq4;equalise=maybe", "on or off"),
        ("tq4;layers=1", "takes ranges, a colon"),
        ("tq4;layers=a:f16", "\"a\" is not a layer"),
        ("tq4;layers=1-:f16", "\"1-\" is not a layer"),
        ("tq4;layers=1-+2:f16", "is not a layer"),
        ("tq4;layers=:f16", "\"\" is not a layer"),
        ("tq4;layers=1:tq9", "unknown codec \"tq9\""),
    ] {
        let wrong = text.parse::<KvSpec>().unwrap_err().to_string();
        assert!(wrong.contains(part), "{text}: {wrong}");
        assert!(!wrong.contains('\n'));
    }
}
