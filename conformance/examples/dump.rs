use conformance::cases::TABLES;
use std::collections::HashSet;
fn main() {
    let device = walsh::open("cpu:threads=1").unwrap();
    let dir = std::env::args().nth(1).unwrap();
    let filter = std::env::args().nth(2).unwrap_or_default();
    let mut seen = HashSet::new();
    for table in TABLES {
        if !table.op.contains(&filter) {
            continue;
        }
        let mut count = 0;
        for problem in table.problems() {
            let tensors: Vec<_> = problem
                .tensors
                .iter()
                .map(|h| device.zeros(h.dtype, &h.shape).unwrap())
                .collect();
            let op = (problem.bind)(&tensors).unwrap();
            let limits = walsh_kernels::Limits {
                multiprocessors: 132,
                threadgroup_bytes: 49152,
            };
            match walsh_kernels::variants_of(&op, &limits) {
                Ok(vs) => {
                    for v in vs {
                        if seen.insert(v.symbol()) {
                            count += 1;
                            std::fs::write(
                                format!("{dir}/{}.cu", v.symbol()),
                                v.source(walsh_kernels::Platform::Cuda),
                            )
                            .unwrap();
                        }
                    }
                }
                Err(e) => {
                    println!("{e}");
                    break;
                }
            }
        }
        println!("{}: {count} variants", table.op);
    }
}
