use std::io;

use super::*;

const KIND: Kind = Kind {
    tag: *b"TEST",
    version: 3,
    oldest: 2,
    name: "a test",
};

fn origin(byte: u8) -> Origin<'static> {
    Origin {
        fingerprint: Fingerprint::from_bytes([byte; 16]),
        name: "Tiny",
    }
}

fn frame(kind: Kind, byte: u8) -> Frame<'static> {
    Frame {
        path: Path::new("a.walsh"),
        kind,
        origin: origin(byte),
    }
}

fn sections() -> Vec<Section<'static>> {
    vec![
        Section::of(*b"ONE ", b"first".to_vec()),
        Section::of(*b"NONE", Vec::new()),
        Section::streamed(*b"LONG", 3000, |sink| {
            (0..3).try_for_each(|piece| sink.put(&[piece; 1000]))
        }),
    ]
}

fn file() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(KIND, 7).write(&mut bytes, sections()).unwrap();
    bytes
}

/// Reads a file to its end, as a caller would.
fn read_all(frame: Frame<'_>, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut sections = frame.read(bytes, bytes.len() as u64)?;
    let first = sections.bytes(*b"ONE ")?;
    sections.stream(*b"LONG", &mut |body| {
        let mut piece = [0; 1500];
        body.take(&mut piece)?;
        body.take(&mut piece)
    })?;
    sections.finish()?;
    Ok(first)
}

