//! Launches as a graph that the device replays.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{
    CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUdeviceptr, CUgraph, CUgraphEdgeData, CUgraphExec,
    CUgraphNode, CUmemorytype,
};
use walsh_core::Result;
use walsh_kernels::{Dispatch, Fusion};

use crate::context::{Context, Event};
use crate::memory::{Pinned, address};
use crate::modules::Module;

/// A graph that is being put together. What is added comes behind what was there.
pub(crate) struct Graph {
    handle: CUgraph,
    context: Arc<Context>,
    /// What the next nodes depend on.
    previous: Vec<CUgraphNode>,
    /// Nodes that depend on `previous`, and not on each other.
    current: Vec<CUgraphNode>,
    /// Whether a launch that follows a launch may begin before that has ended: kernels wait for it themselves.
    early: bool,
    /// The last node, when it is a launch.
    launch: Option<CUgraphNode>,
}

/// An edge from a launch to a launch that waits for it itself.
static EARLY: CUgraphEdgeData = CUgraphEdgeData {
    from_port: 1,
    to_port: 0,
    type_: 1,
    reserved: [0; 5],
};

impl Graph {
    pub(crate) fn new(context: &Arc<Context>, early: bool) -> Result<Self> {
        let mut handle = ptr::null_mut();
        context.enter()?;
        // SAFETY: the driver writes one handle; the only flag is 0.
        let code = unsafe { (context.driver.create_graph)(&raw mut handle, 0) };
        context.check(code, "creating a graph")?;
        Ok(Self {
            handle,
            context: context.clone(),
            previous: Vec::new(),
            current: Vec::new(),
            early,
            launch: None,
        })
    }

    /// Has what is added from now on wait for all that is there.
    pub(crate) fn barrier(&mut self) -> Result<()> {
        match self.current.len() {
            0 => return Ok(()),
            1 => {}
            // One node that waits for all spares an edge from each to each.
            _ => {
                let mut node = ptr::null_mut();
                // SAFETY: the graph and its nodes live.
                let code = unsafe {
                    (self.context.driver.add_empty)(
                        &raw mut node,
                        self.handle,
                        self.current.as_ptr(),
                        self.current.len(),
                    )
                };
                self.context.check(code, "adding to a graph")?;
                self.current = vec![node];
            }
        }
        self.previous = std::mem::take(&mut self.current);
        Ok(())
    }

    /// Adds a launch: of one dispatch, or of several side by side.
    pub(crate) fn kernel(&mut self, module: &Module, dispatches: &[Dispatch]) -> Result<()> {
        let fusion = Fusion::of(dispatches);
        let ([x, y, z], parts) = Fusion::grid(dispatches);
        let mut addresses: Vec<Vec<CUdeviceptr>> = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            let spans = dispatch.buffers.iter().map(|binding| &binding.span);
            let own = spans.map(|span| address(&self.context, span));
            addresses.push(own.collect::<Result<_>>()?);
        }
        let mut parameters: Vec<*mut c_void> = Vec::new();
        if !parts.is_empty() {
            parameters.push(parts.as_ptr().cast_mut().cast());
        }
        for (dispatch, addresses) in dispatches.iter().zip(&mut addresses) {
            parameters.push(dispatch.args.as_ptr().cast_mut().cast());
            parameters.extend(
                addresses
                    .iter_mut()
                    .map(|a| ptr::from_mut(a).cast::<c_void>()),
            );
        }
        let threads = dispatches
            .first()
            .map_or(0, |first| first.variant.threads());
        let node = CUDA_KERNEL_NODE_PARAMS {
            func: module.function,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: fusion.dynamic_bytes(),
            kernelParams: parameters.as_mut_ptr(),
            extra: ptr::null_mut(),
            kern: ptr::null_mut(),
            ctx: ptr::null_mut(),
        };
        // The end of the graph's launches is the end of all: each waits for the one before.
        let waits =
            self.early && self.previous.len() == 1 && self.launch == self.previous.first().copied();
        let (before, edges): (&[_], &[_]) = match waits {
            true => (&[], &self.previous),
            false => (&self.previous, &[]),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the kernel takes, after the parts of several, each dispatch's argument struct, whose bytes are `args`, and
        // one address per buffer: the entry point is written from the table that dispatches were checked against. The
        // driver copies them now.
        let code = unsafe {
            (self.context.driver.add_kernel)(
                &raw mut handle,
                self.handle,
                before.as_ptr(),
                before.len(),
                &raw const node,
            )
        };
        let adding = || format!("adding {} to a graph", fusion.symbol());
        self.context.check(code, adding)?;
        for edge in edges {
            // SAFETY: both nodes are launches of this graph.
            let code = unsafe {
                (self.context.driver.add_edges)(
                    self.handle,
                    &raw const *edge,
                    &raw const handle,
                    &raw const EARLY,
                    1,
                )
            };
            self.context.check(code, adding)?;
        }
        self.launch = Some(handle);
        self.current.push(handle);
        Ok(())
    }

