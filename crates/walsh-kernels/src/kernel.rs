//! The kernel table's form, and the text that compilers are given.

use std::fmt::{self, Write};

use crate::args::ArgsLayout;

/// What compiles a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// NVRTC.
    Cuda,
    /// Metal's run-time compiler.
    Metal,
    /// The host's C++ compiler, for the simulator.
    Host,
}

/// What a kernel does with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Touch {
    /// It reads it.
    Reads,
    /// It may read and write it.
    Writes,
}

/// A buffer of a kernel, as its text declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// The name.
    pub name: &'static str,
    /// The element type in the dialect.
    pub kind: &'static str,
    /// What is done with it.
    pub touch: Touch,
}

impl Parameter {
    /// Its declaration in the dialect.
    pub(crate) fn pointer(&self) -> String {
        let constness = match self.touch {
            Touch::Reads => "const ",
            Touch::Writes => "",
        };
        format!("device {constness}{} *{}", self.kind, self.name)
    }
}

/// A buffer that a kernel reads.
pub(crate) const fn reads(name: &'static str, kind: &'static str) -> Parameter {
    Parameter {
        name,
        kind,
        touch: Touch::Reads,
    }
}

/// A buffer that a kernel writes, or reads and writes.
pub(crate) const fn writes(name: &'static str, kind: &'static str) -> Parameter {
    Parameter {
        name,
        kind,
        touch: Touch::Writes,
    }
}

/// A text that belongs to one platform alone and replaces a kernel's body there.
#[derive(Debug, Clone, Copy)]
pub struct Native {
    /// The platform.
    pub platform: Platform,
    /// The body: a function of the kernel's name and parameters.
    pub text: &'static str,
}

/// An entry of the kernel table.
///
/// The text, or one that it builds on, defines `struct Shared` when the kernel has threadgroup memory, and a function of
/// the kernel's name:
/// `inline void NAME(constant ARGS &args, device TYPE *buffer…, threadgroup Shared &shared, Position at)`.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The name of the function.
    pub name: &'static str,
    /// Texts that it builds on, in order.
    pub includes: &'static [&'static str],
    /// Tables that it reads, generated from `walsh-formats`.
    pub tables: fn(&Variant) -> String,
    /// The kernel's text; none when it is for the platforms of `native` alone.
    pub text: &'static str,
    /// Bodies for one platform, which replace `text` there.
    pub native: &'static [Native],
    /// The names of the constants that a [`Variant`] binds. `THREADS`, the threads of a group, is always among them.
    pub constants: &'static [&'static str],
    /// The argument struct.
    pub args: ArgsLayout,
    /// The buffers, at most nine where the kernel is for every platform.
    pub buffers: &'static [Parameter],
    /// Whether the text defines `struct Shared`.
    pub shared: bool,
}

impl Kernel {
    /// The text that a platform's compiler is given.
    #[must_use]
    pub fn text_on(&self, platform: Platform) -> &'static str {
        let native = self
            .native
            .iter()
            .find(|native| native.platform == platform);
        native.map_or(self.text, |native| native.text)
    }
}

/// No tables.
pub(crate) fn no_tables(_: &Variant) -> String {
    String::new()
}

/// A kernel with its constants bound: what is compiled, and what compiled code is kept under.
#[derive(Clone)]
pub struct Variant {
    kernel: &'static Kernel,
    values: Vec<i64>,
}

