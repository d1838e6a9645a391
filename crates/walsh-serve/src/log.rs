//! What is logged, and where.

use tracing::Level;

/// How requests are logged on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// A line for each.
    Text,
    /// An object of JSON for each.
    Json,
    /// Only what goes wrong.
    Off,
}

/// Begins to log, for all of the process: once.
pub fn log(kind: LogKind) {
    let level = match kind {
        LogKind::Text | LogKind::Json => Level::INFO,
        LogKind::Off => Level::WARN,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .with_max_level(level);
    // Who logs already goes on so.
    let _ = match kind {
        LogKind::Json => builder.json().flatten_event(true).try_init(),
        LogKind::Text | LogKind::Off => builder.try_init(),
    };
}
