#!/usr/bin/env bash
# Fuzzes every target for SECONDS in all, one after the other, from the committed corpus, and prints the executions of each.
# Needs a nightly compiler and `cargo install cargo-fuzz`. A finding ends it; the input is then in artifacts/. What is found new stays in
# the folder of the build; `run.sh SECONDS minimize` then replaces the committed corpus by a minimal one that reaches the same.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: run.sh SECONDS [minimize]"; exit 2; }
cd "$(dirname "$0")"
targets=(parse edit imatrix dequantize quantize)
each=$(( ($1 + ${#targets[@]} - 1) / ${#targets[@]} ))
found=${CARGO_TARGET_DIR:-target}/corpus
# No sanitizer: the code is safe Rust, and runs several times as often without one. Overflow checks and debug assertions are on.
cargo +nightly fuzz build --sanitizer none
total=0
for target in "${targets[@]}"; do
    mkdir -p "$found/$target" "corpus/$target"
    # `edit` takes the same files as `parse`.
    folders=("$found/$target" "corpus/$target")
    [ "$target" = edit ] && folders+=("corpus/parse")
    log=$(mktemp)
    cargo +nightly fuzz run --sanitizer none "$target" "${folders[@]}" -- -dict=gguf.dict -max_len=1024 -timeout=20 -rss_limit_mb=1024 \
        -max_total_time="$each" -print_final_stats=1 > "$log" 2>&1 || { tail -n 40 "$log"; echo "$target: a finding"; exit 1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    total=$((total + runs))
    printf '%-12s %12d executions in %d s\n' "$target" "$runs" "$each"
    rm "$log"
    if [ "${2:-}" = minimize ]; then
        small=$(mktemp -d)
        # Few files that reach every line the others reach.
        cargo +nightly fuzz run --sanitizer none "$target" "$small" "${folders[@]}" -- -set_cover_merge=1 -use_counters=0 -max_len=1024 \
            > /dev/null 2>&1
        rm -r "corpus/$target"
        mv "$small" "corpus/$target"
    fi
done
printf '%-12s %12d executions, no finding\n' all "$total"
