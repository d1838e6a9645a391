use walsh_runtime::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let d = walsh::cpu::open(Default::default()).unwrap();
    let t = std::time::Instant::now();
    let m = Model::open(&d, &a[1]).unwrap();
    eprintln!("open {:?}", t.elapsed());
    let mut s = m.session(SessionOptions { kv: a[2].parse().unwrap(), ..Default::default() }).unwrap();
    let mut g = s.generate(&a[3], GenerateOptions { max_tokens: Some(24), ..Default::default() }).unwrap();
    for p in g.by_ref() { print!("{}", p.unwrap()); }
    println!("\n{:?} {:?}", g.tokens(), g.figures());
}
