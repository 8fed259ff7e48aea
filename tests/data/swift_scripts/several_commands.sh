echo "training" && swift sft \
    --model Qwen/Qwen3-1.7B \
    --dataset rows.jsonl \
    --tuner_type lora \
    --learning_rate 1e-4 \
    --max_length 2048

swift export \
    --adapters output/v0/checkpoint-100 \
    --merge_lora true

CUDA_VISIBLE_DEVICES=0 swift deploy \
    --adapters output/v0/checkpoint-100 \
    --infer_backend pt \
    --port 9000 \
    --served_model_name clinic \
    --max_batch_size 16 \
    --api_key secret

swift infer --adapters output/v0/checkpoint-100 --stream true
