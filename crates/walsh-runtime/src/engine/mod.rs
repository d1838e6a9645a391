//! Many texts at once: continuous batching over pages of codes.
//!
//! A thread of the engine's own steps. Each step is one run of the model over the next token of every text that is being
//! written, and a chunk of those that are being read. Texts begin when there are pages for what they have; when pages run
//! out, the youngest gives its own back and is read again later, by the same calls.

mod budget;
mod caches;
mod clients;
mod folder;
mod job;
mod kin;
mod left;
mod logprobs;
mod look_up;
mod options;
mod prefixes;
mod rate;
mod request;
mod runner;
mod sequence;
mod slots;
mod status;
mod worker;

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use self::budget::Budget;
use self::job::{Job, SlotWork};
use self::left::Home;
pub use self::options::EngineOptions;
pub(crate) use self::rate::Decoding;
pub use self::request::{Logprobs, Piece, Request, Stream};
use self::runner::Runner;
use self::sequence::Sequence;
use self::slots::SlotText;
pub use self::slots::{SlotFile, SlotStatus};
pub use self::status::EngineStatus;
use self::worker::{Shown, Worker};
use crate::{Error, Model, Result};

/// Serves many requests at once with one model.
///
/// ```no_run
/// use walsh_runtime::{Engine, EngineOptions, Model, Request, Sampling};
///
/// let device = walsh::cpu::open(Default::default())?;
/// let engine = Engine::new(Model::open(&device, "model.gguf")?, EngineOptions::default())?;
/// let tokenizer = engine.model().tokenizer();
/// let mut streams = Vec::new();
/// for text in ["The capital of France is", "Once upon a time"] {
///     let prompt = tokenizer.encode_prompt(text, walsh_runtime::tokenizer::Special::Text)?;
///     streams.push(engine.submit(Request {
///         max_tokens: Some(40),
///         sampling: Sampling::greedy(),
///         ..Request::new(prompt)
///     })?);
/// }
/// for mut stream in streams {
///     println!("{}", stream.text()?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Clones are handles of the same engine, which [ends](Engine::end) with the last of them
/// and its requests with it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    model: Model,
    options: EngineOptions,
    home: Home,
    inbox: Mutex<Option<Sender<Job>>>,
    shown: Arc<Mutex<Shown>>,
    /// The first thing that went wrong with the folder of prefixes.
    trouble: Arc<Mutex<Option<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Has it no longer woken for others.
    hush: Box<dyn Fn() + Send + Sync>,
}

impl Engine {
    /// Starts an engine.
    ///
    /// # Errors
    /// When an option is out of range, the memory does not hold a text of the context's
    /// length, a codec does not fit the model, or memory is missing.
    pub fn new(model: Model, options: EngineOptions) -> Result<Self> {
        let budget = Budget::new(options.kv_memory);
        Self::within(model, options, (&budget, ""))
    }

    /// Starts an engine whose caches take their part of a budget, in the place of
    /// [memory of their own](EngineOptions::kv_memory). The name is what it is [called](Budget::held) there.
    ///
    /// # Errors
    /// As [`new`](Self::new); when others' texts have the memory of one text for a minute, too.
    pub fn within(
        model: Model,
        options: EngineOptions,
        (budget, name): (&Budget, &str),
    ) -> Result<Self> {
        let options = options.resolved(&model)?;
        if options.prefix_folder.is_some() && !options.keep_prefixes {
            return Err(Error::option(
                "prefix_folder",
                "absent where keep_prefixes is false",
                "a folder",
            ));
        }
        let trouble = Arc::default();
        let runner = Runner::new((&model, &options), (budget, name), &trouble)?;
        let hush = Box::new(runner.part.hush());
        let home = runner.home.clone();
        let shown = Arc::<Mutex<Shown>>::default();
        let (sender, inbox) = channel();
        let wake = sender.clone();
        // One that has ended needs no waking.
        runner.part.wake_by(move || drop(wake.send(Job::Look)));
        let worker = Worker::new(runner, inbox, Arc::clone(&shown));
        let thread = std::thread::Builder::new().name("walsh-engine".into());
        let thread = thread.spawn(move || worker.run()).map_err(|error| {
            let what = format!("its thread cannot be started: {error}");
            Error::Engine { what }
        })?;
        Ok(Self(Arc::new(Shared {
            model,
            options,
            home,
            inbox: Mutex::new(Some(sender)),
            shown,
            trouble,
            thread: Mutex::new(Some(thread)),
            hush,
        })))
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// How it was started, with the defaults filled in and a budget spelled out.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.0.options
    }

