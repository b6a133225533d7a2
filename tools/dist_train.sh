#!/usr/bin/env bash
# Train on several GPUs (nccl), or on several CPU processes (gloo) where there is no GPU:
#   tools/dist_train.sh configs/pspnet_repvgg_b2_cityscapes.py 8 [flags of tools/train.py]
# Several machines: the same command on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR and PORT set, as in mmseg:
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh CONFIG 8
# Slurm: srun --ntasks-per-node 8 --gres gpu:8 python tools/train.py CONFIG --launcher slurm
# PYTHON names the interpreter.
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "error: usage: tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2 port=${PORT:-${MASTER_PORT:-}}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
if [ "${NNODES:-1}" = 1 ] && [ -z "$port" ]; then
    rendezvous=(--standalone)
else
    rendezvous=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
        --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${port:-29500}")
fi
exec "${PYTHON:-python}" -m repvgg_mm.cli.torchrun "${rendezvous[@]}" --nproc_per_node "$gpus" \
    "$here/train.py" "$config" --launcher pytorch "$@"
