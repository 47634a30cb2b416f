#!/usr/bin/env bash
# Measures all that README's section "Benchmarks" tells, part by part, and prints each figure with its goal.
#
#     tests/bench/all.sh            # as root, some two hours on two cores, which should have nothing else to do
#     tests/bench/all.sh PART...    # codec serving memory simulator testnet lookups transfer wan swarms hashing
set -euo pipefail
cd "$(dirname "$0")/../.."

parts=("$@")
((${#parts[@]})) || parts=(codec serving memory simulator testnet lookups transfer wan swarms hashing)

codec() {
  cargo bench -p harness --bench codec
}

serving() {
  target/release/serving compare --repetitions 5 --seconds 2
  target/release/serving kinds --only btdht,libtorrent-2.1 --repetitions 2 --seconds 1
  target/release/serving_core scale
  tests/bench/serving_core.py --check tests/bench/serving_core.json
  target/release/serving_shards
  cargo test --release -p harness --test serving -- a_hundred_thousand one_greedy --ignored --nocapture
}

memory() {
  cargo test -p harness --test memory -- --nocapture --test-threads 1
  cargo bench -p harness --bench store
}

simulator() {
  target/release/sim
  target/release/sim --nodes 100000 --threads 1
  target/release/btdht sim scale --nodes 100000 --lookups 1000 --minutes 1 --threads 2
  target/release/btdht sim join --nodes 1000000 --minutes 1 --threads 2
  target/release/btdht sim announce --nodes 1000 --minutes 1440
}

testnet() {
  cargo test -p btdht --lib -- testnet::reality --nocapture
  cargo test --release -p btdht --test btdht_process -- testnet --ignored --nocapture
}

lookups() {
  local seed
  for seed in 1 2 3 4; do
    target/release/lookups --lookups 4000 --seed "$seed"
  done
}

transfer() {
  tests/bench/transfer.py --kind big --mib 2048 --repetitions 5
  tests/bench/transfer.py --kind seeding,small,magnet,dictionary --repetitions 5
}

wan() {
  tests/bench/wan.py --loss 0,1 --repetitions 5
}

swarms() {
  cargo test -p btfetch --lib --config 'profile.dev.package.btfetch.opt-level=2' -- --ignored --nocapture sim::
}

hashing() {
  cargo bench -p harness --bench hash -- 5 1024
}

for part in "${parts[@]}"; do
  declare -F "$part" >/dev/null || { echo "no part called $part" >&2; exit 2; }
done
tests/interop/install.sh --rqbit
cargo build --release -p btdht -p btfetch -p harness --bins
for part in "${parts[@]}"; do
  printf '\n=== %s\n' "$part"
  "$part"
done
