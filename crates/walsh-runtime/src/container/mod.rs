//! The frame of the files that Walsh saves for a model: who wrote them, for which
//! model, in sections, under checksums.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `89 57 41 4c 53 48 0d 0a`: `WALSH` between bytes that a transfer as text would change |
//! | 8 | 4 | the version of the frame: 1 |
//! | 12 | 4 | the kind of the file, four ASCII letters |
//! | 16 | 4 | the version of that kind |
//! | 20 | 4 | n, the length of the model's name: at most 1,024 |
//! | 24 | 8 | the length of the file |
//! | 32 | 16 | the model's fingerprint |
//! | 48 | 4 | s, the number of sections: at most 64 |
//! | 52 | n | the model's name in UTF-8, for messages |
//! | 52 + n | 12·s | per section: a tag of four ASCII letters and its length, 8 bytes |
//! | … | 16 | a checksum |
//! | … | … | each section, with a checksum behind it |
//!
//! A checksum is the XXH3-128 of all bytes of the file before it, earlier
//! checksums included. So what is small can be trusted before what is large is
//! read, and both directions stream: neither holds more than one piece of a large
//! section in memory.

mod file;
mod owner;
#[cfg(test)]
mod tests;

use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_128;

pub use file::{Replacement, check_writable};

use crate::model::fingerprint::Fingerprint;
use crate::{Error, Result, regular};

const MAGIC: [u8; 8] = *b"\x89WALSH\r\n";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 52;
const FINGERPRINT_AT: usize = 32;
const CHECKSUM_BYTES: usize = 16;
const LONGEST_NAME: usize = 1024;
const MOST_SECTIONS: usize = 64;

/// What tells sections apart.
pub(crate) type Tag = [u8; 4];

/// What a file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) tag: Tag,
    pub(crate) version: u32,
    /// The first version of it that is still read.
    pub(crate) oldest: u32,
    /// In messages, with its article.
    pub(crate) name: &'static str,
}

/// The model that a file belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) name: &'a str,
}

/// Writes a section's bytes.
type Fill<'a> = Box<dyn FnOnce(&mut Sink<'_>) -> Result<()> + 'a>;

/// A part of a file to be written.
pub(crate) struct Section<'a> {
    tag: Tag,
    bytes: u64,
    fill: Fill<'a>,
}

impl<'a> Section<'a> {
    /// A section that is at hand.
    pub(crate) fn of(tag: Tag, data: Vec<u8>) -> Self {
        let bytes = data.len() as u64;
        Self::streamed(tag, bytes, move |sink| sink.put(&data))
    }

    /// A section of `bytes` bytes, which `fill` puts one piece after the other.
    pub(crate) fn streamed(
        tag: Tag,
        bytes: u64,
        fill: impl FnOnce(&mut Sink<'_>) -> Result<()> + 'a,
    ) -> Self {
        Self {
            tag,
            bytes,
            fill: Box::new(fill),
        }
    }
}

/// Where a file's bytes go.
pub(crate) struct Sink<'a> {
    out: &'a mut dyn Write,
    path: &'a Path,
    hasher: XxHash3_128,
    written: u64,
}

impl Sink<'_> {
    /// Appends bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|error| Error::file(self.path, &error))?;
        self.hasher.write(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn put_checksum(&mut self) -> Result<()> {
        let checksum = self.hasher.finish_128();
        self.put(&checksum.to_le_bytes())
    }
}

/// Writes a file, and puts it in place of an earlier one when it is whole and on
/// the disk.
///
/// # Errors
/// When it cannot be written, or a section fails; an earlier file is then as it
/// was.
pub(crate) fn write(
    path: &Path,
    kind: Kind,
    origin: Origin<'_>,
    sections: Vec<Section<'_>>,
) -> Result<()> {
    let mut replacement = Replacement::create(path)?;
    let frame = Frame { path, kind, origin };
    frame.write(replacement.file(), sections)?;
    replacement.commit()
}

/// What a file is and belongs to, and what messages call it.
#[derive(Clone, Copy)]
struct Frame<'a> {
    path: &'a Path,
    kind: Kind,
    origin: Origin<'a>,
}

