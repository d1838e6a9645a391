//! Links the library as extensions of Python are linked, where cargo and not maturin builds it: on macOS symbols of Python
//! have to be named as such that are found when it is loaded.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
