//! temp naive
use crate::lower::{Lowering, Target};
use crate::memory::View;
use crate::team::{Phase, Scratch};
use std::ops::Range;
use walsh_core::ops::{AttentionDecode, AttentionPrefill, Mask, Operation};
use walsh_core::{KvCache, Plan, Result, Tensor};
pub(crate) fn plan_decode(_: &AttentionDecode, _: Target) -> Result<Plan> {
    Ok(Plan {
        kernel: "naive".into(),
        pieces: 1,
        workspace: 0,
    })
}
pub(crate) fn plan_prefill(_: &AttentionPrefill, _: Target) -> Result<Plan> {
    Ok(Plan {
        kernel: "naive".into(),
        pieces: 1,
        workspace: 0,
    })
}
struct Naive {
    q: View<f32>,
    pos: View<i32>,
    out: View<f32>,
    cache: KvCache,
    kc: View<u8>,
    ks: Option<View<u8>>,
    vc: View<u8>,
    vs: Option<View<u8>>,
    fresh: Option<(View<f32>, View<f32>)>,
    mask: Mask,
    heads: usize,
    n: usize,
}
fn make(
    q: &Tensor,
    pos: &Tensor,
    out: &Tensor,
    cache: &KvCache,
    mask: Mask,
    fresh: Option<(&Tensor, &Tensor)>,
) -> Result<Naive> {
    let fresh = match fresh {
        Some((k, v)) => Some((View::of(k)?, View::of(v)?)),
        None => None,
    };
    let sc = |s: &Option<Tensor>| -> Result<Option<View<u8>>> {
        match s {
            Some(t) => Ok(Some(View::of(t)?)),
            None => Ok(None),
        }
    };
    Ok(Naive {
        q: View::of(q)?,
        pos: View::of(pos)?,
        out: View::of(out)?,
        kc: View::of(&cache.key().codes)?,
        ks: sc(&cache.key().scales)?,
        vc: View::of(&cache.value().codes)?,
        vs: sc(&cache.value().scales)?,
        cache: cache.clone(),
        fresh,
        mask,
        heads: q.shape()[1] as usize,
        n: q.shape()[0] as usize,
    })
}
pub(crate) fn lower_decode(op: &AttentionDecode, l: &mut Lowering) -> Result<()> {
    let p = make(
        &op.query,
        &op.positions,
        &op.output,
        &op.cache,
        op.mask,
        None,
    )?;
    l.phase(&op.accesses(), p);
    Ok(())
}
pub(crate) fn lower_prefill(op: &AttentionPrefill, l: &mut Lowering) -> Result<()> {
    let p = make(
        &op.query,
        &op.positions,
        &op.output,
        &op.cache,
        op.mask,
        Some((&op.keys, &op.values)),
    )?;
    l.phase(&op.accesses(), p);
    Ok(())
}
impl Phase for Naive {
    fn items(&self) -> usize {
        self.cache.kv_heads() as usize
    }
    fn cost(&self) -> u64 {
        1_000_000
    }
    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        unsafe {
            let d = self.cache.head_dim() as usize;
            let cap = self.cache.capacity() as usize;
            let g = self.heads / self.cache.kv_heads() as usize;
            let kvh = self.cache.kv_heads() as usize;
            let pos = self.pos.all();
            let p0 = pos[0] as usize;
            let last = pos[self.n - 1] as usize;
            let stored = if self.fresh.is_some() { p0 } else { last + 1 };
            let lo = stored.saturating_sub(cap);
            for h in items {
                let (k, v) = (self.cache.key(), self.cache.value());
                let mut kd = vec![0f32; (last + 1) * d];
                let mut vd = vec![0f32; (last + 1) * d];
                for t in lo..stored {
                    let s = h * cap + t % cap;
                    let row = |c: &walsh_formats::kv::RowCodec,
                               codes: &View<u8>,
                               sc: &Option<View<u8>>,
                               out: &mut [f32]| {
                        let cb = c.code_bytes();
                        let sb = c.scale_bytes();
                        let sl: &[u8] = match sc {
                            Some(x) => x.slice(s * sb..(s + 1) * sb),
                            None => &[],
                        };
                        c.decode_row(codes.slice(s * cb..(s + 1) * cb), sl, out);
                    };
                    row(&k.codec, &self.kc, &self.ks, &mut kd[t * d..(t + 1) * d]);
                    row(&v.codec, &self.vc, &self.vs, &mut vd[t * d..(t + 1) * d]);
                }
                if let Some((fk, fv)) = &self.fresh {
                    for i in 0..self.n {
                        let o = (i * kvh + h) * d;
                        let t = p0 + i;
                        kd[t * d..(t + 1) * d].copy_from_slice(fk.slice(o..o + d));
                        vd[t * d..(t + 1) * d].copy_from_slice(fv.slice(o..o + d));
                    }
                }
                for i in 0..self.n {
                    let p = p0 + i;
                    let start = lo.max(match self.mask.window {
                        Some(w) => (p + 1).saturating_sub(w as usize),
                        None => 0,
                    });
                    for hq in h * g..(h + 1) * g {
                        let q = self
                            .q
                            .slice((i * self.heads + hq) * d..(i * self.heads + hq + 1) * d);
                        let out = self
                            .out
                            .slice_mut((i * self.heads + hq) * d..(i * self.heads + hq + 1) * d);
                        let mut s: Vec<f32> = (start..=p)
                            .map(|t| {
                                let mut a = 0.0;
                                for j in 0..d {
                                    a += q[j] * kd[t * d + j];
                                }
                                a *= self.mask.scale;
                                if let Some(c) = self.mask.softcap {
                                    a = c * (a / c).tanh();
                                }
                                a
                            })
                            .collect();
                        let m = s.iter().cloned().fold(f32::NEG_INFINITY, f32::max);
                        let mut z = 0.0;
                        for x in &mut s {
                            *x = (*x - m).exp();
                            z += *x;
                        }
                        out.fill(0.0);
                        for (i, t) in (start..=p).enumerate() {
                            let w = s[i] / z;
                            for j in 0..d {
                                out[j] += w * vd[t * d + j];
                            }
                        }
                    }
                }
            }
        }
    }
}
