#!/usr/bin/env bash
# Installs the clients that the interop tests and comparison benchmarks run against, each from its
# ordinary package manager: libtorrent 2.0 and 2.1 (PyPI) in virtual environments, aria2 and
# transmission (Debian), the crates `mainline` and `librqbit-dht` (a nested workspace). Run it again at any time: what is
# there already is kept.
#
#   tests/interop/install.sh            everything, into target/interop
#   tests/interop/install.sh --rqbit    the client `rqbit` as well, which `tests/bench/wan.py` wants (minutes to build)
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=${INTEROP_DIR:-target/interop}
mkdir -p "$dir"

for series in 2.0.15 2.1.1; do
  venv=$dir/libtorrent-${series%.*}
  if ! "$venv/bin/python" -c 'import libtorrent' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "libtorrent==$series"
  fi
  "$venv/bin/python" -c 'import libtorrent; print("libtorrent", libtorrent.__version__)'
done

missing=()
command -v aria2c >/dev/null || missing+=(aria2)
command -v transmission-daemon >/dev/null || missing+=(transmission-daemon)
command -v transmission-remote >/dev/null || missing+=(transmission-cli)
command -v ip >/dev/null || missing+=(iproute2)
if ((${#missing[@]})); then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq "${missing[@]}" >/dev/null
fi
aria2c --version | head -n 1
transmission-daemon --version 2>&1 | head -n 1

cargo build --quiet --release --manifest-path tests/rivals/Cargo.toml --target-dir "$dir/rivals"
echo "the crates mainline and librqbit-dht: built"

if [[ ${1-} == --rqbit ]]; then
  cargo install --quiet rqbit --version 9.1.0 --locked --no-default-features --features rust-tls --root "$dir/rqbit" \
    --target-dir "$dir/rqbit-build"
  "$dir/rqbit/bin/rqbit" --version
fi
