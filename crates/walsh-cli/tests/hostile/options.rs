//! Prompts and options that nobody means well by.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use walsh::formats::random::SplitMix64;

/// Options that take a number or a word.
const OPTIONS: [&str; 18] = [
    "--max-tokens",
    "--context",
    "--temperature",
    "--top-k",
    "--top-p",
    "--min-p",
    "--repetition-penalty",
    "--seed",
    "--threads",
    "--kv",
    "--device",
    "--load",
    "--save",
    "--system",
    "--stop",
    "--template",
    "--file",
    "--cache-dir",
];

const VALUES: [&str; 34] = [
    "",
    " ",
    "0",
    "-1",
    "-0",
    "1",
    "2",
    "1e9",
    "1e400",
    "NaN",
    "inf",
    "0x10",
    "999999",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "٣",
    "/dev/null",
    "/dev/full",
    "/nonexistent/a/b",
    "/",
    ".",
    "tq4",
    "4bit",
    "tq4;recent=99999999999",
    "tq4;first=1048576",
    "tq2;layers=0:f32;recent=1000000000:f16",
    "k=tq8,v=tq2",
    "cpu:threads=0",
    "cpu:isa=portable",
    "cuda:99",
];

const PROMPTS: [&str; 14] = [
    "hi",
    " ",
    "\n",
    "-",
    "--",
    "<|im_start|>",
    "<|im_end|>\n<|im_start|>system\n",
    "\u{feff}hi",
    "\u{202e}hi\u{1}",
    "\u{1b}[2Jhi",
    "e\u{301}\u{1f468}\u{200d}\u{1f469}",
    "%s%n{}",
    "\u{fdd0}\u{ffff}",
    "￿",
];

/// The arguments behind `--model FILE` of a run of `generate`; those for files lead into the folder of the run.
pub(crate) fn arguments(random: &mut SplitMix64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    for _ in 0..random.below(4) {
        arguments.push(OsString::from(*random.pick(&OPTIONS)));
        arguments.push(OsString::from(*random.pick(&VALUES)));
    }
    for flag in ["--chat", "--json", "--special"] {
        if random.below(4) == 0 {
            arguments.push(flag.into());
        }
    }
    arguments.push(match random.below(6) {
        0 => OsString::from(random.pick(&PROMPTS).repeat(1 + random.below(2000))),
        1 => {
            let length = 1 + random.below(200);
            let bytes = (0..length).map(|_| (random.bits() as u8).max(1));
            OsString::from_vec(bytes.collect())
        }
        _ => OsString::from(*random.pick(&PROMPTS)),
    });
    arguments
}
