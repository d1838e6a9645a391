//! The `walsh` command.

fn main() {}
