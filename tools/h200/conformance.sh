#!/usr/bin/env bash
# The conformance cases on a machine with an NVIDIA GPU, from the binaries in .carry/ (tools/h200/build.sh):
# `tools/h200/conformance.sh [FILTER]...`. Then a sample of them under NVIDIA's checkers, where compute-sanitizer is
# there. Logs go to $OUT when it is set, to target/ otherwise.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out="${OUT:-target/h200}"
mkdir -p "$out"

# NVRTC, where the system's loader does not find it.
if ! ldconfig -p | grep -q 'libnvrtc\.so'; then
    for folder in /usr/local/cuda/lib64 /usr/local/cuda*/lib64 \
        "$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null)"/cu13/lib; do
        if compgen -G "$folder/libnvrtc.so*" >/dev/null; then
            export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
            break
        fi
    done
fi

status=0
check() {
    local name="$1" start=$SECONDS
    shift
    "$@" >"$out/$name.log" 2>&1
    local ended=$?
    printf '== %s: status %d, %d s\n' "$name" "$ended" $((SECONDS - start))
    tail -n 25 "$out/$name.log"
    if ((ended)); then status=1; fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
.carry/walsh doctor | sed -n '/^cuda/,/^metal/p'
check conformance .carry/conformance --device cuda "$@"
check hazards .carry/hazards
check errors .carry/errors
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        check "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
            .carry/conformance --device cuda --every "${EVERY:-29}" "$@"
    done
else
    echo "did not run: compute-sanitizer is not there"
fi
exit "$status"
