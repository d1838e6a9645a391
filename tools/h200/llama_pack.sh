#!/usr/bin/env bash
# Packs llama.cpp's source, as far as its CUDA backend and llama-bench need it, into .carry/llama.cpp.tar.gz for
# tools/h200/llama_bench.sh. It comes from the sdist of llama-cpp-python, through pip as it is configured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=0.3.36
work="target/llama-cpp-python-$version"
mkdir -p "$work" .carry
if [[ ! -d "$work/source" ]]; then
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$work" "llama-cpp-python==$version"
    mkdir "$work/unpacked"
    tar -xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work/unpacked" --strip-components 3 \
        "llama_cpp_python-$version/vendor/llama.cpp"
    mv "$work/unpacked" "$work/source"
fi
# Of the tools only two.
printf '%s\n' 'find_package(Threads REQUIRED)' 'llama_add_compile_flags()' 'add_subdirectory(llama-bench)' \
    'add_subdirectory(batched-bench)' >"$work/source/tools/CMakeLists.txt"
backends=(cpu cuda)
others=()
for folder in "$work"/source/ggml/src/ggml-*/; do
    backend="$(basename "$folder")"
    backend="${backend#ggml-}"
    if [[ ! " ${backends[*]} " == *" $backend "* ]]; then others+=(--exclude "ggml/src/ggml-$backend"); fi
done
tar -czf .carry/llama.cpp.tar.gz "${others[@]}" -C "$work/source" \
    CMakeLists.txt LICENSE cmake common ggml include licenses src tools/CMakeLists.txt tools/batched-bench tools/llama-bench vendor
ls -l .carry/llama.cpp.tar.gz
