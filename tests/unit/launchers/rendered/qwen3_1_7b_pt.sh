#!/usr/bin/env bash
# qwen3_1_7b_pt: Pre-training of Qwen3-1.7B on raw text, with a wide adapter on an 8 GB card
set -euo pipefail
export PYTHONUNBUFFERED=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
exec swift pt \
    --model Qwen/Qwen3-1.7B \
    --use_hf false \
    --dataset PROJECT/runs/qwen3_1_7b_pt-TIME/data/train.jsonl \
    --val_dataset PROJECT/runs/qwen3_1_7b_pt-TIME/data/val.jsonl \
    --output_dir PROJECT/runs/qwen3_1_7b_pt-TIME/train \
    --add_version false \
    --logging_nan_inf_filter false \
    --external_plugins PROJECT/src/palmswift/launchers/plugins/run_events.py PROJECT/src/palmswift/launchers/plugins/exact_resume.py PROJECT/src/palmswift/launchers/plugins/orderly_stop.py \
    --tuner_type lora \
    --target_modules all-linear \
    --lora_rank 64 \
    --lora_alpha 128 \
    --lora_dropout 0.0 \
    --torch_dtype bfloat16 \
    --bf16 true \
    --learning_rate 0.0001 \
    --lr_scheduler_type cosine \
    --warmup_ratio 0.05 \
    --weight_decay 0.1 \
    --max_grad_norm 1.0 \
    --num_train_epochs 2 \
    --enable_thinking false \
    --add_non_thinking_prefix true \
    --preserve_thinking false \
    --loss_scale all \
    --split_dataset_ratio 0 \
    --max_length 2048 \
    --truncation_strategy delete \
    --dataset_num_proc 1 \
    --load_from_cache_file false \
    --dataloader_num_workers 1 \
    --seed 42 \
    --data_seed 42 \
    --per_device_train_batch_size 1 \
    --gradient_accumulation_steps 16 \
    --gradient_checkpointing true \
    --use_liger_kernel true \
    --optim adamw_8bit \
    --eval_strategy steps \
    --eval_steps 0.1 \
    --per_device_eval_batch_size 1 \
    --eval_accumulation_steps 1 \
    --prediction_loss_only true \
    --save_strategy steps \
    --save_steps 0.1 \
    --save_total_limit 2 \
    --load_best_model_at_end true \
    --metric_for_best_model eval_loss \
    --greater_is_better false \
    --logging_steps 5 \
    --report_to tensorboard \
    --check_model false \
    --model_type qwen3 \
    --template qwen3
