#!/usr/bin/env bash
# Walsh beside llama.cpp on a machine with an NVIDIA GPU and the CUDA toolkit: the same synthetic model, in turns.
# `tools/h200/llama_bench.sh [MODEL] [DEPTHS] [TEXTS]`, llama3-8b:q4_k_m, 0,4096,32768 and 8,32,64 by default: decode of 128
# and prefill of 512 behind each depth with f16 caches and those of 4 bits, and so many texts of 512 tokens at once, the most last.
#
# Carried there: .carry/walsh (tools/h200/build.sh), and .carry/llama.cpp.tar.gz (tools/h200/llama_pack.sh), which is
# built first, in a few minutes; or the parts .carry/llama.gz.*, which an earlier run has left in $OUT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

model="${1:-llama3-8b:q4_k_m}"
depths="${2:-0,4096,32768}"
texts="${3:-8,32,64}"
out="${OUT:-target/h200}"
device="${DEVICE:-cuda:0}"
rounds="${ROUNDS:-2}"
work="${WORK:-/tmp/llama}"
mkdir -p "$out" "$work"

cuda=(-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90-real -DGGML_CUDA_GRAPHS=ON -DGGML_CUDA_NCCL=OFF)
layers=99
if [[ "$device" == cpu* ]]; then
    cuda=()
    layers=0
fi

tools=(llama-bench llama-batched-bench)
if compgen -G '.carry/llama.gz.*' >/dev/null; then
    cat .carry/llama.gz.* | tar -xz -C "$work"
elif [[ ! -x "$work/llama-batched-bench" ]]; then
    start=$SECONDS
    mkdir -p "$work/source"
    tar -xzf .carry/llama.cpp.tar.gz -C "$work/source"
    generator=()
    if command -v ninja >/dev/null; then generator=(-G Ninja); fi
    {
        cmake "${generator[@]}" -S "$work/source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF \
            -DLLAMA_OPENSSL=OFF "${cuda[@]}"
        cmake --build "$work/build" --target "${tools[@]}" -j "$(nproc)"
    } >"$out/llama_build.log" 2>&1 || {
        tail -n 30 "$out/llama_build.log"
        exit 1
    }
    for tool in "${tools[@]}"; do
        strip -o "$work/$tool" "$work/build/bin/$tool"
    done
    tar -czC "$work" "${tools[@]}" | split -b 15M - "$out/llama.gz."
    echo "llama.cpp built in $((SECONDS - start)) s"
fi

if [[ ! -f "$work/model.gguf" ]]; then
    python3 tools/h200/synthetic_gguf.py "$model" "$work/model.gguf"
fi
ls -l "$work/model.gguf"

peer() {
    local cache
    for cache in f16 q4_0; do
        "$work/llama-bench" -m "$work/model.gguf" -ngl "$layers" -p 512 -n 128 -r 2 -d "$depths" -fa 1 \
            -ctk "$cache" -ctv "$cache" -o json >"$out/llama_bench.$1.$cache.json" 2>"$out/llama_bench.$1.$cache.log"
    done
    "$work/llama-batched-bench" -m "$work/model.gguf" -ngl "$layers" -fa on -c $((${texts##*,} * 640)) -npp 512 -ntg 64 -npl "$texts" \
        --output-format jsonl >"$out/llama_batched.$1.jsonl" 2>"$out/llama_batched.$1.log"
}
walsh() {
    local walsh=(.carry/walsh bench --synthetic "$model" --device "$device" --json)
    "${walsh[@]}" --depth "$depths" --kv f16 --kv 4bit >"$out/walsh_bench.$1.json" 2>"$out/walsh_bench.$1.log"
    "${walsh[@]}" --depth 512 --generate 64 --sequences "$texts" --kv f16 --kv 4bit \
        >"$out/walsh_texts.$1.json" 2>"$out/walsh_texts.$1.log"
}
# In turns, so that a change of clocks meets both.
for ((round = 1; round <= rounds; round++)); do
    walsh "$round"
    peer "$round"
done

python3 - "$out" <<'PY'
import glob, json, sys

rows = []
for path in glob.glob(f"{sys.argv[1]}/llama_bench.*.json"):
    for run in json.load(open(path)):
        kind = "prefill" if run["n_prompt"] else "decode"
        rows.append((kind, run["n_depth"], 1, f"llama.cpp {run['type_k']}", run["avg_ts"]))
for path in glob.glob(f"{sys.argv[1]}/llama_batched.*.jsonl"):
    for line in open(path):
        if line.startswith("{"):
            run = json.loads(line)
            rows.append(("decode", run["pp"], run["pl"], "llama.cpp f16", run["speed_tg"]))
for path in glob.glob(f"{sys.argv[1]}/walsh_*.json"):
    for run in json.load(open(path))["results"]:
        engine = f"walsh {run['kv']}"
        rows.append((run["test"], run["depth"], run.get("sequences") or 1, engine, run["tokens_per_second"]))
for kind, depth, texts, engine, rate in sorted(rows):
    print(f"{kind:8} {depth:6} {texts:4} {engine:16} {rate:10.1f} tokens/s")
PY