impl Frame<'_> {
    fn write(&self, out: &mut dyn Write, sections: Vec<Section<'_>>) -> Result<()> {
        let name = shortened(self.origin.name);
        let header = FIXED_BYTES + name.len() + 12 * sections.len();
        let total = sections
            .iter()
            .map(|section| section.bytes + CHECKSUM_BYTES as u64)
            .fold((header + CHECKSUM_BYTES) as u64, u64::saturating_add);
        let mut sink = Sink {
            out,
            path: self.path,
            hasher: XxHash3_128::new(),
            written: 0,
        };
        sink.put(&MAGIC)?;
        sink.put(&VERSION.to_le_bytes())?;
        sink.put(&self.kind.tag)?;
        sink.put(&self.kind.version.to_le_bytes())?;
        sink.put(&(name.len() as u32).to_le_bytes())?;
        sink.put(&total.to_le_bytes())?;
        sink.put(self.origin.fingerprint.as_bytes())?;
        sink.put(&(sections.len() as u32).to_le_bytes())?;
        sink.put(name.as_bytes())?;
        for section in &sections {
            sink.put(&section.tag)?;
            sink.put(&section.bytes.to_le_bytes())?;
        }
        sink.put_checksum()?;
        for section in sections {
            let end = sink.written.saturating_add(section.bytes);
            (section.fill)(&mut sink)?;
            if sink.written != end {
                return Err(Error::saved(
                    self.path,
                    format!(
                        "its section {} came out {} bytes too long: this is a fault of Walsh, report it",
                        tag_name(section.tag),
                        i128::from(sink.written) - i128::from(end)
                    ),
                ));
            }
            sink.put_checksum()?;
        }
        Ok(())
    }

    /// Reads the header of a file of `bytes` bytes and checks all that it says.
    fn read<R: Read>(&self, input: R, bytes: u64) -> Result<Sections<R>> {
        let mut sections = Sections {
            input,
            path: self.path.to_owned(),
            hasher: XxHash3_128::new(),
            bytes,
            read: 0,
            table: Vec::new(),
            next: 0,
        };
        let mut fixed = [0; FIXED_BYTES];
        // A short file that is another's is not called a cut one.
        let start = MAGIC
            .len()
            .min(usize::try_from(bytes).unwrap_or(usize::MAX));
        sections.take(&mut fixed[..start])?;
        if start == 0 || fixed[..start] != MAGIC[..start] {
            return Err(not_ours(self.path));
        }
        sections.take(&mut fixed[start..])?;
        let [version, tag, kind_version, name_bytes] =
            [8, 12, 16, 20].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| fixed[at + byte])));
        let count = u32::from_le_bytes([48, 49, 50, 51].map(|at| fixed[at]));
        let total = u64::from_le_bytes([24, 25, 26, 27, 28, 29, 30, 31].map(|at| fixed[at]));
        if version != VERSION {
            return Err(self.other_version(version, VERSION));
        }
        let (name_bytes, count) = (name_bytes as usize, count as usize);
        if name_bytes > LONGEST_NAME || count > MOST_SECTIONS {
            return Err(sections.damaged("its header"));
        }
        if bytes < total {
            return Err(sections.cut());
        }
        let mut name = vec![0; name_bytes];
        sections.take(&mut name)?;
        let mut lengths = (sections.read + (12 * count + CHECKSUM_BYTES) as u64) as u128;
        for _ in 0..count {
            let mut entry = [0; 12];
            sections.take(&mut entry)?;
            let tag = [0, 1, 2, 3].map(|at| entry[at]);
            let bytes = u64::from_le_bytes([4, 5, 6, 7, 8, 9, 10, 11].map(|at| entry[at]));
            lengths += u128::from(bytes) + CHECKSUM_BYTES as u128;
            sections.table.push((tag, bytes));
        }
        sections.take_checksum("its header")?;
        // From here on, the header is as it was written.
        if lengths != u128::from(total) || bytes != total {
            return Err(self.refuse(format!(
                "it has {bytes} bytes and should have {total}: copy it again, or save anew"
            )));
        }
        if tag.to_le_bytes() != self.kind.tag {
            return Err(self.refuse(format!(
                "it is no file of {}, but of the kind {}: check the path",
                self.kind.name,
                tag_name(tag.to_le_bytes())
            )));
        }
        if !(self.kind.oldest..=self.kind.version).contains(&kind_version) {
            return Err(self.other_version(kind_version, self.kind.version));
        }
        let fingerprint =
            Fingerprint::from_bytes(std::array::from_fn(|at| fixed[FINGERPRINT_AT + at]));
        if fingerprint != self.origin.fingerprint {
            return Err(self.refuse(format!(
                "it was saved with the model {:?} ({fingerprint}), not with {:?} ({}): open it with that model",
                String::from_utf8_lossy(&name),
                self.origin.name,
                self.origin.fingerprint
            )));
        }
        Ok(sections)
    }

    fn refuse(&self, what: impl Into<String>) -> Error {
        Error::saved(self.path, what)
    }

    fn other_version(&self, found: u32, known: u32) -> Error {
        self.refuse(format!(
            "it is of version {found} of its format, and this Walsh reads version {known}: save it again with this Walsh"
        ))
    }
}

/// Opens a file of a kind and a model.
///
/// # Errors
/// When it cannot be read, is of another kind, version or model, or its header
/// is damaged.
pub(crate) fn read(path: &Path, kind: Kind, origin: Origin<'_>) -> Result<Sections<impl Read>> {
    let (file, bytes) = regular::open(path)?;
    Frame { path, kind, origin }.read(BufReader::new(file), bytes)
}

/// Opens what was a file of a kind and a model, and is at hand; `path` is what messages call it.
///
/// # Errors
/// When it is of another kind, version or model, or its header is damaged.
pub(crate) fn read_bytes<'a>(
    (path, bytes): (&Path, &'a [u8]),
    kind: Kind,
    origin: Origin<'_>,
) -> Result<Sections<&'a [u8]>> {
    Frame { path, kind, origin }.read(bytes, bytes.len() as u64)
}

