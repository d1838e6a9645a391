//! That the library which Python loads is built where `.ci/python` looks for it.

use std::path::PathBuf;

#[test]
fn the_library_has_the_entry_point_that_python_looks_for() {
    // The test lies in `deps` beside the library.
    let test = std::env::current_exe().expect("the path of this test");
    let folder: PathBuf = test.parent().expect("the folder of this test").into();
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = folder.join(format!("{prefix}_walsh{suffix}"));
    let bytes = std::fs::read(&library).expect("the library");
    let entry = b"PyInit__walsh";
    assert!(bytes.windows(entry.len()).any(|window| window == entry));
}
