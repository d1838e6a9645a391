//! What ops are lowered to, on a device that runs nothing.

mod attention;
mod launches;
mod paper;
mod products;
