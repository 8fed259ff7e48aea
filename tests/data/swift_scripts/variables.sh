#!/usr/bin/env bash
# Four cards; the batch is divided among them.
set -euo pipefail

gpus=4
MODEL=${MODEL:-Qwen/Qwen3-4B}
MAX_LENGTH=$((2 * 1024))
ROWS=("rows/first file.jsonl" rows/second.jsonl)
LORA=(
    --lora_rank 16      # half of the alpha
    --lora_alpha 32
)

export OMP_NUM_THREADS=8
CUDA_VISIBLE_DEVICES=0,1,2,3 \
NPROC_PER_NODE=$gpus \
swift sft \
    --model "$MODEL" \
    --use_hf true \
    --tuner_type lora \
    --dataset "${ROWS[@]}" \
    --val_dataset rows/held_out.jsonl \
    "${LORA[@]}" \
    --max_length $MAX_LENGTH \
    --gradient_accumulation_steps $(expr 32 / $gpus) \
    --deepspeed zero2 \
    --output_dir "output/$(date +%F)" 2>&1 | tee train.log
