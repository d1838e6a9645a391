//! Kernels of one device: each is compiled when a list first needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use walsh_kernels::{Dispatch, Platform, Variant, complaint, in_parallel};

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
        for (variant, pipeline) in missing.iter().zip(made(api, &missing)) {
            ready.insert((*variant).clone(), Arc::new(pipeline?));
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
    made(api, variants)
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

/// Where a thread puts what it has compiled.
type Made<A> = Mutex<Option<Result<<A as Api>::Pipeline, String>>>;

/// Compiles variants, some at a time.
fn made<A: Api>(api: &A, variants: &[&Variant]) -> Vec<Result<A::Pipeline, String>> {
    let places: Vec<Made<A>> = variants.iter().map(|_| Mutex::default()).collect();
    in_parallel(variants.len(), &|at| {
        let pipeline = make(api, variants[at]);
        *places[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(pipeline);
    });
    let outcome = |place: Made<A>| {
        let made = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.unwrap_or_else(|| Err("there is no thread to be had that compiles kernels".into()))
    };
    places.into_iter().map(outcome).collect()
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
        .map_err(|log| complaint("Metal", &symbol, &log))?;
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
