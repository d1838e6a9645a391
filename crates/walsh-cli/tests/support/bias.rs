//! A model whose keys have a bias, made from one whose keys have none.

use walsh_runtime::Model;

/// `gguf` with a tensor `blk.N.attn_k.bias` of these numbers for each of `layers` layers: the tensor table grows at its
/// end, and so does the data.
pub(crate) fn with_key_bias(gguf: &[u8], model: &Model, bias: &[f32]) -> Vec<u8> {
    const ALIGNMENT: usize = 32;
    let entry = |name: &str, dims: &[u64], dtype: u32, offset: u64| {
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend((dims.len() as u32).to_le_bytes());
        bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        bytes.extend(dtype.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    };
    let (table_end, data_start, tensors) = model
        .with_metadata(|parsed| {
            let tensors = parsed.tensors();
            let first = &tensors[0];
            let data_start = tensors.iter().map(|t| t.offset).min().expect("tensors") as usize;
            let mut named = (first.name.len() as u64).to_le_bytes().to_vec();
            named.extend(first.name.as_bytes());
            let table = gguf[..data_start]
                .windows(named.len())
                .rposition(|window| window == named)
                .expect("the first tensor's entry");
            let bytes: usize = tensors
                .iter()
                .map(|t| entry(t.name, &t.shape, 0, 0).len())
                .sum();
            (table + bytes, data_start, tensors.len())
        })
        .expect("the metadata");
    let layers = model.config().layers.len();
    let data = gguf[data_start..].to_vec();
    let first_bias = data.len().next_multiple_of(ALIGNMENT);
    let stride = (4 * bias.len()).next_multiple_of(ALIGNMENT);
    let mut out = gguf[..table_end].to_vec();
    out[8..16].copy_from_slice(&((tensors + layers) as u64).to_le_bytes());
    for layer in 0..layers {
        let offset = (first_bias + layer * stride) as u64;
        let name = format!("blk.{layer}.attn_k.bias");
        out.extend(entry(&name, &[bias.len() as u64], 0, offset));
    }
    let padded = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    padded(&mut out);
    out.extend(data);
    padded(&mut out);
    for _ in 0..layers {
        out.extend(bias.iter().flat_map(|x| x.to_le_bytes()));
        padded(&mut out);
    }
    out
}
