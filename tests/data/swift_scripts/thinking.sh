swift sft \
    --model Qwen/Qwen3-4B-Thinking-2507 \
    --dataset thoughts.jsonl \
    --tuner_type lora \
    --lora-rank 32 \
    --packing true --attn_impl flash_attn \
    --use_liger_kernel true \
    --max_length 16384 \
    --report_to tensorboard swanlab
