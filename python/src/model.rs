//! Models: opened by path or name, their tokens, their chat templates, and sessions over them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use serde_json::{Map, Value};
use walsh::{Device, DeviceSpec};
use walsh_runtime::chat::{Dialogue, Template};
use walsh_runtime::store::{Catalogue, Progress, Store, StoreOptions};
use walsh_runtime::tokenizer::Special;
use walsh_runtime::{CalibrationOptions, Lora, Model, RestoreOptions, Watch};

use crate::errors::{Failure, Result};
use crate::options;
use crate::session::PySession;
use crate::slot::Shared;
use crate::wait::{Waited, wait};

/// How a model is opened.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct Opening {
    model: String,
    device: String,
    threads: Option<usize>,
    cache_dir: Option<PathBuf>,
    lora: Vec<(PathBuf, f32)>,
}

impl Opening {
    fn store(&self) -> walsh_runtime::Result<Store> {
        Store::open(StoreOptions {
            folder: self.cache_dir.clone(),
            ..StoreOptions::default()
        })
    }

    /// Before a model is fetched for a device that is not there.
    fn device(&self) -> Result<Device> {
        let mut spec: DeviceSpec = self.device.parse()?;
        // Without a home folder, kernels are compiled each time.
        if let Ok(store) = self.store() {
            spec = spec.with_kernel_cache(&store.kernel_folder());
        }
        if let Some(threads) = self.threads {
            spec = spec.with_threads(threads)?;
        }
        Ok(spec.open()?)
    }

    /// The file of the model, fetched first if need be.
    fn path(&self, watch: &Watch) -> walsh_runtime::Result<PathBuf> {
        let store = match self.store() {
            // A file needs no store, nor the home folder that is to hold one.
            Err(_) if Path::new(&self.model).is_file() => return Ok(self.model.clone().into()),
            store => store?,
        };
        store.resolve(&self.model, watch, &mut |progress| {
            if let (Some(listener), Some((done, total))) = (&watch.progress, bytes(progress)) {
                listener(walsh_runtime::Progress { done, total });
            }
        })
    }

    /// `watch` ends the fetching, and what the model calibrates later.
    fn open(&self, watch: &Watch) -> Result<Model> {
        let device = self.device()?;
        let path = self.path(watch)?;
        let calibrations = CalibrationOptions {
            folder: self.store().ok().map(|store| store.calibration_folder()),
            cancel: Arc::clone(&watch.cancel),
            ..CalibrationOptions::default()
        };
        let adapters = self.lora.iter().map(|(path, scale)| Lora {
            path: path.clone(),
            scale: *scale,
        });
        let model = Model::open_with(&device, path, calibrations)?;
        Ok(model.with_adapters(&adapters.collect::<Vec<_>>())?)
    }
}

/// How far a pull is, where it has begun.
fn bytes(progress: Progress) -> Option<(usize, usize)> {
    let (Progress::Checking { done, total }
    | Progress::Fetching { done, total }
    | Progress::Unpacking { done, total }) = progress
    else {
        return None;
    };
    Some((usize::try_from(done).ok()?, usize::try_from(total).ok()?))
}

/// A listener of Python's, called with what is done and what there is to do.
pub(crate) struct Listener {
    pub(crate) told: Option<Arc<walsh_runtime::ProgressListener>>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Listener {
    /// What the listener raises sets `cancel`.
    pub(crate) fn new(progress: Option<Py<PyAny>>, cancel: &Arc<AtomicBool>) -> Self {
        let raised = Arc::<Mutex<Option<PyErr>>>::default();
        let told = progress.map(|listener| {
            let (raised, cancel) = (Arc::clone(&raised), Arc::clone(cancel));
            let tell = move |progress: walsh_runtime::Progress| {
                let told = Python::attach(|py| {
                    let told = listener.call1(py, (progress.done, progress.total));
                    told.map(drop)
                });
                if let Err(error) = told {
                    *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    cancel.store(true, Ordering::Relaxed);
                }
            };
            Arc::new(tell) as Arc<walsh_runtime::ProgressListener>
        });
        Self { told, raised }
    }

    /// What it has raised, as an error.
    pub(crate) fn check(&self) -> Result<()> {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        raised.take().map_or(Ok(()), |error| Err(error.into()))
    }
}
/// A conversation, as JSON.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Talk {
    messages: String,
    tools: String,
    variables: String,
    continues: bool,
}

impl Talk {
    pub(crate) fn dialogue(&self) -> Result<Dialogue> {
        Ok(Dialogue {
            messages: json("messages", &self.messages)?,
            tools: json("tools", &self.tools)?,
            variables: json::<Map<String, Value>>("variables", &self.variables)?,
            continues: self.continues,
        })
    }
}

/// A value of JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Failure::Named("ChatError", format!("{what}: {error}")))
}

