RANK=${1:-8}
if [ -n "${HF_ENDPOINT:-}" ]; then
    SOURCE="--use_hf true"
fi
for seed in 1 2; do
    python -m swift.cli.sft --model Qwen/Qwen3-0.6B --dataset rows.jsonl \
        --lora_rank "$RANK" --seed 3 --max_length 512
done
cat <<'END' > notes.txt
swift sft --this is text
END