    /// Whether it has broken down, and takes no requests any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let thread = self.0.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let shown = self.0.shown.lock();
        shown.unwrap_or_else(PoisonError::into_inner).status
    }

    /// Ends it for all who have a handle, and its requests with it. Gives what it has done in all: nobody is served any more,
    /// and no page is left.
    pub fn end(&self) -> EngineStatus {
        self.0.end();
        EngineStatus {
            waiting: 0,
            running: 0,
            pages_used: 0,
            pages_shared: 0,
            pages_kept: 0,
            pages: 0,
            ..self.status()
        }
    }

    /// Its slots, of which a request has one from when it begins until it ends.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotStatus> {
        let shown = self.0.shown.lock();
        let shown = shown.unwrap_or_else(PoisonError::into_inner);
        shown.slots.clone()
    }

    /// Writes to a file what the last text of a slot has left behind, as far as nobody has needed its pages since. Where a
    /// request has the slot, it is waited for. The file appears whole or not at all.
    ///
    /// # Errors
    /// When there is no such slot, it has had no text, nothing of that is left, or the file cannot be written.
    pub fn save_slot(&self, slot: usize, path: impl AsRef<Path>) -> Result<SlotFile> {
        let text = self.on_slot(slot, Runner::save_slot)?;
        text.write(path.as_ref(), &self.0.model, &self.0.home)
    }

    /// Puts what [`save_slot`](Self::save_slot) wrote among the texts that are kept: whoever begins like it goes on from
    /// there, as long as nobody needs its pages. Where a request has the slot, it is waited for.
    ///
    /// # Errors
    /// When there is no such slot, the file is damaged, or of another model, version, SPEC, calibration or device, or there is
    /// no room for it.
    pub fn restore_slot(&self, slot: usize, path: impl AsRef<Path>) -> Result<SlotFile> {
        self.check_slot(slot)?;
        let (text, bytes) = SlotText::read(path.as_ref(), &self.0.model, &self.0.home)?;
        let tokens = text.tokens.len();
        self.on_slot(slot, move |runner, slot| runner.restore_slot(slot, text))?;
        Ok(SlotFile { tokens, bytes })
    }

    /// Forgets the last text of a slot, and gives up what others have not in common with it: so many tokens. Where a request
    /// has the slot, it is waited for. Files of a [folder](EngineOptions::prefix_folder) stay.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn erase_slot(&self, slot: usize) -> Result<usize> {
        self.on_slot(slot, |runner, slot| Ok(runner.erase_slot(slot)))
    }

    fn check_slot(&self, slot: usize) -> Result<()> {
        let count = self.0.options.sequences;
        match slot < count {
            true => Ok(()),
            false => {
                let what = format!("there are {count}, from 0 on");
                Err(Error::Slot { slot, what })
            }
        }
    }

    /// Does something with a slot when no request has it, and waits for that.
    fn on_slot<T: Send + 'static>(
        &self,
        slot: usize,
        work: impl FnOnce(&mut Runner, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_slot(slot)?;
        let (sender, done) = channel();
        let work: SlotWork = Box::new(move |runner, slot| {
            let done = work(runner, slot);
            // Who asked may have gone.
            Box::new(move || drop(sender.send(done)))
        });
        self.send(Job::Slot(slot, work))?;
        done.recv().map_err(|_| ended())?
    }

    fn send(&self, job: Job) -> Result<()> {
        let inbox = self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = inbox.as_ref().map(|inbox| inbox.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(ended()),
        }
    }

    /// The first thing that went wrong with its [folder of prefixes](EngineOptions::prefix_folder), if
    /// something did: a file that is damaged is not used, and nothing more is written where writing has failed. Answers are what
    /// they would be without a folder.
    #[must_use]
    pub fn folder_trouble(&self) -> Option<String> {
        let trouble = self.0.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands it a request; the answer comes by the stream.
    ///
    /// # Errors
    /// When the prompt is empty, has a token that is none of the vocabulary or leaves no
    /// room for another in the context, when an option is out of range, when the
    /// constraint is malformed or allows no text, or when the engine has ended.
    pub fn submit(&self, request: Request) -> Result<Stream> {
        let Shared { model, options, .. } = &*self.0;
        let (outlet, stream) = Stream::new();
        let sequence = Sequence::new(model, options, request, outlet)?;
        self.send(Job::Serve(Box::new(sequence)))?;
        Ok(stream)
    }
}

fn ended() -> Error {
    let what = "it has ended".into();
    Error::Engine { what }
}

impl Shared {
    /// Ends the thread, and its requests with it.
    fn end(&self) {
        // Without senders the thread ends.
        (self.hush)();
        let inbox = self.inbox.lock();
        *inbox.unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has ended its streams with an error of their own.
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.0.model)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
