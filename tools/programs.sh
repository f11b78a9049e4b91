#!/usr/bin/env bash
# Builds the OpenTelemetry Collector of collector-config/builder.yaml, and Jaeger, for the tests that run the real ones.
#   tools/programs.sh              both, into $TOKENBUDGET_PROGRAMS or ~/.cache/tokenbudget-otel/programs
# What is there, and was built of the same, is used again. Needs Go 1.25 or newer; takes some minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILDER=v0.148.0
PROGRAMS=${TOKENBUDGET_PROGRAMS:-${XDG_CACHE_HOME:-$HOME/.cache}/tokenbudget-otel/programs}

if ! command -v go >/dev/null; then
    echo "tools/programs.sh: Go is not installed; version 1.25 or newer is needed (https://go.dev/dl)" >&2
    exit 1
fi
version=$(go env GOVERSION)
minor=${version#go1.}
minor=${minor%%[!0-9]*}
if [ "${minor:-0}" -lt 25 ]; then
    echo "tools/programs.sh: Go 1.25 or newer is needed, this is $version" >&2
    exit 1
fi

mkdir -p "$PROGRAMS"
# Two runs at a time would build the same twice.
exec 9>"$PROGRAMS/.lock"
flock 9

export CGO_ENABLED=0 GOFLAGS=-mod=mod
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fresh NAME WHAT: whether the program NAME is there and was built of WHAT.
fresh() { [ -x "$PROGRAMS/$1" ] && [ "$(cat "$PROGRAMS/$1.built-of" 2>/dev/null)" = "$2" ]; }

# keep NAME FILE WHAT: put a new program in its place at once, so that nobody starts half of one.
keep() {
    mv "$2" "$PROGRAMS/$1.new"
    mv "$PROGRAMS/$1.new" "$PROGRAMS/$1"
    echo "$3" >"$PROGRAMS/$1.built-of"
}

of=$(cat collector-config/builder.yaml - <<<"$BUILDER" | sha256sum | cut -d' ' -f1)
if ! fresh otelcol-tokenbudget "$of"; then
    started=$SECONDS
    GOBIN=$work go install "go.opentelemetry.io/collector/cmd/builder@$BUILDER"
    cp collector-config/builder.yaml "$work"
    # The builder passes -trimpath itself.
    (cd "$work" && ./builder --config builder.yaml --ldflags="-s -w")
    keep otelcol-tokenbudget "$work/otelcol-tokenbudget/otelcol-tokenbudget" "$of"
    echo "otelcol-tokenbudget: built in $((SECONDS - started)) s"
fi

of=$(cat tools/jaeger/go.mod tools/jaeger/needs.go | sha256sum | cut -d' ' -f1)
if ! fresh jaeger "$of"; then
    started=$SECONDS
    mkdir "$work/jaeger"
    cp tools/jaeger/go.mod tools/jaeger/needs.go "$work/jaeger"
    jaeger=github.com/jaegertracing/jaeger
    tag=$(awk -v module=$jaeger '$1 == "require" && $2 == module { print $3 }' tools/jaeger/go.mod)
    (cd "$work/jaeger" && go build -trimpath -ldflags "-s -w -X $jaeger/pkg/version.latestVersion=$tag \
        -X $jaeger/internal/version.latestVersion=$tag" -o ../jaeger-program "$jaeger/cmd/jaeger")
    keep jaeger "$work/jaeger-program" "$of"
    echo "jaeger: built in $((SECONDS - started)) s"
fi

"$PROGRAMS/otelcol-tokenbudget" --version
"$PROGRAMS/jaeger" version 2>/dev/null
echo
echo "in $PROGRAMS"