/// The model that what was a file belongs to, as its header says; whether it is whole, reading it shows.
pub(crate) fn fingerprint_of(bytes: &[u8]) -> Option<Fingerprint> {
    let fingerprint = bytes.get(FINGERPRINT_AT..)?.first_chunk()?;
    Some(Fingerprint::from_bytes(*fingerprint))
}

/// Finds out whether a file was saved by Walsh, before a model is at hand.
///
/// # Errors
/// When it cannot be read or is something else.
pub fn check_readable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let (mut file, _) = regular::open(path)?;
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(Error::file(path, &error)),
        Ok(()) if magic == MAGIC => Ok(()),
        _ => Err(not_ours(path)),
    }
}

fn not_ours(path: &Path) -> Error {
    Error::saved(path, "it was not saved by Walsh: check the path")
}

/// The sections of a file, read in their order.
pub(crate) struct Sections<R> {
    input: R,
    path: PathBuf,
    hasher: XxHash3_128,
    /// The length of the file.
    bytes: u64,
    read: u64,
    table: Vec<(Tag, u64)>,
    /// The section that comes next.
    next: usize,
}

impl<R: Read> Sections<R> {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a section is still to come.
    pub(crate) fn has(&self, tag: Tag) -> bool {
        self.find(tag).is_some()
    }

    fn find(&self, tag: Tag) -> Option<usize> {
        let rest = self.table.get(self.next..).unwrap_or_default();
        let ahead = rest.iter().position(|(known, _)| *known == tag)?;
        Some(self.next + ahead)
    }

    /// A whole section, as it was written.
    pub(crate) fn bytes(&mut self, tag: Tag) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        self.stream(tag, &mut |body| {
            // No more than the file has: the header's lengths were added up.
            data = vec![0; usize::try_from(body.left).map_err(|_| body.cut())?];
            body.take(&mut data)
        })?;
        Ok(data)
    }

    /// Hands a section to `each`, which takes all of it piece by piece. Whether it
    /// is as it was written is certain when this returns.
    pub(crate) fn stream(
        &mut self,
        tag: Tag,
        each: &mut dyn FnMut(&mut Body<'_, R>) -> Result<()>,
    ) -> Result<()> {
        let Some(index) = self.find(tag) else {
            return Err(Error::saved(
                &self.path,
                format!("it has no section {}: save it anew", tag_name(tag)),
            ));
        };
        while self.next < index {
            self.skip()?;
        }
        let left = self.table[index].1;
        self.next = index + 1;
        let mut body = Body {
            sections: self,
            left,
        };
        each(&mut body)?;
        if body.left > 0 {
            return Err(self.damaged(&section_name(tag)));
        }
        self.take_checksum(&section_name(tag))
    }

    fn skip(&mut self) -> Result<()> {
        let (tag, mut left) = self.table[self.next];
        let mut piece = [0; 4096];
        while left > 0 {
            let bytes = left.min(piece.len() as u64);
            self.take(&mut piece[..bytes as usize])?;
            left -= bytes;
        }
        self.next += 1;
        self.take_checksum(&section_name(tag))
    }

    /// Checks what was not asked for.
    pub(crate) fn finish(mut self) -> Result<()> {
        while self.next < self.table.len() {
            self.skip()?;
        }
        Ok(())
    }

    fn take(&mut self, data: &mut [u8]) -> Result<()> {
        match self.input.read_exact(data) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.cut()),
            Err(error) => return Err(Error::file(&self.path, &error)),
        }
        self.hasher.write(data);
        self.read += data.len() as u64;
        Ok(())
    }

    fn take_checksum(&mut self, what: &str) -> Result<()> {
        let expected = self.hasher.finish_128();
        let mut stated = [0; CHECKSUM_BYTES];
        self.take(&mut stated)?;
        if u128::from_le_bytes(stated) == expected {
            return Ok(());
        }
        Err(self.damaged(what))
    }

    /// The error of a file whose contents are not what was written.
    pub(crate) fn damaged(&self, what: &str) -> Error {
        Error::saved(
            &self.path,
            format!("{what} is damaged: copy it again, or save anew"),
        )
    }

    fn cut(&self) -> Error {
        Error::saved(
            &self.path,
            format!(
                "it is cut off after {} bytes: copy it again, or save anew",
                self.bytes
            ),
        )
    }
}

/// A section that is being read.
pub(crate) struct Body<'a, R> {
    sections: &'a mut Sections<R>,
    left: u64,
}

impl<R: Read> Body<'_, R> {
    /// The next bytes.
    pub(crate) fn take(&mut self, data: &mut [u8]) -> Result<()> {
        self.left = match self.left.checked_sub(data.len() as u64) {
            Some(left) => left,
            None => return Err(self.sections.damaged("a section")),
        };
        self.sections.take(data)
    }

    fn cut(&self) -> Error {
        self.sections.cut()
    }
}

fn tag_name(tag: Tag) -> String {
    tag.escape_ascii().to_string()
}

fn section_name(tag: Tag) -> String {
    format!("its section {}", tag_name(tag))
}

/// The start of a name that the header has room for.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}
