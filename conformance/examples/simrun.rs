use conformance::cases::TABLES;
use conformance::{Bound, Target};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let limit: usize = args
        .get(2)
        .and_then(|a| a.parse().ok())
        .unwrap_or(usize::MAX);
    let device = walsh_sim::open(Default::default()).unwrap();
    let target = Target {
        name: "sim".into(),
        device,
        approximates: true,
    };
    for table in TABLES {
        if table.op != args[0] {
            continue;
        }
        let (mut ok, mut bad) = (0, 0);
        let mut slow = vec![];
        for p in table.problems() {
            if let Some(f) = args.get(1) {
                if !p.name.contains(f.as_str()) {
                    continue;
                }
            }
            let t = std::time::Instant::now();
            let r = Bound::new(&p, &target)
                .map_err(|e| e.to_string())
                .and_then(|b| b.verify());
            slow.push((t.elapsed().as_secs_f64(), p.name.clone()));
            match r {
                Ok(()) => ok += 1,
                Err(e) => {
                    bad += 1;
                    if bad <= 8 {
                        println!("{}: {}", p.name, &e[..e.len().min(400)]);
                    }
                }
            }
            if ok + bad >= limit {
                break;
            }
        }
        slow.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!(
            "{}: {ok} ok {bad} bad, {:.1}s; slowest {:?}",
            table.op,
            slow.iter().map(|s| s.0).sum::<f64>(),
            &slow[..slow.len().min(3)]
        );
    }
}
