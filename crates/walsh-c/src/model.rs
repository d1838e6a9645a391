//! Models.

use std::ffi::c_char;
use std::path::Path;

use walsh::DeviceSpec;
use walsh_runtime::store::{Store, StoreOptions};
use walsh_runtime::{CalibrationOptions, Model, Watch};

use crate::error::{Result, WalshStatus, call, value};
use crate::pointers::{optional_text, options, put, reference, text};

/// A model that is open: its weights, its vocabulary. Any number of threads may use it at once.
pub struct WalshModel(pub(crate) Model);

/// How a model is opened. Set `size` to `sizeof(WalshModelOptions)`, and what is not of interest to 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct WalshModelOptions {
    /// Of this struct, in bytes.
    pub size: usize,
    /// What computes, such as "cpu" (null is the same), "cpu:isa=avx2" or "cuda:0".
    pub device: *const c_char,
    /// Worker threads of the device cpu; 0 for one to each core.
    pub threads: u32,
    /// The folder for what is fetched and measured; null for `walsh` in the user's cache folder.
    pub cache_dir: *const c_char,
}

const USUAL: WalshModelOptions = WalshModelOptions {
    size: size_of::<WalshModelOptions>(),
    device: std::ptr::null(),
    threads: 0,
    cache_dir: std::ptr::null(),
};

/// Opens a model: the path of a GGUF file or of a folder of safetensors, or a name as for `walsh pull`, fetched first where it
/// is not here.
///
/// # Safety
/// Texts are null or end with a zero; `options` is null or valid; `model` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_model_open(
    path: *const c_char,
    options: *const WalshModelOptions,
    model: *mut *mut WalshModel,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (path, asked) = unsafe {
            (
                text(path, "path")?,
                self::options(options, USUAL, "options")?,
            )
        };
        // SAFETY: as the caller says, for options too.
        unsafe { put(model, std::ptr::null_mut(), "model") }?;
        // SAFETY: as the caller says.
        let device = unsafe { optional_text(asked.device, "device") }?.unwrap_or("cpu");
        // SAFETY: as the caller says.
        let folder = unsafe { optional_text(asked.cache_dir, "cache_dir") }?;
        let opened = open(path, device, (asked.threads as usize, folder))?;
        let handle = Box::into_raw(Box::new(WalshModel(opened)));
        // SAFETY: as the caller says.
        unsafe { put(model, handle, "model") }
    })
}

fn open(path: &str, device: &str, (threads, folder): (usize, Option<&str>)) -> Result<Model> {
    let store = Store::open(StoreOptions {
        folder: folder.map(Into::into),
        ..StoreOptions::default()
    });
    let mut spec: DeviceSpec = device.parse()?;
    // Without a home folder, kernels are compiled each time.
    if let Ok(store) = &store {
        spec = spec.with_kernel_cache(&store.kernel_folder());
    }
    if threads > 0 {
        spec = spec.with_threads(threads)?;
    }
    let device = spec.open()?;
    let calibrations = CalibrationOptions {
        folder: store.as_ref().ok().map(Store::calibration_folder),
        ..CalibrationOptions::default()
    };
    let file = match store {
        // A file needs no store, nor the home folder that is to hold one.
        Err(_) if Path::new(path).is_file() => path.into(),
        store => store?.resolve(path, &Watch::default(), &mut |_| ())?,
    };
    Ok(Model::open_with(&device, file, calibrations)?)
}

/// Closes a model; nothing for a null pointer. Sessions of it go on.
///
/// # Safety
/// The pointer is null, or one that `walsh_model_open` made and nothing has freed; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_model_free(model: *mut WalshModel) {
    value(|| {
        // SAFETY: it was made by `Box::into_raw`, and the caller says that nobody else has it.
        (!model.is_null()).then(|| drop(unsafe { Box::from_raw(model) }))
    });
}

/// How many tokens its vocabulary has, and so how many logits there are; 0 for a null pointer.
///
/// # Safety
/// The pointer is null, or of an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_model_vocabulary(model: *const WalshModel) -> usize {
    value(|| {
        // SAFETY: as the caller says.
        let model = unsafe { reference(model, "model") }.ok()?;
        Some(model.0.config().vocabulary)
    })
}

/// How many tokens of context it was trained for; 0 for a null pointer.
///
/// # Safety
/// The pointer is null, or of an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_model_context(model: *const WalshModel) -> usize {
    value(|| {
        // SAFETY: as the caller says.
        let model = unsafe { reference(model, "model") }.ok()?;
        Some(model.0.config().context)
    })
}

/// Whether a token ends what the model writes; no for a null pointer.
///
/// # Safety
/// The pointer is null, or of an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_model_is_end(model: *const WalshModel, token: i32) -> bool {
    value(|| {
        // SAFETY: as the caller says.
        let model = unsafe { reference(model, "model") }.ok()?;
        Some(model.0.tokenizer().is_end(token))
    })
}

/// Whether it has a chat template, as `walsh_chat_prompt` needs it; no for a null pointer.
///
/// # Safety
/// The pointer is null, or of an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_model_chats(model: *const WalshModel) -> bool {
    value(|| {
        // SAFETY: as the caller says.
        let model = unsafe { reference(model, "model") }.ok()?;
        model.0.has_chat_template().ok()
    })
}
