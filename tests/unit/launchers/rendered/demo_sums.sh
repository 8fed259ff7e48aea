#!/usr/bin/env bash
# demo_sums: A small Qwen3 that answers sums in one form or another, for the GRPO and GKD demos
set -euo pipefail
export PYTHONUNBUFFERED=1
export CUDA_VISIBLE_DEVICES=
export OMP_NUM_THREADS=1
exec swift sft \
    --model demo_sums \
    --dataset PROJECT/runs/demo_sums-TIME/data/train.jsonl \
    --val_dataset PROJECT/runs/demo_sums-TIME/data/val.jsonl \
    --output_dir PROJECT/runs/demo_sums-TIME/train \
    --add_version false \
    --logging_nan_inf_filter false \
    --external_plugins PROJECT/src/palmswift/launchers/plugins/run_events.py PROJECT/src/palmswift/launchers/plugins/exact_resume.py PROJECT/src/palmswift/launchers/plugins/orderly_stop.py \
    --model_type qwen3 \
    --template qwen3 \
    --tuner_type full \
    --torch_dtype float32 \
    --use_cpu true \
    --enable_thinking true \
    --add_non_thinking_prefix false \
    --preserve_thinking false \
    --loss_scale default \
    --split_dataset_ratio 0 \
    --max_length 256 \
    --truncation_strategy delete \
    --dataset_num_proc 1 \
    --load_from_cache_file false \
    --dataloader_num_workers 0 \
    --seed 42 \
    --data_seed 42 \
    --per_device_train_batch_size 20 \
    --per_device_eval_batch_size 10 \
    --gradient_accumulation_steps 1 \
    --gradient_checkpointing false \
    --optim adamw_torch_fused \
    --lr_scheduler_type cosine \
    --warmup_ratio 0.05 \
    --eval_strategy no \
    --eval_steps 100 \
    --save_strategy steps \
    --save_steps 100 \
    --save_total_limit 2 \
    --load_best_model_at_end false \
    --logging_steps 5 \
    --report_to tensorboard \
    --check_model false \
    --num_train_epochs 8 \
    --learning_rate 0.005