#[track_caller]
fn refused(read: Result<Vec<u8>>, part: &str) {
    let message = read.expect_err("an error").to_string();
    assert!(message.starts_with("a.walsh: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(message.contains(part), "{part:?} is not in {message:?}");
}

#[test]
fn what_is_written_is_read_and_the_rest_is_skipped() {
    let bytes = file();
    assert_eq!(read_all(frame(KIND, 7), &bytes).unwrap(), b"first");
    let mut sections = frame(KIND, 7).read(&bytes[..], bytes.len() as u64).unwrap();
    assert!(sections.has(*b"NONE") && !sections.has(*b"MORE"));
    assert_eq!(sections.bytes(*b"LONG").unwrap()[2999], 2);
    assert!(!sections.has(*b"ONE "), "what was passed is gone");
    sections.finish().unwrap();
    // Nothing but the header and a checksum is fine as well.
    let mut empty = Vec::new();
    frame(KIND, 7).write(&mut empty, Vec::new()).unwrap();
    let read = frame(KIND, 7).read(&empty[..], empty.len() as u64);
    read.unwrap().finish().unwrap();
}

#[test]
fn the_header_lies_as_it_is_documented() {
    let bytes = file();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes[..8], *b"\x89WALSH\r\n");
    assert_eq!(bytes[8..24], *b"\x01\0\0\0TEST\x03\0\0\0\x04\0\0\0");
    assert_eq!(number(24), bytes.len() as u64);
    assert_eq!(bytes[32..48], [7; 16]);
    assert_eq!(bytes[48..56], *b"\x03\0\0\0Tiny");
    assert_eq!((&bytes[56..60], number(60)), (&b"ONE "[..], 5));
    let table_end = 56 + 3 * 12;
    let checksum = XxHash3_128::oneshot(&bytes[..table_end]);
    assert_eq!(bytes[table_end..table_end + 16], checksum.to_le_bytes());
    let before_last = bytes.len() - 16;
    let checksum = XxHash3_128::oneshot(&bytes[..before_last]);
    assert_eq!(bytes[before_last..], checksum.to_le_bytes());
}

#[test]
fn a_file_cut_at_every_byte_is_refused() {
    let bytes = file();
    for length in 0..bytes.len() {
        let what = match length {
            0 => "not saved by Walsh",
            _ => "cut off after",
        };
        refused(read_all(frame(KIND, 7), &bytes[..length]), what);
        // A file that shrinks after its length was asked for.
        let shrunk = frame(KIND, 7).read(&bytes[..length], bytes.len() as u64);
        refused(
            shrunk.and_then(Sections::finish).map(|()| Vec::new()),
            "cut off",
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    refused(read_all(frame(KIND, 7), &longer), "should have");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = file();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            refused(read_all(frame(KIND, 7), &flipped), "a.walsh");
        }
    }
}

#[test]
fn what_is_anothers_is_named() {
    let bytes = file();
    refused(read_all(frame(KIND, 8), &bytes), "\"Tiny\" (07070707");
    let other = Kind {
        tag: *b"ELSE",
        name: "something else",
        ..KIND
    };
    refused(
        read_all(frame(other, 7), &bytes),
        "no file of something else, but of the kind TEST",
    );
    let newer = Kind { version: 4, ..KIND };
    read_all(frame(newer, 7), &bytes).expect("a version that is still read");
    for (version, oldest) in [(5, 4), (2, 1)] {
        let other = Kind {
            version,
            oldest,
            ..KIND
        };
        refused(
            read_all(frame(other, 7), &bytes),
            &format!("version 3 of its format, and this Walsh reads version {version}"),
        );
    }
    let mut newer = bytes.clone();
    newer[8] = 2;
    refused(read_all(frame(KIND, 7), &newer), "version 2");
    refused(
        read_all(frame(KIND, 7), b"GGUF and so on"),
        "not saved by Walsh",
    );
}

#[test]
fn lengths_that_do_not_add_up_allocate_nothing() {
    // A header whose checksum holds, and whose section is larger than any memory.
    let mut bytes = file();
    bytes.truncate(56 + 3 * 12);
    bytes[60..68].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    let checksum = XxHash3_128::oneshot(&bytes);
    bytes.extend(checksum.to_le_bytes());
    let total = bytes.len() as u64;
    refused(read_all(frame(KIND, 7), &bytes), "cut off");
    bytes.truncate(bytes.len() - 16);
    bytes[24..32].copy_from_slice(&total.to_le_bytes());
    let checksum = XxHash3_128::oneshot(&bytes);
    bytes.extend(checksum.to_le_bytes());
    refused(read_all(frame(KIND, 7), &bytes), "should have");
}

#[test]
fn long_names_are_cut_between_characters() {
    let name = "ü".repeat(LONGEST_NAME);
    let mut long = frame(KIND, 7);
    long.origin.name = &name;
    let mut bytes = Vec::new();
    long.write(&mut bytes, sections()).unwrap();
    assert_eq!(read_all(frame(KIND, 7), &bytes).unwrap(), b"first");
}

/// A disk with room for so many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.min(data.len()) {
            0 => Err(ErrorKind::StorageFull.into()),
            room => {
                self.0 -= room;
                Ok(room)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_fills_up_at_any_byte_is_an_error() {
    let length = file().len();
    let write = |room| frame(KIND, 7).write(&mut Disk(room), sections());
    for room in 0..length {
        let message = write(room).expect_err("no room").to_string();
        assert!(message.contains("disk is full"), "{message}");
    }
    write(length).unwrap();
}

#[test]
fn a_section_that_breaks_its_word_is_refused() {
    for bytes in [2, 4] {
        let section = Section::streamed(*b"LIAR", bytes, |sink| sink.put(b"abc"));
        let written = frame(KIND, 7).write(&mut Vec::new(), vec![section]);
        refused(written.map(|()| Vec::new()), "LIAR");
    }
}

#[test]
fn saving_replaces_a_file_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.walsh");
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    check_writable(&path).unwrap();
    assert_eq!(files(), 0);
    write(&path, KIND, origin(7), sections()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), file());
    check_writable(&path).unwrap();
    let failing = Section::streamed(*b"FAIL", 9, |sink| {
        sink.put(b"part")?;
        Err(Error::EmptyPrompt)
    });
    write(&path, KIND, origin(7), vec![failing]).expect_err("the section failed");
    assert_eq!(std::fs::read(&path).unwrap(), file());
    assert_eq!(files(), 1, "nothing else is left behind");
    read(&path, KIND, origin(7)).unwrap().finish().unwrap();
}

#[test]
fn paths_that_cannot_be_saved_to_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").join("a.walsh");
    for (path, part) in [
        (missing.as_path(), "missing: make it"),
        (folder.path(), "no file"),
        (Path::new(".."), "no file"),
    ] {
        let message = check_writable(path).expect_err("an error").to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
    let message = match read(folder.path(), KIND, origin(7)) {
        Ok(_) => panic!("a folder was read"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains("not a file"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_what_it_names_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    std::fs::write(&target, b"old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    write(&link, KIND, origin(7), sections()).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), file());
}
