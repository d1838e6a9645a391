//! What a compiled kernel takes of a multiprocessor, as the assembler says it.

/// The option that has the assembler say it, in [`Compiled::log`](crate::Compiled::log).
pub const VERBOSE: &str = "--ptxas-options=-v";

/// What an entry point takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// The entry point's name.
    pub symbol: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread keeps in memory, spilled registers among them.
    pub stack: u32,
    /// Bytes that are written because registers run out.
    pub spilled: u32,
    /// Bytes of shared memory of a group.
    pub shared: u32,
}

impl Usage {
    /// The entry points of a log.
    #[must_use]
    pub fn read(log: &str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for line in log.lines() {
            if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                all.push(Self {
                    symbol: rest.split('\'').next().unwrap_or_default().into(),
                    ..Self::default()
                });
            }
            let Some(usage) = all.last_mut() else {
                continue;
            };
            // Functions that are not inlined have properties of their own: the largest counts.
            let before = |unit| number_before(line, unit);
            usage.stack = usage.stack.max(before(" bytes stack frame"));
            usage.spilled = usage.spilled.max(before(" bytes spill stores"));
            usage.registers = usage.registers.max(before(" registers"));
            usage.shared = usage.shared.max(before(" bytes smem"));
        }
        all
    }
}

/// The number that stands before a unit in a line; 0 when there is none.
fn number_before(line: &str, unit: &str) -> u32 {
    let Some((before, _)) = line.split_once(unit) else {
        return 0;
    };
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_point_is_read_with_its_own_numbers() {
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'walsh_b' for 'sm_90a'\n\
            ptxas info    : Function properties for walsh_b\n\
            ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 8 registers, used 0 barriers\n\
            ptxas info    : Compile time = 7.172 ms\n\
            ptxas info    : Compiling entry function 'walsh_a' for 'sm_90a'\n\
            ptxas info    : Function properties for walsh_a\n\
            ptxas         .     160 bytes stack frame, 24 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 95 registers, used 1 barriers, 160 bytes cumulative stack size, 400 bytes smem\n";
        let b = Usage {
            symbol: "walsh_b".into(),
            registers: 8,
            ..Usage::default()
        };
        let a = Usage {
            symbol: "walsh_a".into(),
            registers: 95,
            stack: 160,
            spilled: 24,
            shared: 400,
        };
        assert_eq!(Usage::read(log), [b, a]);
        assert_eq!(Usage::read(""), []);
        assert_eq!(Usage::read("nothing of the kind: Used registers"), []);
    }
}
