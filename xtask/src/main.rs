//! Checks of the repository itself: `cargo run -p xtask -- tidy`.

mod lint;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- COMMAND

commands:
  lint-kernels    check the rules of the kernels' dialect that no compiler knows
  tidy            check the rules of CONTRIBUTING.md that neither rustfmt nor clippy knows";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lint-kernels"] => lint::run(),
        ["tidy"] => tidy::run(),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
