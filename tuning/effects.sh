#!/usr/bin/env bash
# What each knob does: the same load on a server with the default and with the value of a profile,
# on this machine. Wants a machine that does nothing else, and release builds:
#
#     cargo build --release --package tidegate --package loadgen
#     bash tuning/effects.sh [SECONDS]     prints a table; 10 s each by default
#
# Each row is run twice and says both numbers, so that chance can be seen.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
seconds=${1:-10}
bin=${CARGO_TARGET_DIR:-target}/release
folder=$(mktemp -d)
trap 'kill "$server" 2> /dev/null; rm -rf "$folder"' EXIT
server=
TIDEGATE_JWT_SECRET=$(head -c 32 /dev/urandom | base64)
export TIDEGATE_JWT_SECRET

cat > "$folder/echo.toml" <<'TOML'
[server]
shards = 1
listen = "127.0.0.1:0"
[[mount]]
path = "/echo"
dialect = "raw"
handler = "echo"
public = true
[durable]
enabled = false
TOML

# once NAME=VALUE LOAD..: starts a server with one setting and puts the load on it.
once() {
  local setting=$1 line
  shift
  env "$setting" taskset -c 0 "$bin/tidegate" serve --config "$folder/echo.toml" \
    --data "$folder/data" > "$folder/out" 2> "$folder/err" &
  server=$!
  until line=$(head -n 1 "$folder/out") && [ -n "$line" ]; do sleep 0.1; done
  "$bin/loadgen" "$@" --server "${line##*http://}" --seconds "$seconds" --cpu 1 \
    --pid "$server" --json 2> /dev/null
  kill "$server" && wait "$server" 2> /dev/null
}

# row KEY BEFORE AFTER LOAD..: a line of the table.
row() {
  local key=$1 before=$2 after=$3 variable
  shift 3
  variable=TIDEGATE_$(tr '[:lower:].' '[:upper:] ' <<< "$key" | sed 's/ /__/')
  for value in "$before" "$after" "$before" "$after"; do
    printf '%s = %s\t' "$key" "$value"
    once "$variable=$value" "$@" | tr -d '\n'
    printf '\n'
  done
}

row shard.busy_poll_us 0 50 echo --connections 10
row limits.turn_completions_max 128 64 echo --connections 1000
row limits.turn_completions_max 128 512 echo --connections 1000 --depth 16
row shard.ring_entries 4096 8192 echo --connections 1000 --depth 16
row shard.receive_buffers 1024 4096 echo --connections 1000 --depth 16
row shard.receive_buffer_bytes 16384 4096 echo --connections 1000
