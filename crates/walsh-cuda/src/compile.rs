//! From variants of kernels to machine code: in parallel, and kept on disk.

use std::sync::{Mutex, PoisonError};

use walsh_kernels::{Fusion, complaint, in_parallel};

use crate::disk::Disk;
use crate::nvrtc::Nvrtc;

/// Makes machine code of a text.
pub(crate) trait Compiler: Sync {
    /// All that the code depends on beside the text.
    fn identity(&self) -> String;

    /// The code, or what is wrong with the text.
    fn compile(&self, source: &str) -> Result<Vec<u8>, String>;
}

/// NVRTC for one architecture.
pub(crate) struct ForArchitecture {
    pub(crate) nvrtc: Nvrtc,
    pub(crate) options: Vec<String>,
}

impl Compiler for ForArchitecture {
    fn identity(&self) -> String {
        format!("NVRTC {} {}", self.nvrtc.version(), self.options.join(" "))
    }

    fn compile(&self, source: &str) -> Result<Vec<u8>, String> {
        let compiled = self.nvrtc.compile(source, &self.options)?;
        Ok(compiled.code)
    }
}

/// A kernel to be compiled.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// The name of its entry point.
    pub(crate) symbol: String,
    /// Threadgroup memory that its launches ask for.
    pub(crate) dynamic_bytes: u32,
    source: String,
}

impl Text {
    pub(crate) fn of(fusion: &Fusion) -> Self {
        Self {
            symbol: fusion.symbol(),
            dynamic_bytes: fusion.dynamic_bytes(),
            source: fusion.source(),
        }
    }
}

/// Machine code, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) bytes: Vec<u8>,
    /// It may be of another machine that shares the folder.
    pub(crate) kept: bool,
}

/// A compiler and the folder that its code is kept in.
pub(crate) struct Builder<C> {
    compiler: C,
    disk: Option<Disk>,
}

impl<C: Compiler> Builder<C> {
    pub(crate) fn new(compiler: C, disk: Option<Disk>) -> Self {
        Self { compiler, disk }
    }

    /// The code of each text, in order.
    ///
    /// # Errors
    /// The first text's, in order, that does not compile.
    pub(crate) fn all(&self, texts: &[Text]) -> Result<Vec<Code>, String> {
        let done: Vec<Mutex<Option<Result<Code, String>>>> =
            texts.iter().map(|_| Mutex::new(None)).collect();
        in_parallel(texts.len(), &|at| {
            if let (Some(text), Some(slot)) = (texts.get(at), done.get(at)) {
                let code = self.one(text);
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            }
        });
        let code = |slot: Mutex<Option<_>>| {
            let code = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            code.unwrap_or_else(|| Err("the system starts no thread to compile on".into()))
        };
        done.into_iter().map(code).collect()
    }

