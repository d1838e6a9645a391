//! temp
use crate::Result;
/// t
#[derive(Debug,Clone,Default)] pub struct Sampling;
/// t
pub struct Sampler;
impl Sampler { /// x
pub fn new(_:&Sampling)->Result<Sampler>{Ok(Sampler)} 
/// x
pub fn sample(&mut self, l:&mut [f32], _:&[i32])->Result<i32>{ let mut b=0; for i in 0..l.len(){ if l[i]>l[b]{b=i} } Ok(b as i32) } }
