"""Tell whether a recipe fits the GPU: python launchers/plan.py --recipe qwen3_8b_4bit"""

from palmswift.plan.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
