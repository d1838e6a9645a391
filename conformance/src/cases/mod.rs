//! The case tables, one per op.

mod attention;
mod elementwise;
mod embedding;
mod experts;
mod host_cache;
mod kv;
mod kv_decode;
mod matmul;
mod norm;
mod recurrent;
mod rope;
mod rotate;
mod select;
mod shared;

pub use self::shared::Table;

/// The tables of all families.
const FAMILIES: &[&[Table]] = &[
    elementwise::TABLES,
    norm::TABLES,
    rope::TABLES,
    embedding::TABLES,
    select::TABLES,
    matmul::TABLES,
    experts::TABLES,
    recurrent::TABLES,
    kv::TABLES,
    rotate::TABLES,
    kv_decode::TABLES,
    attention::TABLES,
];

/// The table of every op.
pub fn tables() -> impl Iterator<Item = &'static Table> {
    FAMILIES.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use walsh::ops::Op;

    use super::tables;

    #[test]
    fn every_op_has_one_table() {
        for name in Op::NAMES {
            let own = tables().filter(|table| table.op == *name);
            assert_eq!(own.count(), 1, "{name}");
        }
        assert_eq!(tables().count(), Op::NAMES.len());
    }
}
