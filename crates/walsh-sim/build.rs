//! Tells the crate what it was built for: the host's C++ compiler is asked for by target.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=SIM_TARGET={target}");
}
