//! A cache on the host, as the codecs' reference stores into it.

use walsh::formats::kv::RowCodec;
use walsh::ops::VectorSpace;
use walsh::{
    CacheKind, CacheSide, DType, KeyPreparation, KvCache, KvCacheOptions, KvSideTensors, KvTensors,
    OverlayOptions, PAGE, Result, Tensor,
};

use crate::reference::Row;
use crate::{HostTensor, Rng};

/// Encoded rows on the host. Slots that nothing was stored into have all bits set: a scale of NaN.
struct HostRows {
    codec: RowCodec,
    slots: usize,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl HostRows {
    fn new(codec: RowCodec, heads: usize, slots: usize) -> Self {
        Self {
            slots,
            codes: vec![0xff; heads * slots * codec.code_bytes()],
            scales: vec![0xff; heads * slots * codec.scale_bytes()],
            codec,
        }
    }

    fn encode(&mut self, (head, slot): (usize, usize), numbers: &[f32]) {
        let at = head * self.slots + slot;
        let (code_bytes, scale_bytes) = (self.codec.code_bytes(), self.codec.scale_bytes());
        let codes = &mut self.codes[at * code_bytes..][..code_bytes];
        let scales = &mut self.scales[at * scale_bytes..][..scale_bytes];
        self.codec
            .encode_row(numbers, &mut vec![0.0; numbers.len()], codes, scales)
            .expect("numbers that can be stored");
    }

    /// Decodes a vector, as it lies or turned back.
    fn decode(&self, (head, slot): (usize, usize), turned_back: bool, out: &mut [f32]) {
        let at = head * self.slots + slot;
        let (code_bytes, scale_bytes) = (self.codec.code_bytes(), self.codec.scale_bytes());
        let codes = &self.codes[at * code_bytes..][..code_bytes];
        let scales = &self.scales[at * scale_bytes..][..scale_bytes];
        match turned_back {
            true => self.codec.decode_row(codes, scales, out),
            false => self.codec.decode_row_rotated(codes, scales, out),
        }
    }

    /// Codes, then scales where the codec has any.
    fn tensors(&self, heads: u64) -> Vec<HostTensor> {
        let shape = |last: usize| [heads, self.slots as u64, last as u64];
        let codes = shape(self.codec.code_bytes());
        let mut tensors = vec![HostTensor::stored(DType::U8, &codes, self.codes.clone())];
        if let Some(dtype) = self.codec.scale_dtype() {
            let scales = shape(self.codec.groups());
            tensors.push(HostTensor::stored(dtype, &scales, self.scales.clone()));
        }
        tensors
    }
}

/// A cache on the host: its layout, and the bytes of what is stored.
pub(super) struct HostCache {
    pub(super) options: KvCacheOptions,
    /// What keys are divided by, and what is subtracted from them before: `[kv_heads, head_dim]`.
    preparation: Option<[Vec<f32>; 2]>,
    /// The rows of keys and of values, and those of their overlays.
    sides: [(HostRows, Option<HostRows>); 2],
    pages: HostPages,
}

/// Which pages hold which positions: none before they are stored.
struct HostPages {
    /// `[sequences, capacity / 64]`, of a cache of pages.
    table: Vec<i32>,
    /// The numbers of pages that hold nothing, in no order.
    free: Vec<i32>,
}

impl HostPages {
    fn new(options: &KvCacheOptions, rng: &mut Rng) -> Self {
        let CacheKind::Paged { pages } = options.kind else {
            let (table, free) = (Vec::new(), Vec::new());
            return Self { table, free };
        };
        let mut keyed: Vec<(f32, i32)> = rng.normals(pages as usize).into_iter().zip(0..).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            table: vec![-1; (options.sequences * (options.capacity / PAGE)) as usize],
            free: keyed.into_iter().map(|(_, page)| page).collect(),
        }
    }
}

impl HostCache {
    pub(super) fn new(options: KvCacheOptions, prepared: bool, rng: &mut Rng) -> Self {
        let dim = options.head_dim as usize;
        let of_all = options.sequences * options.kv_heads;
        let (heads, slots) = match options.kind {
            CacheKind::Global | CacheKind::Ring => (of_all, options.capacity),
            CacheKind::Paged { pages } => (options.kv_heads, pages * PAGE),
        };
        let codecs = [(options.codecs.key, true), (options.codecs.value, false)];
        let sides = codecs.map(|(codec, has_keys)| {
            let rows = |codec, heads: u64, slots: u64| {
                let codec = RowCodec::new(codec, dim).expect("a codec");
                let codec = match has_keys {
                    true => codec.for_keys(),
                    false => codec.for_values(),
                };
                HostRows::new(codec, heads as usize, slots as usize)
            };
            let overlay = options.overlay.and_then(|overlay| {
                let kept = overlay.tokens.side(codec, dim)?;
                Some(rows(kept, of_all, overlay.slots()))
            });
            (rows(codec, heads, slots), overlay)
        });
        let preparation = prepared.then(|| {
            let count = options.kv_heads as usize * dim;
            let equaliser = rng.normals(count).iter().map(|x| x.exp()).collect();
            [equaliser, rng.normals(count)]
        });
        Self {
            pages: HostPages::new(&options, rng),
            options,
            preparation,
            sides,
        }
    }

