#!/usr/bin/env bash
# Train on several machines: run the same line on each of them.
#
#   scripts/torchrun_train.sh HOST:PORT MACHINES GPUS_PER_MACHINE CONFIG.yaml [key=value …]
#
# HOST is one of the machines. A machine may drop out: the others start again from the newest
# checkpoint, which lies in the run folder on a storage that all of them see.
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
endpoint=$1 machines=$2 gpus=$3
shift 3

# torchrun passes SIGUSR1 on, and gives the processes time to save; older ones cannot.
patience=()
options=$(torchrun --help)
case $options in *--signals-to-handle*)
    patience+=(--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1) ;;
esac
case $options in *--shutdown-timeout*) patience+=(--shutdown-timeout 150) ;; esac

exec torchrun \
    --nnodes "1:$machines" --nproc-per-node "$gpus" --max-restarts "${MAX_RESTARTS:-3}" \
    "${patience[@]}" \
    --rdzv-backend c10d --rdzv-endpoint "$endpoint" --rdzv-id "${RDZV_ID:-retina}" \
    -m retina train "$@" --resume
