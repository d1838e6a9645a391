//! Storing to and attending over a KV cache, through the device, on every instruction set of this machine.

mod attention;
mod store;
mod support;
