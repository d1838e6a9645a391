//! Every instruction set does what the portable one does.

use walsh_formats::codebook::codebook;
use walsh_formats::kv::TqBits;

use super::*;
use crate::isa::Isa;

/// Sixteen numbers of mixed signs and sizes.
fn numbers(seed: u32) -> [f32; 16] {
    std::array::from_fn(|i| {
        let x = (i as u32)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(seed.wrapping_mul(40_503))
            >> 8;
        (x % 4001) as f32 / 500.0 - 4.0
    })
}

/// What one instruction set makes of the same inputs: bit patterns, by operation.
fn fingerprint<S: Simd>(s: S, out: &mut Vec<(&'static str, Vec<u32>)>) {
    let mut put =
        |name, values: &[f32]| out.push((name, values.iter().map(|v| v.to_bits()).collect()));

    let read = |a: S::F| {
        let mut array = [0.0f32; 16];
        s.write(&mut array, a);
        array
    };
    let (a, b, c) = (numbers(1), numbers(2), numbers(3));
    let (x, y, z) = (s.read(&a), s.read(&b), s.read(&c));
    put("add", &read(s.add(x, y)));
    put("sub", &read(s.sub(x, y)));
    put("mul", &read(s.mul(x, y)));
    put("div", &read(s.div(x, y)));
    put("max", &read(s.max(x, y)));
    put("min", &read(s.min(x, y)));
    put("abs", &read(s.abs(x)));
    put("zero_below", &read(s.zero_below(x, y, z)));
    put("pick_below", &read(s.pick_below(x, y, z, x)));
    put("keep", &read(s.keep(x, 3, 13)));
    put("keep none", &read(s.keep(x, 16, 40)));
    put("keep all", &read(s.keep(x, -5, 16)));
    put("reduce", &[s.reduce_max(x), s.reduce_add(x)]);
    let mut rows: [S::F; 16] = std::array::from_fn(|i| s.read(&numbers(i as u32)));
    put("sums", &read(s.sums(&rows)));
    put("pick_bits", &read(s.pick_bits(0xdead_b52c, x, y)));
    let sum = s.reduce_doubles(s.add_squares(s.add_squares(s.zeros(), x), s.mul(y, z)));
    put(
        "squares",
        &[sum as f32, (sum - f64::from(sum as f32)) as f32],
    );
    put("butterfly 1", &read(s.butterfly::<1>(x)));
    put("butterfly 2", &read(s.butterfly::<2>(x)));
    put("butterfly 4", &read(s.butterfly::<4>(x)));
    put("butterfly 8", &read(s.butterfly::<8>(x)));
    let words: [u32; 16] = std::array::from_fn(|i| (i as u32 + 1).wrapping_mul(0x9e37_79b9));
    // SAFETY: sixteen integers.
    let w = unsafe { s.load_i(words.as_ptr()) };
    let counts: [u32; 16] = std::array::from_fn(|i| (i as u32 * 7) % 32);
    // SAFETY: sixteen integers.
    let n = unsafe { s.load_i(counts.as_ptr()) };
    put(
        "integers",
        &read(s.of_bits(s.add_i(
            s.or(s.shr(w, n), s.splat_i(3)),
            s.sub_i(s.xor(w, s.and(w, n)), n),
        ))),
    );
    let small = s.shr(w, s.splat_i(5));
    put("number", &read(s.number(small)));
    put("shl", &read(s.of_bits(s.shl::<5>(w))));
    put("add_if_less", &read(s.of_bits(s.add_if_less(w, x, y, 8))));
    let large = s.mul(x, s.splat(1e8));
    put("truncate", &read(s.of_bits(s.truncate(large))));
    // SAFETY: every pointer is into a live array of sufficient size.
    unsafe {
        let bytes: [u8; 64] = std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11));
        put(
            "load_u8",
            &read(s.of_bits(s.load_u8(bytes.as_ptr().add(3)))),
        );
        put("load_i8", &read(s.load_i8(bytes.as_ptr().add(3))));
        put("load_bf16", &read(s.load_bf16(bytes.as_ptr().add(1))));
        let mut stored = [0u8; 32];
        s.store_f16(stored.as_mut_ptr(), x);
        put("f16", &read(s.load_f16(stored.as_ptr())));
        let mut low = [0u8; 16];
        s.store_u8(low.as_mut_ptr(), w);
        put("store_u8", &low.map(f32::from));
        let mut packed = [0u8; 32];
        s.store_u16(packed.as_mut_ptr(), w);
        put("store_u16", &packed.map(f32::from));
        packed.fill(0);
        s.store_bits::<1>(packed.as_mut_ptr(), w);
        s.store_bits::<2>(packed.as_mut_ptr().add(2), w);
        s.store_bits::<4>(packed.as_mut_ptr().add(6), w);
        put("store_bits", &packed.map(f32::from));
        let halves = [1.0 / 3.0, 70_000.0, 1e-7, -2.5].map(|x| f32::from(s.to_half(x)));
        put("to_half", &halves);
        let mut in_order = [0.0; 16];
        let taken = read(s.of_bits(s.and(s.nibbles(bytes.as_ptr()), s.splat_i(15))));
        for (lane, element) in S::ORDER.iter().enumerate() {
            in_order[usize::from(*element)] = taken[lane];
        }
        put("nibbles", &in_order);
        for column in s.columns(Sixteen::new(bytes.as_ptr(), 2)) {
            put("columns", &read(s.of_bits(column)));
        }
        s.store_f16(stored.as_mut_ptr(), x);
        put(
            "half",
            &[s.half(stored.as_ptr()), s.half(stored.as_ptr().add(6))],
        );
    }
    let tables = TqBits::ALL.map(|bits| table_numbers(&codebook(bits).centroids));
    let table = |bits: TqBits| Table::new(s, &tables[bits as usize]);
    put("lookup 2", &read(s.lookup::<2>(&table(TqBits::B2), w)));
    put("lookup 3", &read(s.lookup::<3>(&table(TqBits::B3), w)));
    put("lookup 4", &read(s.lookup::<4>(&table(TqBits::B4), w)));
    put("lookup 5", &read(s.lookup::<5>(&table(TqBits::B5), w)));
    put("lookup 6", &read(s.lookup::<6>(&table(TqBits::B6), w)));
    let longer = table_numbers(&codebook(TqBits::B8).boundaries[..128]);
    put("lookup 7", &read(s.lookup::<7>(&Table::new(s, &longer), w)));
    put("lookup 8", &read(s.lookup::<8>(&table(TqBits::B8), w)));
    s.transpose(&mut rows);
    for row in rows {
        put("transpose", &read(row));
    }
}

