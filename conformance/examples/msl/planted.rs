//! Texts with a mistake in them that Apple's compiler does not take: each must be found.

use crate::entries::rewritten;
use crate::{Compiler, Found};

/// A mistake, and where it stands in a kernel that is otherwise right.
enum Planted {
    /// In the kernel's body.
    Body(&'static str),
    /// In front of the kernel.
    Before(&'static str),
    /// As the parameters of the entry point behind its first.
    Parameters(&'static str),
    /// In front of the entry point's name.
    Head(&'static str),
}

use Planted::{Before, Body, Head, Parameters};

/// Rules of address spaces, types, functions, kernels and entry points.
const MISTAKES: &[Planted] = &[
    // Address spaces.
    Body("thread float *p = output;"),
    Body("thread float &r = output[0];"),
    Body("device float *p = input;"),
    Body("threadgroup float *p = (threadgroup float *)output;"),
    Body("device float *p = shared.sums;"),
    Body("args.count = 1u;"),
    Body(
        "output[0] = at.x > 0u ? pairs[at.x].a : 0.0f; Pair p = at.x > 0u ? pairs[at.x] : Pair();",
    ),
    Before("float table[2] = {1.0f, 2.0f};"),
    Before("inline float keeps() { threadgroup float x[4]; return x[0]; }"),
    Before("inline float counts() { static float x; return x += 1.0f; }"),
    Before(
        "inline float takes(device float *x) { return *x; } inline float gives(thread float *x) { return takes(x); }",
    ),
    // Types.
    Body("double x = output[0];"),
    Body("float4 x = float3(1.0f);"),
    Body("uint x = as_type<uint>(ushort(1));"),
    Body("float x[at.x + 1u]; output[0] = x[0];"),
    Body("output[0] = pairs;"),
    // Functions.
    Body("output[0] = float(min(at.x, 3));"),
    Body("output[0] = max(1.0f, at.x);"),
    Body("output[0] = exp(at.x);"),
    Body("output[0] = erf(1.0f);"),
    Body("output[0] = abs(at.x);"),
    Body("output[0] = fma(1.0f, 2.0f);"),
    Body("output[0] = float(simd_shuffle(ulong(1), 0));"),
    Body("output[0] = simd_sum(pairs[0]).a;"),
    Body("threadgroup_barrier(1);"),
    Body("atomic_fetch_min_explicit((device uint *)output, 1u, memory_order_relaxed);"),
    Body("atomic_fetch_min_explicit((device atomic_uint *)output, 1u, memory_order_seq_cst);"),
    Body("printf(\"x\");"),
    // What a kernel has none of.
    Body("float *x = new float[4];"),
    Body("throw 1;"),
    Body("void (*f)(float) = 0;"),
    Body("UNROLL output[0] = 1.0f;"),
    Before("struct Shape { virtual float area(); };"),
    Before("inline float many(int n, ...) { return 1.0f; }"),
    Before("#include <cmath>"),
    // Threadgroup memory.
    Before(
        "struct Large { float x[9000]; }; static_assert(sizeof(Large) <= 32768, \"as for every Shared\");",
    ),
    // Entry points.
    Head("float"),
    Parameters("device float *output [[buffer(1)]]"),
    Parameters("device float *output [[buffer(31)]]"),
    Parameters("device float *output"),
    Parameters("thread float *output [[buffer(2)]]"),
    Parameters("device float *output [[texture(2)]]"),
    Parameters("device float *output [[buffer(2)]], float3 more [[threadgroup_position_in_grid]]"),
];

/// A text that is right but for what is planted.
fn text(planted: Option<&Planted>) -> String {
    let (mut body, mut before, mut head) = ("", "", "void");
    let mut parameters = "device float *output [[buffer(2)]]";
    match planted {
        Some(Body(text)) => body = text,
        Some(Before(text)) => before = text,
        Some(Parameters(text)) => parameters = text,
        Some(Head(text)) => head = text,
        None => {}
    }
    format!(
        "{}\nstruct Args {{ uint count; }};\nstruct Pair {{ float a, b; }};\nstruct Shared {{ float sums[64]; }};\n{before}\n\
         inline void planted(constant Args &args, device const float *input, device const Pair *pairs, device float *output,\n\
         threadgroup Shared &shared, Position at) {{\n    shared.sums[at.index] = input[at.index];\n    threadgroup_barrier();\n\
         \x20   {body}\n    output[at.index] = shared.sums[at.index ^ 1];\n}}\n\
         [[kernel, max_total_threads_per_threadgroup(64)]] {head} walsh_planted(constant Args &args [[buffer(0)]], \
         device const float *input [[buffer(1)]], {parameters}, uint3 group [[threadgroup_position_in_grid]], \
         uint index [[thread_index_in_threadgroup]]) {{\n    threadgroup Shared shared;\n\
         \x20   Position at = {{group.x, group.y, group.z, index, index % 32, index / 32}};\n\
         \x20   planted(args, input, (device const Pair *)input, output, shared, at);\n}}\n",
        walsh_kernels::Variant::header(walsh_kernels::Platform::Metal)
    )
}

/// How many mistakes are found, and those that are not. The text without one must be right.
pub(crate) fn found(compiler: &Compiler) -> Result<(usize, Vec<String>), String> {
    let wrong = |planted: Option<&Planted>| -> Result<Option<String>, String> {
        match rewritten(&text(planted)) {
            Ok(text) => compiler.compile(&text).map(|Found { log, .. }| log),
            Err(what) => Ok(Some(what)),
        }
    };
    if let Some(log) = wrong(None)? {
        return Err(format!(
            "the text that mistakes are planted in is wrong: {log}"
        ));
    }
    let mut missed = Vec::new();
    for planted in MISTAKES {
        if wrong(Some(planted))?.is_none() {
            let (Body(text) | Before(text) | Parameters(text) | Head(text)) = planted;
            missed.push(format!("nothing is found in `{text}`"));
        }
    }
    Ok((MISTAKES.len(), missed))
}
