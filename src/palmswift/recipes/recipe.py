"""What a recipe is: one fine-tune, written down, with ms-swift's own argument names."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from palmswift.recipes.launch import LaunchSettings

SwiftValue = str | int | float | bool | list[str] | list[int] | list[float] | dict[str, object]
"""What an ms-swift argument can be set to; a list becomes several words, a map becomes JSON."""

Task = Literal["sft", "pt", "dpo", "cpo", "orpo", "simpo", "kto", "grpo", "gkd"]
"""The kind of training; all but `sft` and `pt` are rendered as `swift rlhf --rlhf_type TASK`."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class EmbeddedModel(_Section):
    """The shape of a small Qwen3 that palmswift makes on the spot from a seed."""

    hidden_size: int = Field(default=128, ge=8)
    intermediate_size: int = Field(default=384, ge=8)
    num_hidden_layers: int = Field(default=2, ge=1)
    num_attention_heads: int = Field(default=2, ge=1)
    num_key_value_heads: int = Field(default=1, ge=1)
    head_dim: int = Field(default=64, ge=8)
    """64, so that vLLM's CPU attention takes the model too."""
    vocab_size: int = Field(default=1200, ge=300)
    seed: int = 0
    corpus: list[str] = Field(default_factory=list)
    """JSONL files of `messages` that the byte-level BPE tokenizer is learnt from."""


class ModelSource(_Section):
    """The model that is tuned, and where it comes from."""

    id: str
    """A hub id, a folder, the name of an embedded model, or the recipe that makes the model."""
    source: Literal["modelscope", "huggingface", "local", "embedded", "recipe"] = "modelscope"
    """`embedded` is made here from a seed; `recipe` is what the recipe called `id` trains."""
    revision: str | None = None
    embedded: EmbeddedModel | None = None

    @model_validator(mode="after")
    def _shape_only_for_embedded(self) -> ModelSource:
        if (self.embedded is not None) != (self.source == "embedded"):
            raise ValueError("`embedded` (the shape) and `source: embedded` go together")
        return self


class DataSettings(_Section):
    """Which rows are trained on and which are held out."""

    train: list[str] = Field(default_factory=list)
    """Files, relative to the project or absolute; `--data` on the command line replaces them."""
    val: list[str] = Field(default_factory=list)
    """Validation files; without any, `val_ratio` of the rows is held out."""
    val_ratio: float = Field(default=0.05, ge=0.0, lt=1.0)
    system: str | None = None
    """System prompt given to rows that have none; null leaves them without."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What a column is (`query`, `response`, `system`, `history`, `chosen`, ...) to its name."""
    rules: dict[str, str] = Field(default_factory=dict)
    """A check's code to what is done about it, such as `near_duplicate: reject`."""
    seed: int = 42


class ExportSettings(_Section):
    """What is made of a finished training run."""

    merge: bool = False
    """Merge the adapter into 16-bit weights when the training has ended, and serve those."""
    quant: Literal["awq", "gptq", "bnb", "fp8"] | None = None
    """Quantise the result at the end of a pipeline, into `export/` of the run."""
    bits: int | None = Field(default=None, ge=2, le=8)
    """Bits of `quant`; null: 4, and 8 for fp8."""
    gguf: str | None = None
    """GGUF for llama.cpp at the end of a pipeline: its type, such as `q4_k_m`."""
    ollama: bool = False
    """An Ollama Modelfile beside the GGUF."""

    @model_validator(mode="after")
    def _bits_of_something(self) -> ExportSettings:
        if self.bits is not None and self.quant is None:
            raise ValueError("`bits` is a property of `quant`")
        return self


class RecoverySettings(_Section):
    """What is done when a training fails in a way that can be mended."""

    attempts: int = Field(default=4, ge=1, le=16)
    """How often it is launched at most by one command; 1: never again."""
    allow: list[Literal["length", "rank"]] = Field(default_factory=list)
    """What may be given up for it to fit the memory: long rows, the adapter's rank."""


