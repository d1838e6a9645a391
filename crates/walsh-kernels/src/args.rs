//! Argument structs, laid out by hand and shared with the kernels' text.

use std::fmt::Write;

/// A field of an argument struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name, the same in both languages.
    pub name: &'static str,
    /// Its type in the dialect.
    pub kind: &'static str,
    /// Its first byte.
    pub offset: usize,
    /// How many there are of it, for an array.
    pub count: usize,
}

/// How an argument struct lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgsLayout {
    /// The struct's name, the same in both languages.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: usize,
    /// Its fields in order, without gaps.
    pub fields: &'static [Field],
}

impl ArgsLayout {
    /// The struct in the dialect, with assertions of its size and offsets.
    pub(crate) fn declaration(&self) -> String {
        let mut text = format!("struct {} {{\n", self.name);
        for field in self.fields {
            let (kind, name, count) = (field.kind, field.name, field.count);
            let array = if count == 1 {
                String::new()
            } else {
                format!("[{count}]")
            };
            let _ = writeln!(text, "    {kind} {name}{array};");
        }
        let _ = writeln!(
            text,
            "}};\nstatic_assert(sizeof({}) == {}, \"as the host lays it out\");",
            self.name, self.bytes
        );
        text
    }

    /// Assertions of the fields' offsets, for the host's compiler: others have no `offsetof` without a header. There the
    /// size settles it, since `Pod` leaves no gap between fields of the same types.
    pub(crate) fn offsets(&self) -> String {
        let mut text = String::new();
        for field in self.fields {
            let _ = writeln!(
                text,
                "static_assert(__builtin_offsetof({}, {}) == {}, \"as the host lays it out\");",
                self.name, field.name, field.offset
            );
        }
        text
    }
}

/// A type that arguments may have.
pub(crate) trait ArgType {
    const KIND: &'static str;
    const COUNT: usize = 1;
}

impl ArgType for u32 {
    const KIND: &'static str = "uint";
}
impl ArgType for i32 {
    const KIND: &'static str = "int";
}
impl ArgType for u64 {
    const KIND: &'static str = "ulong";
}
impl ArgType for f32 {
    const KIND: &'static str = "float";
}
impl<T: ArgType, const N: usize> ArgType for [T; N] {
    const KIND: &'static str = T::KIND;
    const COUNT: usize = N;
}

/// An argument struct: padding is written out, or deriving `Pod` fails.
pub(crate) trait Args: bytemuck::Pod {
    const LAYOUT: ArgsLayout;
}

/// Declares argument structs and their layouts.
macro_rules! args {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: $kind,)* }

        impl $crate::args::Args for $name {
            const LAYOUT: $crate::args::ArgsLayout = $crate::args::ArgsLayout {
                name: stringify!($name),
                bytes: size_of::<$name>(),
                fields: &[$($crate::args::Field {
                    name: stringify!($field),
                    kind: <$kind as $crate::args::ArgType>::KIND,
                    offset: std::mem::offset_of!($name, $field),
                    count: <$kind as $crate::args::ArgType>::COUNT,
                },)*],
            };
        }
    )*};
}
pub(crate) use args;
