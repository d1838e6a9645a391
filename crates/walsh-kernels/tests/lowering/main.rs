//! What ops are lowered to, on a device that runs nothing.

mod attention;
mod experts;
mod joined;
mod launches;
mod paper;
mod products;
mod recurrent;