impl Variant {
    /// Binds the kernel's constants, in the order of its table entry.
    ///
    /// # Panics
    /// When the names are not the kernel's: a mistake in the code that lowers an op.
    pub fn new(kernel: &'static Kernel, constants: &[(&'static str, i64)]) -> Self {
        assert_eq!(
            constants.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            kernel.constants,
            "the constants of {}",
            kernel.name
        );
        let values = constants.iter().map(|(_, value)| *value).collect();
        Self { kernel, values }
    }

    /// The table entry.
    #[must_use]
    pub fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    /// A constant's value.
    ///
    /// # Panics
    /// When the kernel has no such constant: a mistake in this crate.
    #[must_use]
    pub fn constant(&self, name: &str) -> i64 {
        match self
            .kernel
            .constants
            .iter()
            .position(|constant| *constant == name)
        {
            Some(at) => self.values[at],
            None => panic!("{} has no constant {name}", self.kernel.name),
        }
    }

    /// Threads per group.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.constant("THREADS") as u32
    }

    /// Threadgroup memory that is asked for at the launch, in bytes: the constant `DYNAMIC` of a kernel that has one.
    #[must_use]
    pub fn dynamic_bytes(&self) -> u32 {
        match self.kernel.constants.contains(&"DYNAMIC") {
            true => self.constant("DYNAMIC") as u32,
            false => 0,
        }
    }

    /// The name of the compiled entry point.
    #[must_use]
    pub fn symbol(&self) -> String {
        let mut symbol = format!("walsh_{}", self.kernel.name);
        for value in &self.values {
            let _ = match value {
                0.. => write!(symbol, "_{value}"),
                _ => write!(symbol, "_m{}", value.unsigned_abs()),
            };
        }
        symbol
    }

    /// The platform's header: what gives the dialect's words their meaning. It stands once before any number of
    /// [`body`](Self::body) texts.
    #[must_use]
    pub fn header(platform: Platform) -> String {
        let dialect = match platform {
            Platform::Cuda => include_str!("../kernels/dialect/cuda.h"),
            Platform::Metal => concat!(
                include_str!("../kernels/dialect/metal.h"),
                include_str!("../kernels/dialect/plain.h")
            ),
            Platform::Host => concat!(
                include_str!("../kernels/dialect/host.h"),
                include_str!("../kernels/dialect/plain.h")
            ),
        };
        format!(
            "{dialect}\n{}",
            include_str!("../kernels/dialect/position.h")
        )
    }

    /// The namespace of its text.
    pub(crate) fn space(&self) -> String {
        format!("{}_text", self.symbol())
    }

    /// Everything that is the variant's own, in a namespace of its own, and its entry point.
    #[must_use]
    pub fn body(&self, platform: Platform) -> String {
        self.text(platform) + &self.entry(platform, self.kernel.name, &self.symbol())
    }

    /// Everything that is the variant's own but its entry point.
    pub(crate) fn text(&self, platform: Platform) -> String {
        let Kernel { includes, args, .. } = self.kernel;
        let symbol = self.symbol();
        let mut out = format!("namespace {symbol}_text {{\nenum : int {{\n");
        for (name, value) in self.kernel.constants.iter().zip(&self.values) {
            let _ = writeln!(out, "    {name} = {value},");
        }
        out.push_str("};\n");
        out.push_str(&args.declaration());
        // The compilers of the others have no offsetof that an assertion takes.
        if platform == Platform::Host {
            out.push_str(&args.offsets());
        }
        out.push_str(&(self.kernel.tables)(self));
        for include in *includes {
            out.push_str(include);
        }
        out.push_str(self.kernel.text_on(platform));
        let _ = writeln!(out, "\n}} // namespace {symbol}_text\n");
        out
    }

    /// The whole text for a platform's compiler.
    #[must_use]
    pub fn source(&self, platform: Platform) -> String {
        Self::header(platform) + &self.body(platform)
    }

    fn entry(&self, platform: Platform, name: &str, symbol: &str) -> String {
        let args = self.kernel.args.name;
        let space = format!("{symbol}_text");
        let shared = self.kernel.shared;
        let names: String = self
            .kernel
            .buffers
            .iter()
            .map(|b| format!("{}, ", b.name))
            .collect();
        let buffers = self.kernel.buffers;
        let dynamic = self.dynamic_bytes() > 0;
        let passed = match (shared, dynamic) {
            (true, _) => "shared, ",
            (false, true) => "(uchar *)walsh_memory, ",
            (false, false) => "",
        };
        match platform {
            Platform::Cuda => {
                let has = |name| self.kernel.constants.contains(&name);
                let bounds = if has("RESIDENT") { ", RESIDENT" } else { "" };
                let parameters: String = buffers
                    .iter()
                    .map(|b| format!(", {}", b.pointer()))
                    .collect();
                let declared = match (shared, dynamic) {
                    (true, _) => format!("    __shared__ {space}::Shared shared;\n"),
                    (false, true) => {
                        "    extern __shared__ __align__(1024) uint4 walsh_memory[];\n".into()
                    }
                    (false, false) => String::new(),
                };
                // A text that has something to do before it waits begins itself.
                let begins = self.kernel.text_on(platform).contains("walsh_begin()");
                let begin = if begins { "" } else { "    walsh_begin();\n" };
                let bounds = bounds.replace("RESIDENT", &format!("{space}::RESIDENT"));
                // Groups that see each other's memory.
                let cluster = match has("CLUSTER") && self.constant("CLUSTER") > 1 {
                    true => format!(" __cluster_dims__({space}::CLUSTER, 1, 1)"),
                    false => String::new(),
                };
                format!(
                    "extern \"C\" __global__ void __launch_bounds__({space}::THREADS{bounds}){cluster} {symbol}(const __grid_constant__ {space}::{args} args{parameters}) {{\n\
                     {declared}{begin}\
                     \x20   Position at = {{blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.x % 32, threadIdx.x / 32}};\n\
                     \x20   {space}::{name}(args, {names}{passed}at);\n}}\n"
                )
            }
            Platform::Metal => {
                let parameters: String = buffers
                    .iter()
                    .enumerate()
                    .map(|(at, b)| format!(", {} [[buffer({})]]", b.pointer(), at + 1))
                    .collect();
                let threads = self.threads();
                let declared = if shared {
                    format!("    threadgroup {space}::Shared shared;\n")
                } else {
                    String::new()
                };
                format!(
                    "[[kernel, max_total_threads_per_threadgroup({threads})]] void {symbol}(constant {space}::{args} &args [[buffer(0)]]{parameters}, uint3 group [[threadgroup_position_in_grid]], uint index [[thread_index_in_threadgroup]]) {{\n\
                     {declared}    Position at = {{group.x, group.y, group.z, index, index % 32, index / 32}};\n\
                     \x20   {space}::{name}(args, {names}{passed}at);\n}}\n"
                )
            }
            Platform::Host => {
                let casts: String = buffers
                    .iter()
                    .enumerate()
                    .map(|(at, b)| {
                        let constness = if b.touch == Touch::Reads {
                            "const "
                        } else {
                            ""
                        };
                        format!("({constness}{} *)buffers[{at}], ", b.kind)
                    })
                    .collect();
                let given = if shared {
                    format!("*({space}::Shared *)shared, ")
                } else {
                    String::new()
                };
                let bytes = if shared {
                    format!("sizeof({space}::Shared)")
                } else {
                    "0".into()
                };
                format!(
                    "extern \"C\" void {symbol}(const void *args, void *const *buffers, void *shared, Position at) {{\n\
                     \x20   (void)buffers; (void)shared;\n\
                     \x20   {space}::{name}(*(const {space}::{args} *)args, {casts}{given}at);\n}}\n\
                     extern \"C\" const unsigned long {symbol}_shared_bytes = {bytes};\n"
                )
            }
        }
    }
}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        self.kernel.name == other.kernel.name && self.values == other.values
    }
}

impl Eq for Variant {}

impl std::hash::Hash for Variant {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.kernel.name.hash(state);
        self.values.hash(state);
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kernel.name)?;
        for (name, value) in self.kernel.constants.iter().zip(&self.values) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
