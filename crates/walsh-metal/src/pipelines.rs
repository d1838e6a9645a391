//! Kernels of one device: each is compiled when a list first needs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walsh_kernels::{Dispatch, Platform, Variant};

use crate::api::{Api, Compiled};
use crate::device::{LANES, MOST_ARGS};

/// The kernels that a device has compiled.
pub(crate) struct Pipelines<A: Api> {
    /// Held while kernels are compiled: what two lists need is compiled once.
    ready: Mutex<HashMap<Variant, Arc<A::Pipeline>>>,
}

impl<A: Api> Pipelines<A> {
    pub(crate) fn new() -> Self {
        Self {
            ready: Mutex::default(),
        }
    }

    /// The kernel of each dispatch, in order.
    ///
    /// # Errors
    /// When one does not compile, or the GPU does not run it; the text names it.
    pub(crate) fn get(
        &self,
        api: &A,
        dispatches: &[Dispatch],
    ) -> Result<Vec<Arc<A::Pipeline>>, String> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<&Variant> = Vec::new();
        for Dispatch { variant, .. } in dispatches {
            if !ready.contains_key(variant) && !missing.contains(&variant) {
                missing.push(variant);
            }
        }
        for (variant, made) in missing.iter().zip(in_parallel(api, &missing)) {
            ready.insert((*variant).clone(), Arc::new(made?));
        }
        let found = |dispatch: &Dispatch| {
            let pipeline = ready.get(&dispatch.variant).cloned();
            pipeline.ok_or_else(|| format!("{} is missing", dispatch.variant.symbol()))
        };
        dispatches.iter().map(found).collect()
    }
}

/// What Metal does not take of some variants, each with the kernel's name.
#[cfg_attr(not(target_vendor = "apple"), allow(dead_code))]
pub(crate) fn refused<A: Api>(api: &A, variants: &[&Variant]) -> Vec<String> {
    let made = in_parallel(api, variants).into_iter();
    made.filter_map(Result::err).collect()
}

/// Where a thread puts what it has compiled.
type Made<A> = Mutex<Option<Result<<A as Api>::Pipeline, String>>>;

/// Compiles variants on as many threads as the machine runs.
fn in_parallel<'v, A: Api>(api: &A, variants: &[&'v Variant]) -> Vec<Result<A::Pipeline, String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let job = |variant: &&'v Variant| (*variant, Mutex::default());
    let jobs: Vec<(&Variant, Made<A>)> = variants.iter().map(job).collect();
    let work = || {
        let number = || next.fetch_add(1, Ordering::Relaxed);
        while let Some((variant, place)) = jobs.get(number()) {
            let pipeline = make(api, variant);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(pipeline);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(variants.len()) {
            scope.spawn(work);
        }
        work();
    });
    let outcome = |(_, made): (&Variant, Made<A>)| {
        let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.unwrap_or_else(|| Err("a thread that compiles kernels ended early".into()))
    };
    jobs.into_iter().map(outcome).collect()
}

fn make<A: Api>(api: &A, variant: &Variant) -> Result<A::Pipeline, String> {
    let symbol = variant.symbol();
    if variant.kernel().args.bytes > MOST_ARGS {
        return Err(format!(
            "{symbol} has {} bytes of arguments; Metal takes {MOST_ARGS}",
            variant.kernel().args.bytes
        ));
    }
    let (pipeline, compiled) = api
        .compile(&variant.source(Platform::Metal), &symbol)
        .map_err(|log| format!("Metal does not compile {symbol}: {}", first_lines(&log)))?;
    runs(variant, &compiled, api.facts().threadgroup_bytes)
        .map_err(|why| format!("{symbol} does not run on this GPU: {why}"))?;
    Ok(pipeline)
}

/// Whether what Metal made of a variant can be dispatched as the variant is.
fn runs(variant: &Variant, compiled: &Compiled, threadgroup_bytes: u64) -> Result<(), String> {
    if compiled.width != LANES {
        return Err(format!(
            "its simdgroups have {} threads, but kernels are written for {LANES}",
            compiled.width
        ));
    }
    let threads = u64::from(variant.threads());
    if threads > compiled.most_threads {
        return Err(format!(
            "its groups have {threads} threads, but its registers leave room for {}",
            compiled.most_threads
        ));
    }
    if compiled.threadgroup_bytes > threadgroup_bytes {
        return Err(format!(
            "it needs {} bytes of threadgroup memory of {threadgroup_bytes}",
            compiled.threadgroup_bytes
        ));
    }
    Ok(())
}

/// What a compiler says first, as one line.
fn first_lines(log: &str) -> String {
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(3).collect::<Vec<_>>().join(" / ")
}
