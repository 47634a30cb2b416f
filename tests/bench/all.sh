#!/usr/bin/env bash
# Measures all that README's section "Benchmarks" tells, part by part, with the goals where a program knows them.
#
#     tests/bench/all.sh            # as root, some two hours on two cores, which should have nothing else to do
#     tests/bench/all.sh PART...    # codec serving memory simulator testnet lookups transfer wan swarms hashing hostile
set -euo pipefail
cd "$(dirname "$0")/../.."

parts=("$@")
((${#parts[@]})) || parts=(codec serving memory simulator testnet lookups transfer wan swarms hashing hostile)

codec() {
  cargo bench -p harness --bench codec
}

serving() {
  target/release/serving compare --repetitions 5 --seconds 2
  target/release/serving kinds --only btdht,libtorrent-2.1 --repetitions 2 --seconds 1
  target/release/serving soak --only btdht
  target/release/serving memory
  target/release/serving_core scale
  tests/bench/serving_core.py --check tests/bench/serving_core.json
  target/release/serving_shards
  cargo test --release -p harness --test serving -- a_hundred_thousand one_greedy --ignored --nocapture
}

memory() {
  cargo test -p harness --test memory -- --nocapture --test-threads 1
  cargo bench -p harness --bench store
  fresh target/release/examples/node 6881 127.0.0.1:9
  fresh target/release/btdht serve --port 6881 --bootstrap 127.0.0.1:9 --no-state
}

# The resident memory of a node that has met nobody.
fresh() {
  "$@" >/dev/null &
  sleep 3
  echo "$1: $(awk '/^VmRSS/ { print $2 * 1.024 / 1000 }' "/proc/$!/status") MB resident (goal 6)"
  kill -INT $!
  wait $! || true
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
  crawl_of_a_testnet
}

crawl_of_a_testnet() {
  local net addr folder
  folder=$(mktemp -d)
  target/release/btdht testnet --nodes 1000 --json >"$folder/net" &
  net=$!
  until grep -q '"ready"' "$folder/net"; do sleep 0.2; done
  addr=$(sed -n 's/.*"addr":"\([^"]*\)","event":"bootstrap".*/\1/p' "$folder/net")
  target/release/btdht crawl --rate 400 --rounds 1 --json --allow-local --bootstrap "$addr" --db "$folder/db" | tail -1
  kill -INT $net
  wait $net || true
  rm -r "$folder"
}

lookups() {
  local seed
  for seed in 1 2 3 4; do
    target/release/lookups --lookups 4000 --seed "$seed"
  done
}

transfer() {
  tests/bench/transfer.py --kind big,recheck --mib 2048 --repetitions 5
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

# S34, S36, S38 and S39, by the times and the processor time that they name.
hostile() {
  cargo test --release -p harness --test hostile -- --include-ignored
}

for part in "${parts[@]}"; do
  declare -F "$part" >/dev/null || { echo "no part called $part" >&2; exit 2; }
done
tests/interop/install.sh --rqbit
cargo build --release -p btdht -p btfetch -p harness --bins --example node
for part in "${parts[@]}"; do
  printf '\n=== %s\n' "$part"
  "$part"
done
