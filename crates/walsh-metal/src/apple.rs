//! The calls as Apple's Metal has them.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSPageSize, NSString};
use objc2_metal::{
    MTLBarrierScope, MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandBufferError,
    MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue, MTLCompileOptions,
    MTLComputeCommandEncoder, MTLComputePipelineState, MTLCopyAllDevices, MTLDevice,
    MTLDispatchType, MTLGPUFamily, MTLLanguageVersion, MTLLibrary, MTLResourceOptions, MTLSize,
};

use crate::api::{Api, Bound, Compiled, Facts, Failure, Launch, Storage};

/// A GPU with a queue of its own.
pub(crate) struct Apple {
    facts: Facts,
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
}

/// A buffer.
pub(crate) struct AppleMemory(Retained<ProtocolObject<dyn MTLBuffer>>);

// SAFETY: Metal's buffers may be used from any thread; their bytes are touched under the backend's lock alone.
unsafe impl Send for AppleMemory {}
// SAFETY: as above.
unsafe impl Sync for AppleMemory {}

/// A command buffer and its one encoder.
pub(crate) struct AppleCommands {
    buffer: Retained<ProtocolObject<dyn MTLCommandBuffer>>,
    encoder: Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>,
}

impl Drop for AppleCommands {
    fn drop(&mut self) {
        // An encoder must have ended before it goes, whether or not its work is run.
        self.encoder.endEncoding();
    }
}

/// The GPUs of this machine, in the order of their numbers.
pub(crate) fn gpus() -> Vec<Facts> {
    autoreleasepool(|_| MTLCopyAllDevices().iter().map(|gpu| facts(&gpu)).collect())
}

fn facts(device: &ProtocolObject<dyn MTLDevice>) -> Facts {
    Facts {
        name: device.name().to_string(),
        apple7: device.supportsFamily(MTLGPUFamily::Apple7),
        unified: device.hasUnifiedMemory(),
        threadgroup_bytes: device.maxThreadgroupMemoryLength() as u64,
        buffer_bytes: device.maxBufferLength() as u64,
        working_set: device.recommendedMaxWorkingSetSize(),
        page: NSPageSize() as u64,
    }
}

impl Apple {
    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// When there is none of it, or Metal gives it no queue.
    pub(crate) fn open(ordinal: u32) -> Result<Self, String> {
        autoreleasepool(|_| {
            let all = MTLCopyAllDevices().to_vec();
            let count = all.len();
            let device = all.into_iter().nth(ordinal as usize);
            let device = device.ok_or_else(|| match count {
                0 => "Metal sees no GPU: use the device cpu".to_owned(),
                _ => format!(
                    "there is no such GPU: Metal sees {count}, from metal:0 to metal:{}",
                    count - 1
                ),
            })?;
            let queue = device.newCommandQueue();
            Ok(Self {
                facts: facts(&device),
                queue: queue.ok_or("Metal gives it no command queue")?,
                device,
            })
        })
    }
}

impl Api for Apple {
    type Memory = AppleMemory;
    type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;
    type Commands = AppleCommands;

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn allocated(&self) -> u64 {
        self.device.currentAllocatedSize() as u64
    }

    fn allocate(&self, bytes: u64, storage: Storage) -> Option<AppleMemory> {
        let options = match storage {
            Storage::Shared => MTLResourceOptions::StorageModeShared,
            Storage::Private => MTLResourceOptions::StorageModePrivate,
        };
        let bytes = usize::try_from(bytes).ok()?;
        let buffer = self.device.newBufferWithLength_options(bytes, options);
        buffer.map(AppleMemory)
    }

    unsafe fn wrap(&self, base: NonNull<u8>, bytes: u64) -> Option<AppleMemory> {
        let bytes = usize::try_from(bytes).ok()?;
        // SAFETY: the caller's whole pages; without a deallocator Metal leaves them be.
        let buffer = unsafe {
            self.device
                .newBufferWithBytesNoCopy_length_options_deallocator(
                    base.cast(),
                    bytes,
                    MTLResourceOptions::StorageModeShared,
                    None,
                )
        };
        buffer.map(AppleMemory)
    }

    unsafe fn write(&self, memory: &AppleMemory, at: u64, data: &[u8]) {
        // SAFETY: a shared buffer's bytes lie at `contents`; the range is the caller's.
        unsafe {
            let to = memory.0.contents().cast::<u8>().add(at as usize);
            ptr::copy_nonoverlapping(data.as_ptr(), to.as_ptr(), data.len());
        }
    }

    unsafe fn read(&self, memory: &AppleMemory, at: u64, data: &mut [u8]) {
        // SAFETY: as for `write`.
        unsafe {
            let from = memory.0.contents().cast::<u8>().add(at as usize);
            ptr::copy_nonoverlapping(from.as_ptr(), data.as_mut_ptr(), data.len());
        }
    }

