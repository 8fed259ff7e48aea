# Written for ms-swift 3.
NPROC_PER_NODE=1 CUDA_VISIBLE_DEVICES=0 \
swift sft \
    --model Qwen/Qwen3-0.6B \
    --train_type lora \
    --torch_dtype bfloat16 \
    --dataset 'AI-ModelScope/alpaca-gpt4-data-zh#500' rows.jsonl#200 \
    --custom_register_path own/dataset.py \
                           own/model.py \
    --loss_scale last_round_with_ignore_empty_think \
    --split_dataset_ratio 0.01 \
    --metric acc \
    --system 'You are a careful assistant.' \
    --target_modules q_proj v_proj \
    --max_length 2048
