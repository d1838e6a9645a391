//! temp naive
use std::ops::Range;
use walsh_core::ops::{MatMul, Operation};
use walsh_core::{Plan, Result};
use crate::lower::{Lowering, Target};
use crate::memory::View;
use crate::team::{Phase, Scratch};
pub(crate) fn plan(_: &MatMul, _: Target) -> Result<Plan> { Ok(Plan{kernel:"naive".into(),pieces:1,workspace:0}) }
struct Naive(MatMul);
pub(crate) fn lower(op: &MatMul, l: &mut Lowering) -> Result<()> { l.phase(&op.accesses(), Naive(op.clone())); Ok(()) }
impl Phase for Naive {
 fn items(&self)->usize{ self.0.weight.shape()[0] as usize }
 fn grain(&self)->usize{ 16 }
 fn cost(&self)->u64{1_000_000}
 unsafe fn run(&self, items: Range<usize>, _:&mut Scratch){ unsafe {
  let op=&self.0; let (n,k)=(op.weight.shape()[0] as usize, op.weight.shape()[1] as usize); let m=op.input.shape()[0] as usize; let rb=op.weight.bytes() as usize/n;
  let w=View::<u8>::of(&op.weight).unwrap(); let x=View::<f32>::of(&op.input).unwrap(); let o=View::<f32>::of(&op.output).unwrap(); let mut row=vec![0f32;k];
  for i in items { walsh_formats::ggml::decode(op.weight.dtype(), w.slice(i*rb..(i+1)*rb), &mut row).unwrap();
   for j in 0..m { let a=x.slice(j*k..(j+1)*k); let mut s=[0f32;16]; for c in 0..k/16 { for l in 0..16 { s[l]+=a[c*16+l]*row[c*16+l]; } } o.slice_mut(j*n+i..j*n+i+1)[0]=s.iter().sum::<f32>(); } }
 } }
}