    unsafe fn copy(
        &self,
        from: &Bound<'_, AppleMemory>,
        to: &Bound<'_, AppleMemory>,
    ) -> Result<f64, Failure> {
        autoreleasepool(|_| {
            let none = |what| Failure::Other(format!("Metal gives no {what}"));
            let buffer = self.queue.commandBufferWithUnretainedReferences();
            let buffer = buffer.ok_or_else(|| none("command buffer"))?;
            let encoder = buffer.blitCommandEncoder();
            let encoder = encoder.ok_or_else(|| none("encoder"))?;
            // SAFETY: the caller's ranges lie within their buffers, which outlive the copy.
            unsafe {
                encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                    &from.memory.0,
                    from.offset as usize,
                    &to.memory.0,
                    to.offset as usize,
                    from.bytes as usize,
                );
            }
            encoder.endEncoding();
            ended(&buffer)
        })
    }

    fn compile(&self, source: &str, symbol: &str) -> Result<(Self::Pipeline, Compiled), String> {
        autoreleasepool(|_| {
            let options = MTLCompileOptions::new();
            options.setLanguageVersion(MTLLanguageVersion::Version3_0);
            // What replaces it is not there before macOS 15, and means the same.
            #[allow(deprecated)]
            options.setFastMathEnabled(false);
            let library = self
                .device
                .newLibraryWithSource_options_error(&NSString::from_str(source), Some(&options))
                .map_err(|error| words(&error))?;
            let function = library.newFunctionWithName(&NSString::from_str(symbol));
            let function = function.ok_or("the library has no such function")?;
            let pipeline = self
                .device
                .newComputePipelineStateWithFunction_error(&function)
                .map_err(|error| words(&error))?;
            let compiled = Compiled {
                width: pipeline.threadExecutionWidth() as u64,
                most_threads: pipeline.maxTotalThreadsPerThreadgroup() as u64,
                threadgroup_bytes: pipeline.staticThreadgroupMemoryLength() as u64,
            };
            Ok((pipeline, compiled))
        })
    }

    fn begin(&self) -> Result<AppleCommands, Failure> {
        autoreleasepool(|_| {
            let none = |what| Failure::Other(format!("Metal gives no {what}"));
            let buffer = self.queue.commandBufferWithUnretainedReferences();
            let buffer = buffer.ok_or_else(|| none("command buffer"))?;
            let encoder = buffer.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent);
            let encoder = encoder.ok_or_else(|| none("encoder"))?;
            Ok(AppleCommands { buffer, encoder })
        })
    }

    unsafe fn dispatch(&self, commands: &mut AppleCommands, launch: &Launch<'_, Self>) {
        let encoder = &commands.encoder;
        encoder.setComputePipelineState(launch.pipeline);
        // SAFETY: Metal copies the arguments now. Ranges lie within their buffers, which outlive the work, and are what
        // the pipeline's entry point declares: the caller's promise.
        unsafe {
            let args = NonNull::from(launch.args).cast::<c_void>();
            encoder.setBytes_length_atIndex(args, launch.args.len(), 0);
            for (at, bound) in launch.buffers.iter().enumerate() {
                let buffer = &*bound.memory.0;
                debug_assert!(bound.offset + bound.bytes <= buffer.length() as u64);
                encoder.setBuffer_offset_atIndex(Some(buffer), bound.offset as usize, at + 1);
            }
        }
        let [width, height, depth] = launch.groups.map(|count| count as usize);
        let groups = MTLSize {
            width,
            height,
            depth,
        };
        let threads = MTLSize {
            width: launch.threads as usize,
            height: 1,
            depth: 1,
        };
        encoder.dispatchThreadgroups_threadsPerThreadgroup(groups, threads);
    }

    fn barrier(&self, commands: &mut AppleCommands) {
        let scope = MTLBarrierScope::Buffers;
        commands.encoder.memoryBarrierWithScope(scope);
    }

    fn finish(&self, commands: AppleCommands) -> Result<f64, Failure> {
        autoreleasepool(|_| {
            let buffer = commands.buffer.clone();
            // Ends the encoder.
            drop(commands);
            ended(&buffer)
        })
    }
}

/// Runs a command buffer to its end; the seconds that the GPU took.
fn ended(buffer: &ProtocolObject<dyn MTLCommandBuffer>) -> Result<f64, Failure> {
    buffer.commit();
    buffer.waitUntilCompleted();
    if buffer.status() == MTLCommandBufferStatus::Completed {
        return Ok(buffer.GPUEndTime() - buffer.GPUStartTime());
    }
    Err(match buffer.error() {
        Some(error) => failed(&error),
        None => Failure::Other("the command buffer ended without a reason".into()),
    })
}

/// What an error of a command buffer means.
fn failed(error: &NSError) -> Failure {
    let code = MTLCommandBufferError(error.code() as usize);
    match code {
        MTLCommandBufferError::OutOfMemory => Failure::OutOfMemory,
        MTLCommandBufferError::AccessRevoked
        | MTLCommandBufferError::NotPermitted
        | MTLCommandBufferError::DeviceRemoved => Failure::Lost(words(error)),
        _ => Failure::Other(words(error)),
    }
}

/// An error's own words.
fn words(error: &NSError) -> String {
    error.localizedDescription().to_string()
}
