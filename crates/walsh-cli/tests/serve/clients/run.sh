#!/usr/bin/env bash
# Runs the suites of all clients against a server that is running, and counts their cases.
#
#   run.sh URL [KEYED_URL KEY] --tools DIR [--model NAME] [--schemas N] [--seed S]
#   run.sh URL --tools DIR --document SECONDS [--seed S]
#
# URL is that of a server without a key, started with --deterministic, since what is streamed is compared with what is
# not; KEYED_URL that of one with a key. With --document, requests are drawn from the server's OpenAPI document instead, for
# so long: one with --slot-folder, and with times after which requests and readers are given up. DIR keeps the clients' packages between runs; what of them is out of date is
# made anew. Nothing else is written.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

fail() {
    echo "$1" >&2
    exit 2
}

usage="usage: run.sh URL [KEYED_URL KEY] --tools DIR [--model NAME] [--schemas N] [--seed S] | URL --tools DIR --document SECONDS [--seed S]"
servers=()
tools="" document="" model=smollm2-135m schemas=200 seed=1
while (($#)); do
    case "$1" in
        --tools | --model | --schemas | --seed | --document)
            (($# > 1)) || fail "$1 has no value; $usage"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        -*) fail "$1 is no option; $usage" ;;
        *)
            servers+=("$1")
            shift
            ;;
    esac
done
((${#servers[@]} == 1 || ${#servers[@]} == 3)) || fail "$usage"
[[ $tools ]] || fail "--tools is missing; $usage"

need() {
    command -v "$1" >/dev/null || fail "missing $1: $2"
}

need python3 "install Python 3.10 or newer (Debian: apt-get install python3 python3-venv)"
need node "install Node.js 20 or newer, with npm"
need npm "install npm (Debian: apt-get install npm)"
need flock "install util-linux (Debian: apt-get install util-linux)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$(python3 --version) is too old: install 3.10 or newer"
python3 -c 'import ensurepip, venv' 2>/dev/null ||
    fail "missing pip or venv: install them (Debian: apt-get install python3-pip python3-venv)"
node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' ||
    fail "Node.js $(node --version) is too old: install 20 or newer"

mkdir -p "$tools"
tools="$(cd "$tools" && pwd)"
exec 9>"$tools/lock"
flock 9

# Whether what was installed is not of this stamp, which is written last.
stale() {
    [[ ! -e $tools/$1.stamp || "$(<"$tools/$1.stamp")" != "$2" ]]
}

python_stamp="$(python3 --version; cat "$here/requirements.txt")"
if stale python "$python_stamp"; then
    echo "installing Python packages into $tools" >&2
    rm -rf "$tools/python" "$tools/python.stamp"
    python3 -m venv "$tools/python"
    "$tools/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    "$tools/python/bin/python" -m pip check >&2
    printf %s "$python_stamp" >"$tools/python.stamp"
fi
node_stamp="$(node --version; cat "$here/package.json" "$here/package-lock.json" "$here/.npmrc")"
if stale node "$node_stamp"; then
    echo "installing Node.js packages into $tools" >&2
    rm -rf "$tools/node" "$tools/node.stamp"
    mkdir "$tools/node"
    cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$tools/node"
    (cd "$tools/node" && npm ci --ignore-scripts --silent)
    printf %s "$node_stamp" >"$tools/node.stamp"
fi
# Modules find packages beside themselves alone.
cp "$here"/*.mjs "$tools/node"

keyed=()
if ((${#servers[@]} == 3)); then
    keyed=(--keyed "${servers[1]}" "${servers[2]}")
fi
passed=0 failed=0

# Runs a suite, and counts its lines. One that ends badly without a case that failed has failed as a whole.
suite() {
    local name="$1" log="$tools/suite.log" status=0 ok bad
    shift
    "$@" 2>&1 | tee "$log" || status=$?
    ok="$(grep -c '^ok ' "$log" || true)"
    bad="$(grep -c '^FAILED ' "$log" || true)"
    if ((status && !bad || !ok && !bad)); then
        echo "FAILED $name: it ended with status $status and $ok cases"
        bad=1
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
}

python=("$tools/python/bin/python" -B)
url="${servers[0]}"

# What the document allows may still be refused: no schema says what a model's vocabulary, template or context take.
if [[ $document ]]; then
    mkdir -p "$tools/document"
    drawn() {
        cd "$tools/document"
        "$tools/python/bin/schemathesis" run "$url/openapi.json" --max-time "$document" --seed "$seed" --no-color \
            --phases coverage,fuzzing --checks all --exclude-checks positive_data_acceptance \
            --request-timeout 30 --continue-on-failure --warnings off && echo "ok document"
    }
    suite document drawn
    echo "$passed passed, $failed failed"
    exit $((failed > 0 || passed == 0))
fi

suite openai "${python[@]}" "$here/openai_suite.py" "$url" --model "$model" "${keyed[@]}"
suite anthropic "${python[@]}" "$here/anthropic_suite.py" "$url" --model "$model" "${keyed[@]}"
suite "openai (npm)" node "$tools/node/openai_suite.mjs" "$url" --model "$model" "${keyed[@]}"
suite "AI SDK" node "$tools/node/ai_sdk_suite.mjs" "$url" --model "$model" "${keyed[@]}"
suite schemas "${python[@]}" "$here/schemas.py" "$url" --model "$model" --count "$schemas" --seed "$seed"

echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
