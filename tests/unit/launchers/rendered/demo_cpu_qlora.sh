#!/usr/bin/env bash
# demo_cpu_qlora: The same adapter on a 4-bit base (NF4 through bitsandbytes on the CPU)
set -euo pipefail
export PYTHONUNBUFFERED=1
export CUDA_VISIBLE_DEVICES=
export OMP_NUM_THREADS=1
exec swift sft \
    --model demo_front_desk \
    --dataset PROJECT/runs/demo_cpu_qlora-TIME/data/train.jsonl \
    --val_dataset PROJECT/runs/demo_cpu_qlora-TIME/data/val.jsonl \
    --output_dir PROJECT/runs/demo_cpu_qlora-TIME/train \
    --add_version false \
    --logging_nan_inf_filter false \
    --external_plugins PROJECT/src/palmswift/launchers/plugins/run_events.py PROJECT/src/palmswift/launchers/plugins/exact_resume.py PROJECT/src/palmswift/launchers/plugins/orderly_stop.py \
    --model_type qwen3 \
    --template qwen3 \
    --tuner_type lora \
    --torch_dtype bfloat16 \
    --use_cpu true \
    --enable_thinking false \
    --add_non_thinking_prefix true \
    --preserve_thinking false \
    --loss_scale default+ignore_empty_think \
    --split_dataset_ratio 0 \
    --max_length 256 \
    --truncation_strategy delete \
    --dataset_num_proc 1 \
    --load_from_cache_file false \
    --dataloader_num_workers 0 \
    --seed 42 \
    --data_seed 42 \
    --per_device_train_batch_size 10 \
    --per_device_eval_batch_size 10 \
    --gradient_accumulation_steps 1 \
    --gradient_checkpointing false \
    --optim adamw_torch_fused \
    --lr_scheduler_type cosine \
    --warmup_ratio 0.05 \
    --eval_strategy steps \
    --eval_steps 100 \
    --save_strategy steps \
    --save_steps 100 \
    --save_total_limit 2 \
    --load_best_model_at_end false \
    --logging_steps 5 \
    --report_to tensorboard \
    --check_model false \
    --lora_rank 32 \
    --lora_alpha 64 \
    --lora_dropout 0.0 \
    --target_modules all-linear \
    --quant_method bnb \
    --quant_bits 4 \
    --bnb_4bit_compute_dtype bfloat16 \
    --bnb_4bit_quant_type nf4 \
    --bnb_4bit_use_double_quant true \
    --num_train_epochs 20 \
    --learning_rate 0.005
