//! Golden data, kernel lints and tidy checks.

fn main() {}
