"""The shapes of dense Qwen3 models: their config.json, and how many numbers that makes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from palmswift.files import is_file
from palmswift.paths import user_path


class Linear(NamedTuple):
    """Inputs and outputs of a linear layer."""

    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return self.inputs * self.outputs


class Shape(NamedTuple):
    """A dense Qwen3, by the names of its config.json."""

    hidden: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    """Whether the head is the embedding itself (tie_word_embeddings)."""
    positions: int = 40960
    """The longest context it was made for (max_position_embeddings)."""

    @property
    def query(self) -> int:
        """Width of all query heads together."""
        return self.query_heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, Linear]:
        """The linear layers of one decoder layer, by the names ms-swift targets."""
        return {
            "q_proj": Linear(self.hidden, self.query),
            "k_proj": Linear(self.hidden, self.key),
            "v_proj": Linear(self.hidden, self.key),
            "o_proj": Linear(self.query, self.hidden),
            "gate_proj": Linear(self.hidden, self.intermediate),
            "up_proj": Linear(self.hidden, self.intermediate),
            "down_proj": Linear(self.intermediate, self.hidden),
        }

    @property
    def linear_weights(self) -> int:
        """Numbers in all linear layers of all decoder layers."""
        return self.layers * sum(linear.weights for linear in self.linears.values())

    @property
    def embedding_weights(self) -> int:
        """Numbers in the embedding, and in the head where it is not tied."""
        return self.vocab * self.hidden

    @property
    def norm_weights(self) -> int:
        """Numbers in all norms."""
        return self.layers * (2 * self.hidden + 2 * self.head_dim) + self.hidden

    @property
    def numbers(self) -> int:
        """All parameters."""
        embeddings = self.embedding_weights * (1 if self.tied else 2)
        return self.linear_weights + embeddings + self.norm_weights


QWEN3 = {
    "0.6B": Shape(1024, 28, 16, 8, 128, 3072, 151936, True),
    "1.7B": Shape(2048, 28, 16, 8, 128, 6144, 151936, True),
    "4B": Shape(2560, 36, 32, 8, 128, 9728, 151936, True),
    "8B": Shape(4096, 36, 32, 8, 128, 12288, 151936, False),
    "14B": Shape(5120, 40, 40, 8, 128, 17408, 151936, False),
}
"""The dense models by size, from the config.json of Qwen/Qwen3-SIZE."""

_NAMED = re.compile(r"qwen3-(?P<size>\d+(?:\.\d+)?B)(?!-A\d)(?P<rest>.*)", re.IGNORECASE)


def shape_of(model_id: str) -> Shape | None:
    """The shape of a folder with a Qwen3 config.json, or of a hub id: fetched already, or known.

    None: neither, or a mixture of experts, which the memory model does not know.
    """
    for config in _configs(model_id):
        if is_file(config):
            return _from_config(config)
    named = _NAMED.search(model_id)
    if named is None:
        return None
    shape = QWEN3.get(named["size"].upper())
    if shape is not None and "2507" in named["rest"]:
        return shape._replace(positions=262144)
    return shape


def _configs(model_id: str) -> Iterator[Path]:
    """Where a model's config.json may lie: in its folder, or in ModelScope's or HF's cache."""
    yield user_path(model_id) / "config.json"
    if model_id.count("/") != 1 or model_id.startswith((".", "/", "~")):
        return
    home = Path("~").expanduser()
    modelscope = Path(os.environ.get("MODELSCOPE_CACHE", home / ".cache/modelscope/hub"))
    owner, name = model_id.split("/")
    for spelled in (name, name.replace(".", "___")):  # modelscope writes dots so
        yield modelscope / "models" / owner / spelled / "config.json"
        yield modelscope / owner / spelled / "config.json"
    huggingface = Path(os.environ.get("HF_HOME", home / ".cache/huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", huggingface / "hub"))
    yield from sorted((hub / f"models--{owner}--{name}").glob("snapshots/*/config.json"))


def _from_config(path: Path) -> Shape | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["model_type"] != "qwen3":
            return None
        return Shape(
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            query_heads=int(config["num_attention_heads"]),
            kv_heads=int(config["num_key_value_heads"]),
            head_dim=int(config["head_dim"]),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            tied=bool(config["tie_word_embeddings"]),
            positions=int(config.get("max_position_embeddings", 40960)),
        )
    except (OSError, ValueError, KeyError, TypeError):  # not a config that this model can use
        return None
