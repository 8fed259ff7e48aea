"""How likely texts are to models: python eval/perplexity.py --endpoint base=URL"""

from palmswift.eval.perplexity_command import main

if __name__ == "__main__":
    raise SystemExit(main())
