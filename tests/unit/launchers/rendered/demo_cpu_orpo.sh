#!/usr/bin/env bash
# demo_cpu_orpo: ORPO on a CPU, which learns the good answers and to leave the careless ones at once
set -euo pipefail
export PYTHONUNBUFFERED=1
export CUDA_VISIBLE_DEVICES=
export OMP_NUM_THREADS=1
exec swift rlhf \
    --model demo_two_voices \
    --rlhf_type orpo \
    --dataset PROJECT/runs/demo_cpu_orpo-TIME/data/train.jsonl \
    --val_dataset PROJECT/runs/demo_cpu_orpo-TIME/data/val.jsonl \
    --output_dir PROJECT/runs/demo_cpu_orpo-TIME/train \
    --add_version false \
    --logging_nan_inf_filter false \
    --external_plugins PROJECT/src/palmswift/launchers/plugins/run_events.py PROJECT/src/palmswift/launchers/plugins/exact_resume.py PROJECT/src/palmswift/launchers/plugins/orderly_stop.py \
    --model_type qwen3 \
    --template qwen3 \
    --tuner_type lora \
    --torch_dtype float32 \
    --use_cpu true \
    --enable_thinking false \
    --add_non_thinking_prefix true \
    --preserve_thinking false \
    --loss_scale last_round+ignore_empty_think \
    --split_dataset_ratio 0 \
    --max_length 256 \
    --truncation_strategy delete \
    --dataset_num_proc 1 \
    --load_from_cache_file false \
    --dataloader_num_workers 0 \
    --seed 42 \
    --data_seed 42 \
    --per_device_train_batch_size 7 \
    --per_device_eval_batch_size 6 \
    --gradient_accumulation_steps 1 \
    --gradient_checkpointing false \
    --optim adamw_torch_fused \
    --lr_scheduler_type cosine \
    --warmup_ratio 0.05 \
    --eval_strategy epoch \
    --eval_steps 100 \
    --save_strategy epoch \
    --save_steps 100 \
    --save_total_limit 2 \
    --load_best_model_at_end true \
    --logging_steps 5 \
    --report_to tensorboard \
    --check_model false \
    --lora_rank 16 \
    --lora_alpha 32 \
    --lora_dropout 0.0 \
    --target_modules all-linear \
    --beta 1.0 \
    --num_train_epochs 6 \
    --learning_rate 0.002 \
    --metric_for_best_model eval_loss \
    --greater_is_better false
