#!/usr/bin/env bash
# Builds what tools/h200/conformance.sh runs on a machine with an NVIDIA GPU that has no Rust: into .carry/.
# `tools/h200/build.sh [PROFILE]`, dev by default: its code is optimised, and it builds faster than release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

profile="${1:-dev}"
mkdir -p .carry
executables() {
    cargo "$@" --profile "$profile" --message-format=json-render-diagnostics |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        print(message["target"]["name"], message["executable"])'
}

{
    executables build -p walsh-cli
    executables test -p conformance --no-run --test conformance --test hazards --test errors
} | while read -r name file; do
    strip -o ".carry/$name" "$file"
done
ls -l .carry