/// A model, ready to run.
#[pyclass(frozen, module = "walsh._walsh", name = "Model")]
pub(crate) struct PyModel {
    model: Shared<Model>,
    /// Set to end a calibration, whichever call it is for.
    cancel: Arc<AtomicBool>,
}

impl PyModel {
    pub(crate) fn get(&self) -> Result<Model> {
        self.model.get()
    }

    /// As [`wait`], for work that may calibrate the model; `own` is what ends the rest of it.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        own: Option<&AtomicBool>,
        work: impl FnOnce() -> T + Send,
    ) -> Result<Waited<T>> {
        let cancels: Vec<&AtomicBool> = own.into_iter().chain([&*self.cancel]).collect();
        let waited = wait(py, &cancels, work);
        // Who has set it takes it back, and nobody else: another's calibration may have yet to look.
        if !matches!(waited, Ok(Waited { signal: None, .. })) {
            self.cancel.store(false, Ordering::Relaxed);
        }
        waited
    }

    pub(crate) fn template(&self) -> Result<(Model, Template)> {
        let model = self.get()?;
        let template = model.chat_template()?;
        Ok((model, template))
    }
}

fn special(parse: bool) -> Special {
    match parse {
        true => Special::Parse,
        false => Special::Text,
    }
}

#[pymethods]
impl PyModel {
    #[new]
    fn open(py: Python<'_>, opening: Opening, progress: Option<Py<PyAny>>) -> Result<Self> {
        let cancel = Arc::new(AtomicBool::new(false));
        let listener = Listener::new(progress, &cancel);
        let watch = Watch {
            cancel: Arc::clone(&cancel),
            progress: listener.told.clone(),
        };
        let opened = wait(py, &[&cancel], || opening.open(&watch))?;
        listener.check()?;
        let model = Shared::new("model", opened.or_signal()??);
        Ok(Self { model, cancel })
    }

