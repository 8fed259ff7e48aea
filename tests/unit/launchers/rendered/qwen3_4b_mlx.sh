#!/usr/bin/env bash
# qwen3_4b_mlx: Qwen3-4B in bf16 on a Mac with 24 GB, trained by MLX
set -euo pipefail
export PYTHONUNBUFFERED=1
exec PROJECT/.venv/bin/python PROJECT/src/palmswift/launchers/engines/mlx_worker.py train \
    --config PROJECT/runs/qwen3_4b_mlx-TIME/launch/mlx.yaml