    /// Adds a copy of a few bytes to the host, which stay where they are for as long as the graph.
    pub(crate) fn copy_to_host(&mut self, from: CUdeviceptr, to: &Pinned) -> Result<()> {
        let copy = CUDA_MEMCPY3D {
            srcXInBytes: 0,
            srcY: 0,
            srcZ: 0,
            srcLOD: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: from,
            srcArray: ptr::null_mut(),
            reserved0: ptr::null_mut(),
            srcPitch: 0,
            srcHeight: 0,
            dstXInBytes: 0,
            dstY: 0,
            dstZ: 0,
            dstLOD: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: to.base().cast(),
            dstDevice: 0,
            dstArray: ptr::null_mut(),
            reserved1: ptr::null_mut(),
            dstPitch: 0,
            dstHeight: 0,
            WidthInBytes: to.len(),
            Height: 1,
            Depth: 1,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: both ranges live as long as the program that the graph becomes.
        let code = unsafe {
            (self.context.driver.add_copy)(
                &raw mut handle,
                self.handle,
                self.previous.as_ptr(),
                self.previous.len(),
                &raw const copy,
                self.context.handle,
            )
        };
        self.context.check(code, "adding a copy to a graph")?;
        self.current.push(handle);
        Ok(())
    }

    /// Adds a reading of the clock.
    pub(crate) fn event(&mut self, event: &Event) -> Result<()> {
        let mut handle = ptr::null_mut();
        // SAFETY: the graph, its nodes and the event live.
        let code = unsafe {
            (self.context.driver.add_event)(
                &raw mut handle,
                self.handle,
                self.previous.as_ptr(),
                self.previous.len(),
                event.handle,
            )
        };
        self.context.check(code, "adding an event to a graph")?;
        self.current.push(handle);
        Ok(())
    }

    /// Makes it ready to be replayed.
    pub(crate) fn finish(self) -> Result<Replay> {
        let context = &self.context;
        let mut handle = ptr::null_mut();
        // SAFETY: the graph lives; 0 is no flag.
        let code = unsafe { (context.driver.instantiate)(&raw mut handle, self.handle, 0) };
        context.check_memory(code, 0, "preparing a graph")?;
        let replay = Replay {
            handle,
            context: context.clone(),
        };
        // SAFETY: both handles live.
        let code = unsafe { (context.driver.upload)(replay.handle, context.stream) };
        context.check_memory(code, 0, "preparing a graph")?;
        Ok(replay)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: created in `new`; what was made of it does not need it.
        unsafe {
            (self.context.driver.set_context)(self.context.handle);
            (self.context.driver.destroy_graph)(self.handle);
        }
    }
}

/// A graph that the device replays.
pub(crate) struct Replay {
    handle: CUgraphExec,
    context: Arc<Context>,
}

// SAFETY: the driver's handles may be used from any thread; launches are the backend's, under its lock.
unsafe impl Send for Replay {}
// SAFETY: as above.
unsafe impl Sync for Replay {}

impl Replay {
    /// Hands it to the stream.
    pub(crate) fn launch(&self) -> Result<()> {
        let context = &self.context;
        // SAFETY: both handles live, and so does what the graph's nodes use, which its program holds.
        let code = unsafe { (context.driver.launch)(self.handle, context.stream) };
        context.check_memory(code, 0, "starting a graph")
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // SAFETY: made by `Graph::finish`, and it is not running: every launch is waited for.
        unsafe {
            (self.context.driver.set_context)(self.context.handle);
            (self.context.driver.destroy_program)(self.handle);
        }
    }
}