    /// What is known of it.
    fn about<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let model = self.get()?;
        let (config, tokenizer) = (model.config(), model.tokenizer());
        let about = PyDict::new(py);
        about.set_item("name", model.name())?;
        about.set_item("path", model.path())?;
        about.set_item("architecture", config.architecture.name())?;
        about.set_item("device", model.device().properties().to_string())?;
        about.set_item("file_bytes", model.file_bytes())?;
        about.set_item("fingerprint", model.fingerprint()?.to_string())?;
        about.set_item("vocabulary", config.vocabulary)?;
        about.set_item("context", config.context)?;
        about.set_item("width", config.width)?;
        about.set_item("layers", config.layers.len())?;
        about.set_item("heads", config.heads)?;
        about.set_item("kv_heads", config.layers[0].kv_heads)?;
        about.set_item("head_dim", config.layers[0].head_dim)?;
        about.set_item("pooling", config.pooling.map(|pooling| pooling.name()))?;
        about.set_item("bos", tokenizer.bos())?;
        about.set_item("eos", tokenizer.eos())?;
        about.set_item("ends", tokenizer.ends())?;
        about.set_item("adds_bos", tokenizer.add_bos())?;
        about.set_item("chats", model.has_chat_template()?)?;
        Ok(about)
    }

    /// How tokens are chosen where nothing is said.
    fn sampling<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let usual = self.get()?.recommended_sampling().or_usual();
        let dict = PyDict::new(py);
        dict.set_item("temperature", usual.temperature)?;
        dict.set_item("top_k", usual.top_k)?;
        dict.set_item("top_p", usual.top_p)?;
        dict.set_item("min_p", usual.min_p)?;
        dict.set_item("repetition_penalty", usual.repetition_penalty)?;
        dict.set_item("repetition_window", usual.repetition_window)?;
        Ok(dict)
    }

    fn tokenize(
        &self,
        py: Python<'_>,
        text: &[u8],
        whole: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>> {
        let model = self.get()?;
        let (tokenizer, special) = (model.tokenizer(), special(parse_special));
        let tokens = py.detach(|| match whole {
            true => tokenizer.encode_prompt_bytes(text, special),
            false => tokenizer.encode_bytes(text, special),
        });
        Ok(tokens?)
    }

    /// The tokens of a text that goes on behind a token, or begins one that is to go on.
    fn tokenize_after(
        &self,
        py: Python<'_>,
        previous: Option<i32>,
        text: &str,
        parse_special: bool,
    ) -> Result<Vec<i32>> {
        let model = self.get()?;
        let (tokenizer, special) = (model.tokenizer(), special(parse_special));
        Ok(py.detach(|| tokenizer.encode_after(previous, text, special))?)
    }

    fn detokenize(&self, tokens: Vec<i32>) -> Result<String> {
        let model = self.get()?;
        check_tokens(&model, &tokens)?;
        Ok(model.tokenizer().decode(&tokens))
    }

    /// The bytes of tokens, the names of control tokens among them if they are wanted.
    fn token_bytes<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<i32>,
        show_control: bool,
    ) -> Result<Bound<'py, PyBytes>> {
        let model = self.get()?;
        check_tokens(&model, &tokens)?;
        let tokenizer = model.tokenizer();
        let shown = |token: &&i32| show_control || !tokenizer.is_control(**token);
        let mut bytes = Vec::new();
        for token in tokens.iter().filter(shown) {
            bytes.extend_from_slice(&tokenizer.token_bytes(*token));
        }
        Ok(PyBytes::new(py, &bytes))
    }

    /// What a conversation becomes: its text, its tokens, and where in them messages end.
    fn chat_prompt(&self, py: Python<'_>, talk: Talk) -> Result<(String, Vec<i32>, Vec<usize>)> {
        let (model, template) = self.template()?;
        let dialogue = talk.dialogue()?;
        let prompt = py.detach(|| template.prompt(&dialogue, model.tokenizer()))?;
        Ok((prompt.text, prompt.tokens, prompt.checkpoints))
    }

    #[pyo3(signature = (context, kv))]
    fn session(&self, py: Python<'_>, context: usize, kv: Option<&str>) -> Result<PySession> {
        let (model, options) = (self.get()?, options::session(context, kv)?);
        let session = self.wait(py, None, || model.session(options))?;
        Ok(PySession::new(session.or_signal()??))
    }

    /// Takes up a session that was saved.
    #[pyo3(signature = (path, context, kv))]
    fn restore(
        &self,
        py: Python<'_>,
        path: PathBuf,
        context: usize,
        kv: Option<&str>,
    ) -> Result<PySession> {
        let model = self.get()?;
        let options = RestoreOptions {
            context,
            kv: kv.map(|kv| options::spec(Some(kv))).transpose()?,
            cancel: Arc::new(AtomicBool::new(false)),
        };
        let cancel = Arc::clone(&options.cancel);
        let session = self.wait(py, Some(&cancel), || model.restore(path, options))?;
        Ok(PySession::new(session.or_signal()??))
    }

    /// The bytes that a token takes in KV caches of this kind, and the bits of a number.
    #[pyo3(signature = (kv))]
    fn kv_cost(&self, kv: Option<&str>) -> Result<(u64, f64)> {
        let (model, spec) = (self.get()?, options::spec(kv)?);
        Ok((
            model.kv_bytes_per_token(&spec)?,
            model.kv_bits_per_value(&spec)?,
        ))
    }

    /// What calibration finds about the keys of a layer, `[kv_heads * head_dim]` each: their mean, their mean square, and
    /// that of the queries that meet them; before them how many heads there are.
    fn calibration(&self, py: Python<'_>, layer: usize) -> Result<(usize, [Vec<f32>; 3])> {
        let model = self.get()?;
        let found = self.wait(py, None, || model.calibration().cloned())?;
        let found = found.or_signal()??;
        let layers = found.layers.len();
        let moments = found.layers.into_iter().nth(layer).ok_or_else(|| {
            Failure::option(format!("layer is {layer}: the model has {layers} layers"))
        })?;
        Ok((
            model.config().layers[layer].kv_heads,
            [moments.key_mean, moments.key_square, moments.query_square],
        ))
    }

    #[getter]
    fn closed(&self) -> Result<bool> {
        self.model.is_closed()
    }

    fn close(&self, py: Python<'_>) -> Result<()> {
        let model = self.model.close()?;
        py.detach(|| drop(model));
        Ok(())
    }
}

fn check_tokens(model: &Model, tokens: &[i32]) -> Result<()> {
    let tokenizer = model.tokenizer();
    match tokens.iter().find(|token| !tokenizer.has(**token)) {
        None => Ok(()),
        Some(token) => Err(Failure::option(format!(
            "{token} is none of the vocabulary's {} tokens",
            tokenizer.vocab_size()
        ))),
    }
}

/// The models that are known by name: each with what is said of it, its bytes, and whether it is here.
#[pyfunction]
#[pyo3(signature = (cache_dir))]
pub(crate) fn models(cache_dir: Option<PathBuf>) -> Result<Vec<(String, u64, bool)>> {
    let store = Store::open(StoreOptions {
        folder: cache_dir,
        ..StoreOptions::default()
    })?;
    let ready = walsh_runtime::store::State::Ready;
    let listed = store.list()?;
    let line = |model: &walsh_runtime::store::Listed<'_>| {
        (model.name.clone(), model.bytes, model.state == ready)
    };
    Ok(listed.iter().map(line).collect())
}

/// The model that is meant where none is named.
#[pyfunction]
pub(crate) fn default_model() -> &'static str {
    Catalogue::DEFAULT
}
