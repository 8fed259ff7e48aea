torchrun --nproc_per_node 2 swift/cli/pt.py \
    --model Qwen/Qwen3-0.6B-Base \
    --tuner_type full \
    --dataset corpus.txt \
    --streaming true \
    --max_steps 1000 \
    --max_length 8192 \
    --no_train_dataloader_shuffle
