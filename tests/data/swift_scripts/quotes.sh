export WANDB_API_KEY="abc"   # never kept
export PYTORCH_CUDA_ALLOC_CONF='expandable_segments:True'
swift sft --model Qwen/Qwen3-8B --dataset "a \"quoted\" name.jsonl" \
    --system "Dr. O'Neill: \$5, \`code\` and \\ stay" --lr_scheduler_type cosine_with_min_lr \
    --lr_scheduler_kwargs '{"min_lr": 1e-6}' --gradient_checkpointing_kwargs='{"use_reentrant": false}' \
    --model_author '魔搭 a' "ModelScope b" --columns '{"问题": "query"}' \
    --run_name=first\ run --max_length 4096 --seed=7
