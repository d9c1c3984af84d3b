#!/bin/sh
# P8, and all figures of "Durable topics" in RESULTS.md, in about 4 minutes: sh bench/durable.sh [FOLDER]
# FOLDER is made on the file system in question and removed at the end. Server on CPU 0, load on
# CPU 1. On a machine that does other things too, PRIORITY="chrt -r 1" lets neither wait for them
# (and PRIORITY_LIVE="chrt -r 2" the live publisher not for the readers beside it); it needs root.
set -eu
TIDEGATE=${TIDEGATE:-target/release/tidegate}
LOADGEN=${LOADGEN:-target/release/loadgen}
BENCH=${BENCH:-target/release/bench}
FOLDER=${1:-durable-bench}
ADDRESS=${ADDRESS:-127.0.0.1:9320}
PRIORITY=${PRIORITY:-}
PRIORITY_LIVE=${PRIORITY_LIVE:-$PRIORITY}
export TIDEGATE_JWT_SECRET=durable-bench-secret-of-at-least-32-bytes
export TIDEGATE_SERVER__SHARDS=1
PID=
DATA=

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Starts the server on a folder and tells how long it took until it listened.
start() {
    DATA=$FOLDER/$1
    began=$(now_ms)
    : >"$FOLDER/out"
    $PRIORITY taskset -c 0 "$TIDEGATE" serve --listen "$ADDRESS" --data "$DATA" \
        >"$FOLDER/out" 2>"$FOLDER/err" &
    PID=$!
    until grep -q listening "$FOLDER/out"; do
        kill -0 "$PID" || { cat "$FOLDER/err"; exit 1; }
        sleep 0.005
    done
    echo "start of $1: $(($(now_ms) - began)) ms"
}

stop() { kill "-$1" "$PID" && wait "$PID" || true; PID=; }

load() {
    kind=$1
    shift
    # A run that must be thrown away says so.
    $PRIORITY "$LOADGEN" durable "$kind" --server "$ADDRESS" --cpu 1 --pid "$PID" \
        --data-dir "$DATA" "$@" || true
}

live() { (PRIORITY=$PRIORITY_LIVE; load publish --topic live --in-flight 64 --rate 500 --seconds 2 --warmup 0.5); }

# Drops a folder's pages from the cache.
cool() { find "$1" -type f -exec dd if={} iflag=nocache count=0 status=none \; ; }

trap '[ -z "$PID" ] || kill "$PID"; rm -rf "$FOLDER"' EXIT
mkdir -p "$FOLDER"
uname -r
date
LOADGEN_TOKEN=$("$TIDEGATE" token new --ns demo --sub bench --ttl 1h | tail -n 1)
export LOADGEN_TOKEN

echo "== one batch: linked write and fdatasync, RWF_DSYNC, two calls"
$PRIORITY taskset -c 0 "$BENCH" sync --dir "$FOLDER" --seconds 0.3 --rounds 6

echo "== publishes"
start publish
for bytes in 128 1024; do
    for count in 1 16 64 256 1024; do
        load publish --in-flight "$count" --connections 8 --bytes "$bytes" --seconds 3 --warmup 0.5
    done
done
echo "== 5,000 publishes a second, open loop"
load publish --in-flight 256 --connections 8 --rate 5000 --seconds 5
echo "== 64 in flight on 8 topics, which are in 4 partitions"
load publish --in-flight 64 --connections 8 --topics 8 --topic spread --seconds 3 --warmup 0.5
stop TERM

echo "== 20,000 topics"
start topics
load topics --count 20000
stop TERM
start topics
stop KILL
start topics
stop TERM

echo "== stalled subscribers"
start stalled
load stalled --mib 200 --connections 16
stop TERM

echo "== replay, and a publisher beside it"
start replay
load replay --topic small --bytes 1024 --mib 1024
load replay --topic large --bytes 16384 --mib 512
echo "live publisher alone"
live
for topic in small large; do
    echo "live publisher beside the replay of $topic messages"
    case $topic in small) of="--bytes 1024 --mib 1024" ;; *) of="--bytes 16384 --mib 512" ;; esac
    # shellcheck disable=SC2086
    load replay --topic $topic $of --filled --rounds 12 >"$FOLDER/rounds" &
    REPLAY=$!
    sleep 1
    live
    wait "$REPLAY"
    cat "$FOLDER/rounds"
done
echo "== recovery of $(du -sm "$FOLDER/replay" | cut -f 1) MiB of log"
stop KILL
start replay
stop KILL
cool "$FOLDER/replay"
echo "cold:"
start replay
stop KILL
rm -f "$FOLDER"/replay/partition-*/*.checkpoint
echo "without a checkpoint, the whole log:"
start replay
stop KILL
