MAX_PIXELS=1003520 swift infer \
    --model Qwen/Qwen3-4B-Thinking-2507 \
    --attn_impl sdpa \
    --max_length 8192 \
    --infer_backend pt \
    --stream true \
    --val_dataset questions.jsonl
