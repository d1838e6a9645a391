//! temp naive
use crate::lower::{Lowering, Target};
use crate::memory::View;
use crate::team::{Phase, Scratch};
use std::ops::Range;
use walsh_core::ops::{KvStore, Operation};
use walsh_core::{Plan, Result};
pub(crate) fn plan(_: &KvStore, _: Target) -> Result<Plan> {
    Ok(Plan {
        kernel: "naive".into(),
        pieces: 1,
        workspace: 0,
    })
}
struct Naive(KvStore);
pub(crate) fn lower(op: &KvStore, l: &mut Lowering) -> Result<()> {
    l.phase(&op.accesses(), Naive(op.clone()));
    Ok(())
}
impl Phase for Naive {
    fn items(&self) -> usize {
        self.0.cache.kv_heads() as usize
    }
    fn cost(&self) -> u64 {
        1_000_000
    }
    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        unsafe {
            let op = &self.0;
            let d = op.cache.head_dim() as usize;
            let cap = op.cache.capacity() as usize;
            let kvh = op.cache.kv_heads() as usize;
            let pos = View::<i32>::of(&op.positions).unwrap();
            let mut sc = vec![0f32; d];
            for (src, side) in [(&op.keys, op.cache.key()), (&op.values, op.cache.value())] {
                let x = View::<f32>::of(src).unwrap();
                let codes = View::<u8>::of(&side.codes).unwrap();
                let scales = side.scales.as_ref().map(|t| View::<u8>::of(t).unwrap());
                let (cb, sb) = (side.codec.code_bytes(), side.codec.scale_bytes());
                for h in items.clone() {
                    for i in 0..pos.len() {
                        let s = h * cap + pos.all()[i] as usize % cap;
                        let mut empty = [0u8; 0];
                        let sl = match &scales {
                            Some(v) => v.slice_mut(s * sb..(s + 1) * sb),
                            None => &mut empty[..],
                        };
                        side.codec
                            .encode_row(
                                x.slice((i * kvh + h) * d..(i * kvh + h + 1) * d),
                                &mut sc,
                                codes.slice_mut(s * cb..(s + 1) * cb),
                                sl,
                            )
                            .unwrap();
                    }
                }
            }
        }
    }
}
