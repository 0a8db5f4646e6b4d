#!/usr/bin/env bash
# What a task costs as there are more tasks, more slots, more peers: a table, with emulated workers.
#
#   cargo build --release -p rdask-bench && bench/growth.sh
set -euo pipefail
bench=${1:-$(dirname "${BASH_SOURCE[0]}")/../target/release/rdask-bench}

# A number of a JSON line.
field() { sed -n "s/.*\"$2\":\([-0-9.e]*\).*/\1/p" <<<"$1"; }

# The name of a row, its size, and the arguments of its run.
row() {
    local line
    line=$("$bench" --workload "${@:3}")
    printf '%-28s %9s %10.3f %16.3f %14.0f\n' "$1" "$2" "$(field "$line" us_per_task)" \
        "$(field "$line" scheduler_cpu_us_per_task)" "$(field "$line" scheduler_bytes_per_task)"
}

printf '%-28s %9s %10s %16s %14s\n' what size us/task 'scheduler us' 'bytes/task'
for n in 1000 10000 100000 1000000 10000000; do
    row 'tasks of a map' "$n" noop --zero-worker --threads 24 --n "$n"
done
for levels in 10 13 15 17 20; do
    row 'tasks of a tree' "$((2 ** levels - 1))" rsds --zero-worker --graph "tree-$levels"
done
for shape in 1x1 1x24 7x24 63x24; do
    row 'slots, a map of 10^6' "$shape" noop --zero-worker --workers "${shape%x*}" \
        --threads "${shape#*x}"
done
for shape in 1x1 1x24 7x24 63x24; do
    row 'slots, tree-17' "$shape" rsds --zero-worker --graph tree-17 --workers "${shape%x*}" \
        --threads "${shape#*x}"
done

printf '\n%-28s %9s %10s %16s\n' what workers seconds 'scheduler us'
for workers in 125 250 500 1000; do
    line=$("$bench" --workload register --workers "$workers")
    printf '%-28s %9s %10.2f %16.0f\n' 'workers and processes join' "$workers" \
        "$(field "$line" seconds)" "$(field "$line" scheduler_cpu_us_per_peer)"
done