entries! {
    fn fingerprint_of(out: &mut Vec<(&'static str, Vec<u32>)>) = fingerprint
}

#[test]
fn every_set_computes_the_same_bits() {
    let mut expected = Vec::new();
    fingerprint_of(Token::of(Isa::Portable), &mut expected);
    assert!(expected.len() > 40);
    for isa in Isa::available() {
        let mut got = Vec::new();
        fingerprint_of(Token::of(isa), &mut got);
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got, expected, "{isa}");
        }
    }
}

#[test]
fn order_is_a_permutation() {
    fn check<S: Simd>() {
        let mut order = S::ORDER;
        order.sort_unstable();
        assert_eq!(order, std::array::from_fn(|i| i as u8));
    }
    check::<Portable>();
    #[cfg(target_arch = "x86_64")]
    {
        check::<Avx2>();
        check::<Avx512>();
    }
}

fn functions<S: Simd>(s: S, x: &[f32; 16], exp_of: &mut [f32; 16], tanh_of: &mut [f32; 16]) {
    s.write(exp_of, exp(s, s.read(x)));
    s.write(tanh_of, tanh(s, s.read(x)));
}

entries! {
    fn functions_of(x: &[f32; 16], exp_of: &mut [f32; 16], tanh_of: &mut [f32; 16]) = functions
}

#[test]
fn exponentials_and_tangents_are_close() {
    for isa in Isa::available() {
        let (mut e, mut t) = ([0.0; 16], [0.0; 16]);
        for start in -60_000..0 {
            let x: [f32; 16] = std::array::from_fn(|i| (start as f32 + i as f32 / 16.0) * 0.0015);
            functions_of(Token::of(isa), &x, &mut e, &mut t);
            for (i, x) in x.iter().enumerate() {
                let exact = f64::from(*x).exp();
                assert!(
                    (f64::from(e[i]) - exact).abs() <= 3e-7 * exact + 1e-37,
                    "{isa} exp {x}: {}",
                    e[i]
                );
                let exact = f64::from(*x).tanh();
                assert!(
                    (f64::from(t[i]) - exact).abs() <= 4e-7 * exact.abs(),
                    "{isa} tanh {x}: {}",
                    t[i]
                );
            }
        }
        let mut x = [
            f32::NEG_INFINITY,
            f32::NAN,
            0.0,
            -1e30,
            12.0,
            500.0,
            f32::INFINITY,
            -0.3,
        ]
        .repeat(2);
        x.truncate(16);
        functions_of(Token::of(isa), &x.try_into().unwrap(), &mut e, &mut t);
        assert!(
            e[0] == 0.0 && e[1].is_nan() && e[2] == 1.0 && e[3] == 0.0,
            "{isa}"
        );
        assert!(
            t[0] == -1.0 && t[1].is_nan() && t[2] == 0.0 && t[5] == 1.0 && t[6] == 1.0,
            "{isa}"
        );
    }
}
