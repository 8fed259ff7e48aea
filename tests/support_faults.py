"""Runs trainings with planted faults: ms-swift is imported once, and a child forked for each.

`python tests/support_faults.py FOLDER MODEL NAME...`: the child's output is FOLDER/NAME.log, its
exit code FOLDER/NAME.code (negative: a signal, which the `swift` wrapper shows as 256 less), and
what it left is in FOLDER/NAME.work/.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from support_planted import PLANTED, ROOT, VAL, Fault, Job

COMMON: dict[str, object] = {
    **{"model_type": "qwen3", "template": "qwen3", "enable_thinking": "false"},
    **{"torch_dtype": "float32", "use_cpu": "true", "gradient_checkpointing": "false"},
    **{"tuner_type": "lora", "lora_rank": 4, "lora_dropout": 0, "target_modules": "all-linear"},
    **{"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4},
    **{"gradient_accumulation_steps": 1, "max_length": 256, "learning_rate": 1e-3},
    **{"max_steps": 2, "save_steps": 2, "logging_steps": 1, "eval_strategy": "no"},
    **{"split_dataset_ratio": 0, "dataset_num_proc": 1, "dataloader_num_workers": 0},
    **{"report_to": "none", "add_version": "false", "check_model": "false"},
    **{"load_from_cache_file": "false", "seed": 1, "data_seed": 1},
    "logging_nan_inf_filter": "false",
}
"""Arguments of a training of two steps that ends well."""


def run_faults(names: Iterable[str], folder: Path) -> dict[str, int]:
    """Run the trainings with these faults one after the other; their exit codes."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(folder / "model"), *names],
        env={
            **os.environ,
            **{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            **{"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {file.stem: int(file.read_text()) for file in folder.glob("*.code")}


def make_model(folder: Path) -> None:
    """A Qwen3 of two narrow layers, with its tokenizer."""
    from palmswift.hub.embedded import build_embedded
    from palmswift.recipes.recipe import EmbeddedModel

    spec = EmbeddedModel(
        corpus=["data/samples/clinic/train.jsonl"],
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
    )
    build_embedded(spec, [ROOT / path for path in spec.corpus], folder)


def _words(fault: Fault, work: Path, model: Path) -> list[str]:
    given = {"model": model, "dataset": VAL, "output_dir": work / "out"}
    words = []
    for name, value in {**given, **COMMON, **fault.arguments}.items():
        if value is not None:
            words += [f"--{name}", str(value).replace("{folder}", str(work))]
    return words


def _become(fault: Fault, work: Path, model: Path, log: Path) -> int:
    """Be `swift <command>` with the fault: the same script and words; its exit code."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update({name: v.replace("{folder}", str(work)) for name, v in fault.env.items()})
    package = find_spec("swift.cli")
    assert package is not None and package.origin is not None
    script = Path(package.origin).with_name(f"{fault.command}.py")
    words = _words(fault, work, model)
    if fault.plant is not None:
        fault.plant(Job(work, model, words))
    sys.argv = [str(script), *words]
    sys.path[0] = str(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001  # shown as the interpreter shows it
        _show_as_from(script, error)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _show_as_from(script: Path, error: BaseException) -> None:
    """The traceback without the frames above the script, as the interpreter would print it."""
    chained: BaseException | None = error
    while chained is not None:
        trace = chained.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
            trace = trace.tb_next
        if trace is not None:
            chained.__traceback__ = trace
        chained = chained.__cause__ or chained.__context__
    sys.excepthook(type(error), error, error.__traceback__)


def _child(fault: Fault, work: Path, model: Path, log: Path) -> None:
    """Run the fault's training and end as it does."""
    code = 99
    try:
        os.chdir(work)
        code = _become(fault, work, model, log)
    except Exception:  # noqa: BLE001  # the fault itself is wrong, which its log then says
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def main(argv: Sequence[str]) -> int:
    """Fork a child for each fault that is named, one after the other."""
    folder, model = Path(argv[0]), Path(argv[1])
    if not model.is_dir():
        make_model(model)
    # The parent pays for the imports.
    from swift.pipelines import rlhf_main, sft_main
    from swift.rlhf_trainers import GRPOTrainer
    from swift.trainers import Seq2SeqTrainer

    assert all((rlhf_main, sft_main, GRPOTrainer, Seq2SeqTrainer))
    for name in argv[2:]:
        work = folder / f"{name}.work"
        work.mkdir()
        child = os.fork()
        if child == 0:
            _child(PLANTED[name], work, model, folder / f"{name}.log")
        _, status = os.waitpid(child, 0)
        (folder / f"{name}.code").write_text(str(os.waitstatus_to_exitcode(status)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