class DeploySettings(_Section):
    """How the result is served."""

    backend: Literal["transformers", "vllm", "sglang", "lmdeploy"] = "transformers"
    """What computes the answers."""
    server: Literal["swift", "vllm"] = "swift"
    """Who speaks HTTP: `swift deploy`, or vLLM's own server (which computes with vLLM)."""
    parity: bool = True
    """Before it is ready, compare the server with the trained model (deploy/parity.py)."""
    port: int = Field(default=8000, ge=1, le=65535)
    served_name: str | None = None
    """The model name that clients send; the recipe's name when null."""
    ready_timeout: float = Field(default=600.0, gt=0)
    """Seconds until the first real completion has to have come back."""
    swift: dict[str, SwiftValue] = Field(default_factory=dict)
    """Further `swift deploy` arguments."""


class EvalSettings(_Section):
    """How the result is tested."""

    suite: str | None = None
    """Suite YAML, relative to the project; null: the rows that were held out are asked."""
    also: list[str] = Field(default_factory=list)
    """Further suites to ask, such as eval/suites/general.yaml for what should not be forgotten and
    eval/suites/safety.yaml; each has a verdict of its own."""
    baseline: bool = True
    """Test the untouched base as well, for comparison."""
    concurrency: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    max_samples: int | None = Field(default=None, ge=1)


class Budget(_Section):
    """What the recipe needs of the machine."""

    gpu_mib: int = Field(ge=0)
    """GPU memory in MiB that it is made for; 0: it runs on the CPU."""
    disk_mib: int = Field(default=1024, ge=0)
    """Free disk that model, checkpoints and results need together."""
    measured_peak_mib: int | None = None
    """Peak allocated GPU memory that a record in benchmarks/records measured; null: none yet."""


class Recipe(_Section):
    """One fine-tune. Unknown keys are refused; `swift` is checked against the flag catalogue."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Names run folders and the served model: letters, digits, `_`, `-` and `.` only."""
    summary: str
    """One line for lists and tables."""
    base: str | None = None
    """The recipe in recipes/bases that this one differs from (one level deep)."""
    task: Task = "sft"
    model: ModelSource
    teacher: ModelSource | None = None
    """The model that is imitated; only where the task is gkd, or grpo with a teacher."""
    data: DataSettings = Field(default_factory=DataSettings)
    swift: dict[str, SwiftValue] = Field(default_factory=dict)
    """Arguments of `swift sft|pt|rlhf`, by their own names."""
    env: dict[str, str] = Field(default_factory=dict)
    plugins: list[str] = Field(default_factory=list)
    """Shipped plugins by name, or Python files of your own, given as `--external_plugins`."""
    launch: LaunchSettings = Field(default_factory=LaunchSettings)
    recovery: RecoverySettings = Field(default_factory=RecoverySettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    deploy: DeploySettings = Field(default_factory=DeploySettings)
    eval: EvalSettings = Field(default_factory=EvalSettings)
    budget: Budget

    @property
    def swift_command(self) -> Literal["sft", "pt", "rlhf"]:
        """The ms-swift command that trains this task."""
        return self.task if self.task in ("sft", "pt") else "rlhf"

    @property
    def needs_gpu(self) -> bool:
        """Whether the recipe is made for a GPU."""
        return self.budget.gpu_mib > 0

    @property
    def served_name(self) -> str:
        """The model name that clients of the served result send."""
        return self.deploy.served_name or self.name


def flag_words(value: SwiftValue) -> list[str]:
    """The words of one argument as ms-swift's parser reads them (swift/cli/main.py).

    A list becomes several words, a map becomes JSON, a bool `true` or `false`.
    """
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, list):
        return [str(word) for word in value]
    if isinstance(value, dict):
        return [json.dumps(value, ensure_ascii=False)]
    return [str(value)]
