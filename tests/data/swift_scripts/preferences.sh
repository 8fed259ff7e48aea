nohup swift rlhf \
    --rlhf_type dpo \
    --model Qwen/Qwen3-4B-Instruct-2507 \
    --dataset pairs.jsonl \
    --tuner_type lora \
    --beta 0.1 \
    --rpo_alpha 0.1 \
    --max_length 2048 > dpo.log 2>&1 &
