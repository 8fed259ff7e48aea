# The adapter's args.json names its model.
CUDA_VISIBLE_DEVICES=0 swift deploy \
    --model Qwen/Qwen3-8B \
    --host 0.0.0.0 \
    --port 8000 \
    --enable_thinking false \
    --infer_backend vllm \
    --vllm_max_model_len 8192 \
    --vllm_gpu_memory_utilization 0.9 \
    --served_model_name qwen
