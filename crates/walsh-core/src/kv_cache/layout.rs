//! The shapes of a cache's tensors.

use walsh_formats::DType;
use walsh_formats::kv::{KvCodec, RowCodec};

use super::{KvCacheOptions, KvRows, KvSide, KvSideTensors, KvTensors};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The shapes of some rows' tensors.
pub(super) struct Layout {
    codec: RowCodec,
    pub(super) codes: [u64; 3],
    pub(super) scales: Option<(DType, [u64; 3])>,
}

impl Layout {
    fn new(codec: RowCodec, [heads, slots]: [u64; 2]) -> Self {
        let shape = |last: usize| [heads, slots, last as u64];
        let scales = codec.scale_dtype();
        Self {
            codes: shape(codec.code_bytes()),
            scales: scales.map(|dtype| (dtype, shape(codec.groups()))),
            codec,
        }
    }

    /// Joins the codec with tensors of its shapes.
    fn rows(self, tensors: KvTensors) -> Result<KvRows> {
        let KvTensors { codes, scales } = tensors;
        fit("codes", Some((DType::U8, self.codes)), Some(&codes))?;
        fit("scales", self.scales, scales.as_ref())?;
        if !codes.offset().is_multiple_of(16) {
            return Err(Error::argument(
                "KvCache",
                "codes",
                "at a multiple of 16 bytes",
                codes.offset(),
            ));
        }
        Ok(KvRows {
            codec: self.codec,
            codes,
            scales,
        })
    }
}

/// The shapes of one side's tensors.
pub(super) struct SideLayout {
    pub(super) rows: Layout,
    pub(super) overlay: Option<Layout>,
}

impl SideLayout {
    /// `of_side` makes of a codec the one of keys or of values.
    pub(super) fn new(
        codec: KvCodec,
        of_side: fn(RowCodec) -> RowCodec,
        options: &KvCacheOptions,
    ) -> Result<Self> {
        let layout = |codec, rows| -> Result<_> {
            let codec = RowCodec::new(codec, options.head_dim as usize)?;
            Ok(Layout::new(of_side(codec), rows))
        };
        let overlay = options.overlay.and_then(|overlay| {
            let kept = overlay.tokens.side(codec, options.head_dim as usize)?;
            let rows = [options.sequences * options.kv_heads, overlay.slots()];
            Some(layout(kept, rows))
        });
        Ok(Self {
            rows: layout(codec, options.rows())?,
            overlay: overlay.transpose()?,
        })
    }

    pub(super) fn side(self, tensors: KvSideTensors) -> Result<KvSide> {
        let overlay = match (self.overlay, tensors.overlay) {
            (None, None) => None,
            (Some(layout), Some(tensors)) => Some(layout.rows(tensors)?),
            (Some(layout), None) => {
                fit("overlay", Some((DType::U8, layout.codes)), None)?;
                None
            }
            (None, Some(tensors)) => {
                fit("overlay", None, Some(&tensors.codes))?;
                None
            }
        };
        Ok(KvSide {
            rows: self.rows.rows(tensors.rows)?,
            overlay,
        })
    }
}

fn fit(
    argument: &'static str,
    expected: Option<(DType, [u64; 3])>,
    given: Option<&Tensor>,
) -> Result<()> {
    match (&expected, given) {
        (None, None) => return Ok(()),
        (Some((dtype, shape)), Some(tensor))
            if tensor.dtype() == *dtype && tensor.shape() == shape =>
        {
            return Ok(());
        }
        _ => {}
    }
    let expected = expected.map_or("absent".into(), |(dtype, shape)| {
        format!("{dtype}{shape:?}")
    });
    let given = given.map_or("absent".into(), Tensor::to_string);
    Err(Error::argument("KvCache", argument, expected, given))
}
