use half::f16;
use walsh::DType;
use walsh::formats::ggml::{self, Role};

/// A small generator (SplitMix64): the same numbers on every platform.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that always gives the same sequence for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` − 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// One of the items.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A number from 0 up to 1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the standard normal distribution.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }

    /// `count` numbers of the standard normal distribution.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8))
            .flat_map(|_| self.bits().to_le_bytes())
            .collect();
        bytes.truncate(count);
        bytes
    }
}

/// `count` numbers as stored bytes of a weight type: random codes, under scales
/// of weights as models have them.
///
/// # Panics
/// When `count` is no whole number of blocks.
pub(crate) fn blocks(rng: &mut Rng, dtype: DType, count: usize) -> Vec<u8> {
    assert_eq!(count % dtype.block_len(), 0);
    let Some(form) = ggml::form(dtype) else {
        let values: Vec<f32> = rng.normals(count).iter().map(|x| 0.1 * x).collect();
        let mut bytes = vec![0; count * dtype.block_bytes()];
        ggml::encode(dtype, &values, &mut bytes).expect("finite numbers");
        return bytes;
    };
    let block_bytes = dtype.block_bytes();
    let mut bytes = rng.bytes(count / dtype.block_len() * block_bytes);
    let scale_at = form.at(Role::Scale).expect("every block has a scale");
    for block in bytes.chunks_exact_mut(block_bytes) {
        let mut put = |at: usize, value: f32| {
            block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        };
        let scale = 0.02 * rng.normal();
        put(scale_at, scale);
        if let Some((at, factor)) = form.centring() {
            put(at, factor * scale * (1.0 + 0.2 * rng.normal()));
        }
    }
    bytes
}