    /// Gives a position of a sequence a page, if it lies in pages and has none yet.
    pub(super) fn assign(&mut self, sequence: usize, position: usize) {
        if let Some(entry) = self.entry(sequence, position)
            && self.pages.table[entry] < 0
        {
            self.pages.table[entry] = self.pages.free.pop().expect("a page");
        }
    }

    /// Lets a sequence have a position's page from another, if that has one.
    pub(super) fn share(&mut self, position: i32, [from, to]: [usize; 2]) -> bool {
        let [from, to] = [from, to].map(|sequence| self.entry(sequence, position as usize));
        match (from, to) {
            (Some(from), Some(to)) if from != to && self.pages.table[from] >= 0 => {
                self.pages.table[to] = self.pages.table[from];
                true
            }
            _ => false,
        }
    }

    /// Where the page table has a position of a sequence.
    fn entry(&self, sequence: usize, position: usize) -> Option<usize> {
        let per_sequence = (self.options.capacity / PAGE) as usize;
        let paged = matches!(self.options.kind, CacheKind::Paged { .. });
        paged.then(|| sequence * per_sequence + position / PAGE as usize)
    }

    /// Whose rows hold a position of a sequence, and the slot.
    fn place(&self, sequence: usize, position: usize) -> (usize, usize) {
        match self.entry(sequence, position) {
            None => (sequence, position % self.options.capacity as usize),
            Some(entry) => {
                let (page, size) = (self.pages.table[entry] as usize, PAGE as usize);
                (0, page * size + position % size)
            }
        }
    }

    /// Stores a token of a sequence, as the codec's reference encodes it.
    pub(super) fn store(&mut self, sequence: usize, row: &Row) {
        self.store_sides(sequence, row, BOTH);
    }

    /// Stores a token's keys, its values or both.
    pub(super) fn store_sides(&mut self, sequence: usize, row: &Row, stored: &[CacheSide]) {
        let dim = self.options.head_dim as usize;
        let heads = self.options.kv_heads as usize;
        self.assign(sequence, row.position as usize);
        let (owner, slot) = self.place(sequence, row.position as usize);
        let overlay = self.options.overlay;
        let kept = overlay.and_then(|overlay| overlay_slot(overlay, row.position as usize));
        let mut keys = row.keys.clone();
        if let Some([equaliser, center]) = &self.preparation {
            for (k, (e, c)) in keys.iter_mut().zip(equaliser.iter().zip(center)) {
                *k = (*k - c) / e;
            }
        }
        for side in stored {
            let numbers = [&keys, &row.values][*side as usize];
            let (rows, overlay) = &mut self.sides[*side as usize];
            for (head, numbers) in numbers.chunks_exact(dim).enumerate() {
                rows.encode((owner * heads + head, slot), numbers);
                if let (Some(overlay), Some(slot)) = (overlay.as_mut(), kept) {
                    overlay.encode((sequence * heads + head, slot), numbers);
                }
            }
        }
    }