    /// The code of one text, compiled again whatever is kept.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn anew(&self, text: &Text) -> Result<Code, String> {
        let compiled = self.compiler.compile(&text.source);
        let bytes = compiled.map_err(|log| complaint("NVRTC", &text.symbol, &log))?;
        if let Some(disk) = &self.disk {
            // A folder that cannot be written costs the time to compile again, and nothing else.
            let _ = disk.store(&self.key(text), &bytes);
        }
        Ok(Code { bytes, kept: false })
    }

    fn one(&self, text: &Text) -> Result<Code, String> {
        let kept = self
            .disk
            .as_ref()
            .and_then(|disk| disk.load(&self.key(text)));
        match kept {
            Some(bytes) => Ok(Code { bytes, kept: true }),
            None => self.anew(text),
        }
    }

    fn key(&self, text: &Text) -> String {
        format!("{}\n{}", self.compiler.identity(), text.source)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Code is the text with the identity before it; texts with "wrong" do not compile.
    struct Fake {
        identity: &'static str,
        compiled: AtomicUsize,
    }

    impl Compiler for Fake {
        fn identity(&self) -> String {
            self.identity.into()
        }

        fn compile(&self, source: &str) -> Result<Vec<u8>, String> {
            self.compiled.fetch_add(1, Ordering::Relaxed);
            if source.contains("wrong") {
                return Err("\nkernel.cu(3): error: no\n  more\n\nthird\nfourth".into());
            }
            Ok(format!("{}:{source}", self.identity).into_bytes())
        }
    }

    fn builder(identity: &'static str, folder: &Path) -> Builder<Fake> {
        let compiled = AtomicUsize::new(0);
        let fake = Fake { identity, compiled };
        Builder::new(fake, Some(Disk::new(folder.to_owned())))
    }

    fn compiled(builder: &Builder<Fake>) -> usize {
        builder.compiler.compiled.load(Ordering::Relaxed)
    }

    fn text(source: &str) -> Text {
        Text {
            symbol: "walsh_test".into(),
            dynamic_bytes: 0,
            source: source.into(),
        }
    }

    #[test]
    fn each_text_is_compiled_once_and_then_found_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let texts: Vec<Text> = (0..40).map(|i| text(&format!("kernel {i}"))).collect();
        let first = builder("a", folder.path());
        let code = first.all(&texts).unwrap();
        for (i, code) in code.iter().enumerate() {
            assert_eq!(code.bytes, format!("a:kernel {i}").as_bytes());
            assert!(!code.kept);
        }
        assert_eq!(compiled(&first), 40);
        let second = builder("a", folder.path());
        let kept = second.all(&texts).unwrap();
        assert_eq!(compiled(&second), 0);
        assert!(kept.iter().all(|code| code.kept));
        assert!(kept.iter().zip(&code).all(|(a, b)| a.bytes == b.bytes));
    }

    #[test]
    fn code_of_another_compiler_architecture_or_text_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        builder("NVRTC 13.0 sm_90a", folder.path())
            .all(&[text("k")])
            .unwrap();
        for (identity, source) in [("NVRTC 13.1 sm_90a", "k"), ("NVRTC 13.0 sm_80", "k")] {
            let other = builder(identity, folder.path());
            let code = other.all(&[text(source)]).unwrap();
            assert_eq!(code[0].bytes, format!("{identity}:{source}").as_bytes());
        }
    }

    #[test]
    fn damaged_cut_and_foreign_files_are_compiled_again_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = Disk::new(folder.path().to_owned()).path("a\nk");
        builder("a", folder.path()).all(&[text("k")]).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [&flipped[..], &whole[..whole.len() / 2], b"", b"#!/bin/sh\n"] {
            fs::write(&path, bad).unwrap();
            let again = builder("a", folder.path());
            assert_eq!(again.all(&[text("k")]).unwrap()[0].bytes, b"a:k");
            assert_eq!(compiled(&again), 1);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_time_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let builder = builder("a", &file);
        for times in 1..3 {
            assert_eq!(builder.all(&[text("k")]).unwrap()[0].bytes, b"a:k");
            assert_eq!(compiled(&builder), times);
        }
    }

    #[test]
    fn a_text_that_does_not_compile_is_named_with_the_first_lines_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let builder = builder("a", folder.path());
        let error = builder.all(&[text("right"), text("wrong")]).unwrap_err();
        assert_eq!(
            error,
            "NVRTC does not compile walsh_test: kernel.cu(3): error: no / more / third"
        );
        let error = builder.all(&[text("wrong")]).unwrap_err();
        assert!(error.contains("walsh_test"));
    }

    #[test]
    fn code_that_is_kept_can_be_compiled_anew() {
        let folder = tempfile::tempdir().unwrap();
        let builder = builder("a", folder.path());
        builder.all(&[text("k")]).unwrap();
        let code = builder.anew(&text("k")).unwrap();
        assert_eq!((code.kept, compiled(&builder)), (false, 2));
    }
}
