#!/usr/bin/env bash
# Walsh beside llama.cpp on a machine with an NVIDIA GPU and the CUDA toolkit: the same synthetic model, in turns.
# `tools/h200/llama_bench.sh [MODEL] [DEPTHS]`, llama3-8b:q4_k_m and 0,4096 by default.
#
# Carried there: .carry/walsh (tools/h200/build.sh), and .carry/llama.cpp.tar.gz (tools/h200/llama_pack.sh), which is
# built first, in a few minutes; or the parts .carry/llama-bench.gz.*, which an earlier run has left in $OUT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

model="${1:-llama3-8b:q4_k_m}"
depths="${2:-0,4096}"
out="${OUT:-target/h200}"
device="${DEVICE:-cuda:0}"
work="${WORK:-/tmp/llama}"
mkdir -p "$out" "$work"

cuda=(-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90-real -DGGML_CUDA_GRAPHS=ON -DGGML_CUDA_NCCL=OFF)
layers=99
if [[ "$device" == cpu* ]]; then
    cuda=()
    layers=0
fi

bench="$work/llama-bench"
if compgen -G '.carry/llama-bench.gz.*' >/dev/null; then
    cat .carry/llama-bench.gz.* | gzip -dc >"$bench"
    chmod +x "$bench"
elif [[ ! -x "$bench" ]]; then
    start=$SECONDS
    mkdir -p "$work/source"
    tar -xzf .carry/llama.cpp.tar.gz -C "$work/source"
    generator=()
    if command -v ninja >/dev/null; then generator=(-G Ninja); fi
    {
        cmake "${generator[@]}" -S "$work/source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF \
            -DLLAMA_OPENSSL=OFF "${cuda[@]}"
        cmake --build "$work/build" --target llama-bench -j "$(nproc)"
    } >"$out/llama_build.log" 2>&1 || {
        tail -n 30 "$out/llama_build.log"
        exit 1
    }
    cp "$work/build/bin/llama-bench" "$bench"
    strip "$bench"
    gzip -9c "$bench" | split -b 15M - "$out/llama-bench.gz."
    echo "llama.cpp built in $((SECONDS - start)) s"
fi

python3 tools/h200/synthetic_gguf.py "$model" "$work/model.gguf"
ls -l "$work/model.gguf"

peer() {
    "$bench" -m "$work/model.gguf" -ngl "$layers" -p 512 -n 128 -d "$depths" -fa 0,1 -o json \
        >"$out/llama_bench.$1.json" 2>"$out/llama_bench.$1.log"
}
walsh() {
    .carry/walsh bench --synthetic "$model" --device "$device" --depth "$depths" --json \
        >"$out/walsh_bench.$1.json" 2>"$out/walsh_bench.$1.log"
}
# In turns, so that a change of clocks meets both.
for round in 1 2; do
    if [[ -x .carry/walsh ]]; then walsh "$round"; fi
    peer "$round"
done

python3 - "$out" <<'PY'
import glob, json, sys

rows = []
for path in sorted(glob.glob(f"{sys.argv[1]}/llama_bench.*.json")):
    for run in json.load(open(path)):
        kind = "prefill" if run["n_prompt"] else "decode"
        engine = f"llama.cpp, flash attention {'on' if run['flash_attn'] else 'off'}"
        rows.append((kind, run["n_depth"], engine, run["avg_ts"], run["stddev_ts"]))
for path in sorted(glob.glob(f"{sys.argv[1]}/walsh_bench.*.json")):
    for run in json.load(open(path))["results"]:
        spread = (run["max"] - run["min"]) / 2
        rows.append((run["test"], run["depth"], "walsh", run["tokens_per_second"], spread))
for kind, depth, engine, rate, spread in sorted(rows):
    print(f"{kind:8} {depth:6} {engine:30} {rate:10.1f} ± {spread:.1f} tokens/s")
PY