    /// What a stored token of a sequence decodes to, from the codes or as the overlay has it.
    pub(super) fn load(&self, sequence: usize, position: i64, overlaid: bool) -> Row {
        let dim = self.options.head_dim as usize;
        let heads = self.options.kv_heads as usize;
        let (owner, slot) = self.place(sequence, position as usize);
        let overlay = self.options.overlay.filter(|_| overlaid);
        let kept = overlay.and_then(|overlay| overlay_slot(overlay, position as usize));
        let [mut keys, values] = [0, 1].map(|side| {
            let (rows, overlay) = &self.sides[side];
            let mut out = vec![0.0; heads * dim];
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                match (overlay, kept) {
                    (Some(overlay), Some(slot)) => {
                        overlay.decode((sequence * heads + head, slot), true, out);
                    }
                    _ => rows.decode((owner * heads + head, slot), true, out),
                }
            }
            out
        });
        self.unprepare(&mut keys);
        Row {
            position,
            keys,
            values,
        }
    }

    /// What the codes of a token's keys or values are in a space.
    pub(super) fn decode(
        &self,
        (side, space): (CacheSide, VectorSpace),
        sequence: usize,
        position: i32,
    ) -> Vec<f32> {
        let dim = self.options.head_dim as usize;
        let heads = self.options.kv_heads as usize;
        let (owner, slot) = self.place(sequence, position as usize);
        let mut out = vec![0.0; heads * dim];
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let at = (owner * heads + head, slot);
            self.sides[side as usize]
                .0
                .decode(at, space != VectorSpace::Stored, out);
        }
        if side == CacheSide::Keys && space == VectorSpace::Model {
            self.unprepare(&mut out);
        }
        out
    }

    /// Brings keys of all heads back to what they were before they were prepared.
    fn unprepare(&self, keys: &mut [f32]) {
        if let Some([equaliser, center]) = &self.preparation {
            for (k, (e, c)) in keys.iter_mut().zip(equaliser.iter().zip(center)) {
                *k = *k * e + c;
            }
        }
    }

    /// The largest norm that a query vector has as it meets the stored keys, times the largest deviation of a key's
    /// numbers as they are stored.
    pub(super) fn score_deviation(&self, (queries, heads): (&[f32], usize), rows: &[Row]) -> f64 {
        let dim = self.options.head_dim as usize;
        let width = self.options.kv_heads as usize * dim;
        let group = heads * dim / width;
        let (ones, zeros) = (vec![1.0; width], vec![0.0; width]);
        let (equaliser, center) = match &self.preparation {
            Some([equaliser, center]) => (equaliser, center),
            None => (&ones, &zeros),
        };
        let largest = |squares: &mut dyn Iterator<Item = f64>| squares.fold(0.0, f64::max).sqrt();
        let query = |(index, query): (usize, &[f32])| -> f64 {
            let equaliser = &equaliser[index % heads / group * dim..][..dim];
            let numbers = query.iter().zip(equaliser);
            numbers.map(|(q, e)| f64::from(q * e).powi(2)).sum()
        };
        let key = |row: &Row| -> f64 {
            let numbers = row.keys.iter().zip(equaliser.iter().zip(center));
            let squares: Vec<f64> = numbers
                .map(|(k, (e, c))| f64::from((k - c) / e).powi(2))
                .collect();
            let of_heads = squares.chunks_exact(dim).map(|head| head.iter().sum());
            of_heads.fold(0.0, f64::max) / dim as f64
        };
        largest(&mut queries.chunks_exact(dim).enumerate().map(query))
            * largest(&mut rows.iter().map(key))
    }

    /// What is stored: codes and scales (where the codec has any) of keys, of their overlay, of values and of theirs; then
    /// the page table of a cache of pages.
    pub(super) fn tensors(&self) -> Vec<HostTensor> {
        let of_all = self.options.sequences * self.options.kv_heads;
        let heads = match self.options.kind {
            CacheKind::Global | CacheKind::Ring => of_all,
            CacheKind::Paged { .. } => self.options.kv_heads,
        };
        let mut tensors = Vec::new();
        for (rows, overlay) in &self.sides {
            tensors.extend(rows.tensors(heads));
            tensors.extend(overlay.iter().flat_map(|overlay| overlay.tensors(of_all)));
        }
        if let CacheKind::Paged { .. } = self.options.kind {
            let shape = [self.options.sequences, self.options.capacity / PAGE];
            let entries = self.pages.table.iter().flat_map(|page| page.to_le_bytes());
            tensors.push(HostTensor::stored(DType::I32, &shape, entries.collect()));
        }
        tensors
    }

    /// What keys are prepared with; [`bind`](Self::bind) finds it behind [`tensors`](Self::tensors).
    pub(super) fn preparation(&self) -> Vec<HostTensor> {
        let shape = [self.options.kv_heads, self.options.head_dim];
        let numbers = self.preparation.iter().flatten();
        numbers.map(|x| HostTensor::f32(&shape, x)).collect()
    }

    /// The cache over device tensors that were made from [`tensors`](Self::tensors) and
    /// [`preparation`](Self::preparation).
    pub(super) fn bind(options: KvCacheOptions, tensors: &[Tensor]) -> Result<KvCache> {
        let mut tensors = tensors.iter().cloned();
        let dim = options.head_dim as usize;
        let mut rows = |codec| -> Result<_> {
            let codec = RowCodec::new(codec, dim)?;
            let mut next = || {
                tensors.next().ok_or_else(|| {
                    walsh::Error::argument("HostCache", "tensors", "of both sides", "too few")
                })
            };
            Ok(KvTensors {
                codes: next()?,
                scales: codec.scale_dtype().map(|_| next()).transpose()?,
            })
        };
        let mut side = |codec| -> Result<_> {
            let kept = options.overlay.and_then(|o| o.tokens.side(codec, dim));
            Ok(KvSideTensors {
                rows: rows(codec)?,
                overlay: kept.map(&mut rows).transpose()?,
            })
        };
        let sides = [side(options.codecs.key)?, side(options.codecs.value)?];
        let mut cache = KvCache::from_tensors(options, sides)?;
        if let CacheKind::Paged { .. } = options.kind
            && let Some(table) = tensors.next()
        {
            cache = cache.with_table(table)?;
        }
        cache.with_preparation(KeyPreparation {
            equaliser: tensors.next(),
            center: tensors.next(),
        })
    }
}

/// Keys and values.
pub(super) const BOTH: &[CacheSide] = &[CacheSide::Keys, CacheSide::Values];

/// Where an overlay holds a position, while it does.
fn overlay_slot(overlay: OverlayOptions, position: usize) -> Option<usize> {
    let (first, ring) = (overlay.tokens.first as usize, overlay.ring() as usize);
    match position {
        position if position < first => Some(position),
        position if ring > 0 => Some(first + position % ring),
        _ => None,
    }
}
