//! Damage to files: GGUF files and saved sessions.

use twox_hash::XxHash3_128;

use walsh::formats::random::SplitMix64;

/// Numbers that programs get wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    1 << 24,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// A file with a few places changed, most of them among its first `head` bytes.
pub(crate) fn damaged(file: &[u8], head: usize, random: &mut SplitMix64) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..1 + random.below(4) {
        if file.is_empty() {
            break;
        }
        let end = if random.below(8) == 0 {
            file.len()
        } else {
            head.min(file.len())
        };
        let at = random.below(end.max(1));
        match random.below(8) {
            0 | 1 => file[at] ^= 1 << random.below(8),
            2 => file[at] = random.bits() as u8,
            3 | 4 => {
                let width = *random.pick(&[1, 2, 4, 8]);
                let number = random.pick(&NUMBERS).to_le_bytes();
                let width = width.min(file.len() - at);
                file[at..at + width].copy_from_slice(&number[..width]);
            }
            5 => {
                let length = 1 + random.below(64);
                file.drain(at..(at + length).min(file.len()));
            }
            6 => {
                let length = 1 + random.below(64);
                let piece = file[at..(at + length).min(file.len())].to_vec();
                let to = random.below(end.max(1));
                file.splice(to..to, piece);
            }
            _ => file.truncate(at),
        }
    }
    file
}

/// A saved session with contents changed and checksums that hold, mostly.
pub(crate) fn session(file: &[u8], random: &mut SplitMix64) -> Vec<u8> {
    let Some(sections) = sections(file) else {
        return damaged(file, 512, random);
    };
    if random.below(4) == 0 {
        return damaged(file, 512, random);
    }
    let mut file = file.to_vec();
    for _ in 0..1 + random.below(3) {
        let (start, end) = *random.pick(&sections);
        if start == end {
            continue;
        }
        let at = start + random.below((end - start).min(256));
        match random.below(3) {
            0 => file[at] ^= 1 << random.below(8),
            1 => file[at] = random.bits() as u8,
            _ => {
                let width = (*random.pick(&[1, 2, 4, 8])).min(end - at);
                let number = random.pick(&NUMBERS).to_le_bytes();
                file[at..at + width].copy_from_slice(&number[..width]);
            }
        }
    }
    let header = sections.first().map_or(0, |first| first.0 - CHECKSUM);
    for end in std::iter::once(header).chain(sections.iter().map(|section| section.1)) {
        let checksum = XxHash3_128::oneshot(&file[..end]);
        file[end..end + CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    }
    file
}

const CHECKSUM: usize = 16;

/// Where the sections of a saved session lie, as `walsh_runtime`'s `container` describes it; the first is the header.
fn sections(file: &[u8]) -> Option<Vec<(usize, usize)>> {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let table = 52 + word(20)?;
    let count = word(48)?;
    let mut at = table + 12 * count + CHECKSUM;
    let mut found = Vec::new();
    for index in 0..count {
        let length = word(table + 12 * index + 4)?;
        found.push((at, at + length));
        at += length + CHECKSUM;
    }
    (at == file.len()).then_some(found)
}
