#!/bin/sh
# Builds the fuzz targets with clang, or runs one of them; `make fuzz` calls it for all.
#
#   csrc/fuzz/run.sh build            into build/fuzz
#   csrc/fuzz/run.sh run NAME SECONDS starting from tests/fuzz-corpus/NAME
#
# An input that breaks a target is made smaller and kept in tests/fuzz-corpus/NAME, where the
# ordinary tests replay it from then on.
set -eu
cd "$(dirname "$0")/../.."
out=build/fuzz
flags="-std=c11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined
    -fno-sanitize-recover=undefined -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

build() {
    command -v clang >/dev/null || {
        echo "error: clang is needed; on Debian: apt-get install clang" >&2
        exit 1
    }
    rm -rf $out/objects
    mkdir -p $out/objects
    find csrc -name '*.c' ! -path '*/fuzz/fuzz_*' | while read -r file; do
        echo "$file" "$out/objects/$(echo "$file" | tr / _).o"
    done | xargs -P "$jobs" -L 1 sh -c "clang $(echo $flags) -fsanitize=fuzzer-no-link -c \$0 -o \$1"
    for file in csrc/fuzz/fuzz_*.c; do
        basename "$file" .c
    done | xargs -P "$jobs" -I{} clang $flags -fsanitize=fuzzer csrc/fuzz/{}.c $out/objects/*.o \
        -Wl,-z,muldefs -lpthread -o $out/{} # fuzz_alloc_failure.c replaces functions
}

run() {
    name=$1 seconds=$2 found=$out/found/$1
    mkdir -p "$out/corpus/$name" "$found"
    echo "fuzz: $name for $seconds s"
    if "$out/fuzz_$name" -max_total_time="$seconds" -artifact_prefix="$found/" -timeout=25 \
        -rss_limit_mb=2048 -max_len=20000 -print_final_stats=1 "$out/corpus/$name" \
        "tests/fuzz-corpus/$name" >"$found.log" 2>&1; then
        echo "fuzz: $name fine, $(sed -n 's/^stat::number_of_executed_units: //p' "$found.log") inputs"
        return
    fi
    tail -n 40 "$found.log"
    for input in "$found"/*; do
        [ -f "$input" ] || continue
        kept="tests/fuzz-corpus/$name/$(basename "$input" | cut -c1-18)"
        cp "$input" "$kept"
        "$out/fuzz_$name" -minimize_crash=1 -max_total_time=60 -exact_artifact_path="$input.min" \
            "$input" >/dev/null 2>&1 || true
        if [ -s "$input.min" ] && ! "$out/fuzz_$name" "$input.min" >/dev/null 2>&1; then
            cp "$input.min" "$kept"
        fi
        rm -f "$input" "$input.min"
        echo "fuzz: $name FAILED, kept $kept"
    done
    exit 1
}

case "${1:-}" in
build) build ;;
run) run "$2" "$3" ;;
*) sed -n '2,6s/^# \{0,1\}//p' "$0" ;;
esac
