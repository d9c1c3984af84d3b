#!/usr/bin/env bash
# T-D1, T-D2, T-D6: takes a server's life, its power, its disk and its space, again and again, and looks
# each time at what it has kept. Ends with 1 at the first acked message that is lost.
#
#     bash tests/durability.sh [KILLS] [POWER_CUTS] [SHUTDOWNS] [FULL_DISKS]     1000 200 50 50
#
# Power, disk and space need root and loop devices, and are skipped where they are missing.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export TIDEGATE_CRASH_CYCLES=${1:-1000} TIDEGATE_POWER_CUTS=${2:-200}
export TIDEGATE_SHUTDOWNS=${3:-50} TIDEGATE_FULL_DISKS=${4:-50}
# A mount namespace made meanwhile by another program would keep a disk that was switched off alive,
# so the tests mount in one of their own.
own=()
unshare --mount true 2> /dev/null && own=(unshare --mount)
date -u
uname -r
cargo test --test crash -- --nocapture
"${own[@]}" cargo test --test power_cut -- --ignored --nocapture --test-threads 1
date -u
