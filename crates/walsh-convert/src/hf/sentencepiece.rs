//! The pieces of a SentencePiece model: a message of Protocol Buffers, of which field 1 is repeated and has the text, the
//! score and the kind of a piece.

/// A piece of a vocabulary.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    /// As GGUF counts them: 1 normal, 2 unknown, 3 control, 4 the user's, 5 unused, 6 a byte.
    pub(super) kind: i32,
}

/// A field of a message: its number, and its value.
enum Field<'a> {
    Number(u64, u64),
    Bits(u64, u32),
    Bytes(u64, &'a [u8]),
    Other,
}

/// The pieces; `None` where the bytes are no such message.
pub(super) fn pieces(bytes: &[u8]) -> Option<Vec<Piece>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        if let Field::Bytes(1, message) = field(&mut rest)? {
            pieces.push(piece(message)?);
        }
    }
    (!pieces.is_empty()).then_some(pieces)
}

fn piece(mut rest: &[u8]) -> Option<Piece> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: 1,
    };
    while !rest.is_empty() {
        match field(&mut rest)? {
            Field::Bytes(1, text) => piece.text = str::from_utf8(text).ok()?.to_owned(),
            Field::Bits(2, bits) => piece.score = f32::from_bits(bits),
            Field::Number(3, kind) => piece.kind = i32::try_from(kind).ok()?,
            _ => {}
        }
    }
    Some(piece)
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let tag = varint(rest)?;
    let number = tag >> 3;
    Some(match tag & 7 {
        0 => Field::Number(number, varint(rest)?),
        1 => {
            take(rest, 8)?;
            Field::Other
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(number, take(rest, length)?)
        }
        5 => Field::Bits(number, u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        _ => return None,
    })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_and_other_bytes_are_none() {
        // A piece "ab" of score 1.5 and kind 6, a field that is not read, a piece "c".
        let mut bytes = vec![10, 11, 10, 2, b'a', b'b', 21];
        bytes.extend(1.5f32.to_le_bytes());
        bytes.extend([24, 6, 18, 1, 0, 10, 3, 10, 1, b'c']);
        let found = pieces(&bytes).expect("a message");
        let piece = |text: &str, score, kind| Piece {
            text: text.to_owned(),
            score,
            kind,
        };
        assert_eq!(found, [piece("ab", 1.5, 6), piece("c", 0.0, 1)]);
        for end in 1..bytes.len() {
            if let Some(found) = pieces(&bytes[..end]) {
                assert!(found.len() <= 2);
            }
        }
        assert_eq!(pieces(b""), None);
        assert_eq!(pieces(&[255; 20]), None);
        assert_eq!(pieces(&[10, 200, 1, 0]), None);
    }
}
