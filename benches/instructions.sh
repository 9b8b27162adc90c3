#!/usr/bin/env bash
# Guards against regressions by instructions instead of time, which is noise on a shared machine: counts those of a
# small run under valgrind and compares with the committed figure. Without valgrind it says so and passes.
# `benches/instructions.sh --write` writes the figure anew, after a change that is meant to cost more or less.
set -euo pipefail
cd "$(dirname "$0")/.."

most_percent=3
case=scenarios/performance/poisson-10k.toml
committed=benches/instructions.txt

if ! command -v valgrind > /dev/null; then
  echo "valgrind is not here: instructions are not counted" >&2
  exit 0
fi
# The build that tests use: CI has it, and what costs more there costs more in a release build.
cargo build --locked --quiet
counted=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
  target/debug/tailcast run "$case" --threads 1 --quiet 2>&1 > /dev/null |
  sed -n 's/.*Collected : \([0-9]*\).*/\1/p')
if [ "${1:-}" = --write ]; then
  echo "$counted" > "$committed"
fi
before=$(cat "$committed")
echo "$case: $counted instructions, $before committed"
if [ $((counted * 100)) -gt $((before * (100 + most_percent))) ]; then
  echo "more than $most_percent % above the committed figure: make it cheaper, or say why and write it anew" >&2
  exit 1
fi
