//! What ops are lowered to, on a device that runs nothing.

mod attention;
mod joined;
mod launches;
mod paper;
mod products;
