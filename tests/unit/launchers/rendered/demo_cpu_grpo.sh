#!/usr/bin/env bash
# demo_cpu_grpo: GRPO on a CPU, with a built-in reward and one from a file
set -euo pipefail
export PYTHONUNBUFFERED=1
export CUDA_VISIBLE_DEVICES=
export OMP_NUM_THREADS=1
exec swift rlhf \
    --model demo_sums \
    --rlhf_type grpo \
    --dataset PROJECT/runs/demo_cpu_grpo-TIME/data/train.jsonl \
    --val_dataset PROJECT/runs/demo_cpu_grpo-TIME/data/val.jsonl \
    --output_dir PROJECT/runs/demo_cpu_grpo-TIME/train \
    --add_version false \
    --logging_nan_inf_filter false \
    --external_plugins PROJECT/src/palmswift/launchers/plugins/run_events.py PROJECT/src/palmswift/launchers/plugins/exact_resume.py PROJECT/src/palmswift/launchers/plugins/orderly_stop.py PROJECT/recipes/rewards/right_number.py \
    --model_type qwen3 \
    --template qwen3 \
    --tuner_type lora \
    --torch_dtype float32 \
    --use_cpu true \
    --enable_thinking true \
    --add_non_thinking_prefix false \
    --preserve_thinking false \
    --loss_scale last_round \
    --split_dataset_ratio 0 \
    --max_length 256 \
    --truncation_strategy delete \
    --dataset_num_proc 1 \
    --load_from_cache_file false \
    --dataloader_num_workers 0 \
    --seed 42 \
    --data_seed 42 \
    --per_device_train_batch_size 32 \
    --per_device_eval_batch_size 32 \
    --gradient_accumulation_steps 1 \
    --gradient_checkpointing false \
    --optim adamw_torch_fused \
    --lr_scheduler_type cosine \
    --warmup_ratio 0.05 \
    --eval_strategy steps \
    --eval_steps 20 \
    --save_strategy steps \
    --save_steps 20 \
    --save_total_limit 2 \
    --load_best_model_at_end true \
    --logging_steps 1 \
    --report_to tensorboard \
    --check_model false \
    --lora_rank 16 \
    --lora_alpha 32 \
    --lora_dropout 0.0 \
    --target_modules all-linear \
    --reward_funcs format right_number \
    --reward_weights 1.0 1.0 \
    --num_generations 8 \
    --max_completion_length 40 \
    --temperature 1.0 \
    --beta 0.0 \
    --learning_rate 0.002 \
    --max_steps 40 \
    --metric_for_best_model reward \
    --greater_is_better true \
    --log_completions true
