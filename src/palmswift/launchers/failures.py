"""The ways in which a training, export or server of ms-swift fails, and what to do about each.

`diagnosis.py` tries them in the order that they stand in: the particular before the general, and
what is only the consequence of another failure (a peer that is gone) last. docs/failures.md is
written from this table: `python -m palmswift.launchers.failure_table`.
"""

from __future__ import annotations

from typing import NamedTuple


class Failure(NamedTuple):
    """One class of failure. Regular expressions are searched for; named groups fill in `cause`."""

    kind: str
    """How it is called in messages, run.json and the docs; it is never renamed."""
    cause: str
    """What happened; `{detail}` and other groups are of the expression that matched."""
    remedy: str
    raised: str = ""
    """In an exception that ended the program: its type and message, as Python prints them."""
    where: str = ""
    """In one of that exception's calls, as `file:function`."""
    line: str = ""
    """At the start of a line that is no exception's, among the last that were printed."""


ANYTHING = r"(?P<said>(?s:.{0,200}))"
"""Any exception at all, where its calls say what it is."""

_STATUS = "python3 quickstart.py status says which versions fit each other"
_INSTALL = "python3 quickstart.py install"
_REPORT = "data/report.html in the run folder says which rows were rejected, and why"
_RESUME = "start a new run: a run goes on only with the settings that it began with"
_CHECK = "palmswift recipes check NAME tells every argument that this ms-swift refuses"

FAILURES: tuple[Failure, ...] = (
    Failure(
        "interrupted",
        "it was interrupted",
        "go on with it when you like: its checkpoints are kept",
        raised=r"^KeyboardInterrupt\b",
    ),
    # What the system ran out of
    Failure(
        "host_memory",
        "the computer's own memory (not the GPU's) ran out{asked}",
        "close other programs; fewer swift.dataloader_num_workers and swift.dataset_num_proc; "
        "without the offloading plugins",
        raised=r"(?s)DefaultCPUAllocator: .*?tried to allocate (?P<bytes>\d+) bytes"
        r"|^MemoryError\b|\[Errno 12\] Cannot allocate memory|std::bad_alloc"
        r"|unable to (?:mmap|allocate) \d+ bytes.*Cannot allocate memory",
    ),
    Failure(
        "disk_full",
        "the disk is full{file}",
        "make room (runs/*/train holds the checkpoints; a smaller swift.save_total_limit), then "
        "resume the run",
        raised=r"No space left on device(?: \(os error 28\))?(?:: '(?P<file>[^']+)')?"
        r"|PytorchStreamWriter failed writing file|not enough disk space",
    ),
    Failure(
        "disk_quota",
        "your share of the disk is used up (quota){file}",
        "delete what is not needed, or put the runs on another disk, then resume the run",
        raised=r"Disk quota exceeded(?:: '(?P<file>[^']+)')?",
    ),
    Failure(
        "read_only",
        "the file system can only be read{file}",
        "a run's folder must be writable: work in a copy of the project on another disk",
        raised=r"Read-only file system(?:: '(?P<file>[^']+)')?",
    ),
    Failure(
        "not_permitted",
        "you may not write or read there{file}",
        "chown it, or work in a folder of your own",
        raised=r"^PermissionError: (?:\[Errno 13\] )?[^:]*(?:: '(?P<file>[^']+)')?",
    ),
    Failure(
        "too_many_files",
        "the system's limit of open files was reached",
        "ulimit -n 65536 before the command; fewer swift.dataloader_num_workers",
        raised=r"Too many open files|received 0 items of ancdata",
    ),
    Failure(
        "file_system",
        "the file system failed for a moment or for good ({detail}){file}",
        "look at the disk or the network mount (dmesg, df), then resume the run",
        raised=r"\[Errno \d+\] (?P<detail>Input/output error|Stale file handle|Remote I/O error"
        r"|Transport endpoint is not connected|Host is down|Connection timed out)"
        r"(?:: '(?P<file>[^']+)')?|fd \d+ failed with (?P<other>Stale file handle)"
        r"|(?P<third>Input/output error|Stale file handle) \(os error \d+\)",
    ),
    # The GPU and what drives it
    Failure(
        "driver_too_old",
        "the NVIDIA driver is too old for this torch: CUDA {detail}",
        "update the driver, or python3 quickstart.py install --gpu --fresh, which takes the torch "
        "that fits it",
        raised=r"NVIDIA driver on your system is too old \(found version (?P<detail>\d+)\)"
        r"|CUDA driver version is insufficient for CUDA runtime version",
    ),
    Failure(
        "no_cuda",
        "there is no GPU that this torch can use",
        "nvidia-smi shows what the driver sees; python3 quickstart.py install --gpu if torch is a "
        "CPU build; unset CUDA_VISIBLE_DEVICES",
        raised=r"Torch not compiled with CUDA enabled|No CUDA GPUs are available"
        r"|Found no NVIDIA driver on your system|CUDA error: no CUDA-capable device"
        r"|CUDA error: invalid device ordinal|CUDA unknown error",
    ),
    Failure(
        "gpu_too_old",
        "this torch or another package has no code for this GPU's generation",
        "python3 quickstart.py install --gpu --fresh takes a torch that knows the card; " + _STATUS,
        raised=r"no kernel image is available for execution on the device"
        r"|not compatible with the current PyTorch installation"
        r"|FlashAttention only supports Ampere GPUs or newer",
    ),
    Failure(
        "gpu_fault",
        "the GPU reported a fault of its own ({detail})",
        "once: resume the run; again: restart the computer, less overclocking, look for Xid in "
        "dmesg: the card may be defective",
        raised=r"CUDA error: (?P<detail>uncorrectable ECC error encountered|unspecified launch "
        r"failure|an illegal memory access was encountered|an illegal instruction was encountered"
        r"|the launch timed out and was terminated|misaligned address)|(?P<other>GPU is lost)",
    ),
    Failure(
        "device_assert",
        "a number was out of range on the GPU (most often a token that the embedding lacks)",
        "CUDA_LAUNCH_BLOCKING=1 shows where; tokenizer and model must be of one model",
        raised=r"CUDA error: device-side assert triggered",
    ),
    Failure(
        "bitsandbytes",
        "bitsandbytes does not fit the CUDA that is installed",
        _STATUS + "; " + _INSTALL + " puts the tested ones back",
        raised=r"(?si)bitsandbytes.{0,400}(?:CUDA|libcuda|not compiled)|libbitsandbytes\S+\.so"
        r"|CUDA Setup failed despite (?:CUDA|GPU) being available"
        r"|`bitsandbytes`.{0,80}(?:requires|latest version)",
        line=r"Could not (?:find the|load) bitsandbytes (?:CUDA binary|native library)"
        r"|\s*CUDA Setup failed despite (?:CUDA|GPU) being available",
    ),
    Failure(
        "no_compiler",
        "Triton or torch.compile could not build a kernel ({detail})",
        "install a C compiler (apt install build-essential python3-dev), or leave "
        "swift.torch_compile and swift.use_liger_kernel out",
        raised=r"(?P<detail>Failed to find C compiler|Python\.h: No such file"
        r"|C\+\+ compile error|(?:Inductor|Triton|Compilation)Error|CppCompileError"
        r"|Cannot find a working triton installation|ptxas (?:error|fatal))",
    ),
    Failure(
        "binary_mismatch",
        "a package was built for other versions than are installed: {detail}",
        _INSTALL + " puts the tested set back; --fresh makes the environment anew",
        raised=r"(?s)(?P<detail>[\w.+-]+\.so[\w.]*): undefined symbol"
        r"|(?P<numpy>numpy\.dtype size changed)"
        r"|(?P<abi>compiled using NumPy 1\.x cannot be run in\s+NumPy 2)"
        r"|version `(?P<libc>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found"
        r"|(?P<magic>bad magic number in|Python version mismatch: module was compiled)",
    ),
    Failure(
        "no_bf16",
        "bf16 was asked for where it is not supported",
        "on the CPU a recipe needs swift.use_cpu: true; on a GPU older than Ampere "
        "swift.torch_dtype: float16",
        raised=r"Your setup doesn't support bf16/gpu|does not support bfloat16"
        r"|bf16 is not supported|BFloat16 is not supported on",
    ),
    Failure(
        "no_flash_attention",
        "flash attention was asked for, and its package is not there or does not fit",
        "leave swift.attn_impl out (sdpa is nearly as fast), or install flash-attn for this torch",
        raised=r"FlashAttention\w* has been toggled on, but it cannot be used"
        r"|No module named 'flash_attn[\w.]*'|flash_attn is not installed"
        r"|flash_attn_2_cuda.*undefined symbol",
    ),
    # Code of the user's own
    Failure(
        "reward_raised",
        "a reward function raised {said}",
        "it is called with lists (completions, and one for each column of the rows): try it alone",
        raised=ANYTHING,
        where=r"(?:grpo_algorithm|grpo_trainer|gkd_trainer)\.py:.*compute_rewards_per_func",
    ),
    Failure(
        "reward_unknown",
        "there is no reward function called {detail}",
        "a plugin registers it: `orms['NAME'] = Class`, and swift.reward_funcs names it",
        raised=r"reward_function (?P<detail>\S+) is not implemented",
    ),
    Failure(
        "plugin_raised",
        "a plugin could not be loaded: {said}",
        "run it alone: python FILE shows the same error",
        raised=ANYTHING,
        where=r"utils\.py:import_external_file",
    ),
    # Arguments
    Failure(
        "unknown_argument",
        "the installed ms-swift does not know {detail}",
        "python3 quickstart.py status compares the versions; " + _CHECK,
        raised=r"remaining_argv: (?P<detail>\[.{0,200}\])",
    ),
    Failure(
        "bad_targets",
        "the model has no layers called {detail}",
        "swift.target_modules: [all-linear] fits every model; Qwen3's are q_proj and its like",
        raised=r"Target modules? (?P<detail>.{1,120}?) (?:was )?not found in the base model",
    ),
    # What is gone on with
    Failure(
        "resume_torn",
        "the checkpoint that was to be gone on with is damaged: {said}",
        "delete that checkpoint's folder and resume: the one before it is taken",
        raised=r"(?P<said>PytorchStreamReader failed reading.{0,80}|.*deserializing header[^\n]*"
        r"|.*JSONDecodeError[^\n]*|.*(?:EOFError|UnpicklingError)[^\n]*)",
        where=r"trainer\.py:(?:train|_load_optimizer_and_scheduler|_load_from_checkpoint"
        r"|_load_rng_state)|trainer_callback\.py:load_from_json"
        r"|tuner\.py:prepare_model|save_and_load\.py:load_peft_weights",
    ),
    Failure(
        "resume_mismatch",
        "the checkpoint was made with other settings: {said}",
        _RESUME,
        raised=r"(?P<said>loaded state dict (?:contains a parameter group|has a different number)"
        r"[^\n]{0,120}|KeyError: '(?:betas|momentum|exp_avg|lr|eps|weight_decay)'"
        r"|size mismatch for \S*lora_[^\n]{0,120}|Can't find a valid checkpoint at[^\n]{0,120})",
    ),
    Failure(
        "resume_missing",
        "the checkpoint that was to be gone on with is not there: {detail}",
        "python launchers/train.py --resume RUN finds the last whole one by itself",
        raised=r"^FileNotFoundError: path: '(?P<detail>[^']+)'",
    ),
    # The model
    Failure(
        "unknown_model_type",
        "this transformers does not know models of type {detail}",
        "recipes are for Qwen3; for a newer model a newer ms-swift and transformers: " + _STATUS,
        raised=r"has model type `(?P<detail>[^`]+)` but Transformers does not recognize"
        r"|(?P<swift>model_type: '[^']+') not in \[|requires transformers>=(?P<need>[\d.]+)",
    ),
    Failure(
        "ambiguous_type",
        "ms-swift cannot tell the {what} from the model's folder; it may be {detail}",
        "say it, for a Qwen3 chat model: --set swift.model_type=qwen3 --set swift.template=qwen3",
        raised=r"(?s)Failed to automatically match `(?P<what>model_type|template)`"
        r"(?:.*?Multiple possible types found: (?P<detail>\[[^\]]*\]))?",
    ),
    Failure(
        "unknown_template",
        "ms-swift has no template called {detail}",
        "for Qwen3: --set swift.template=qwen3",
        raised=r"template_type: '(?P<detail>[^']+)' not in \[",
    ),
    Failure(
        "bad_value",
        "an argument has a value that ms-swift refuses: {detail}",
        _CHECK,
        raised=r"Unknown (?P<detail>tuner_type: \S+)|(?P<choice>\w+: '[^']*') not in \["
        r"|(?P<strategy>--load_best_model_at_end requires the save and eval strategy to match)"
        r"|(?P<steps>--load_best_model_at_end requires the saving steps to be a round multiple)"
        r"|(?P<metric>The `metric_for_best_model` training argument is set to '[^']*', which is "
        r"not found)|(?P<enum>'[^']*' is not a valid \w+, please select one of .{0,160})",
        line=r"\S+\.py: error: (?P<detail>argument [^\n]{1,200})",
    ),
    Failure(
        "tokenizer_mismatch",
        "the tokenizer does not belong to the model: a token is beyond its embedding",
        "take tokenizer and weights from one folder of one model",
        raised=r"^IndexError: index out of range in self",
    ),
    Failure(
        "broken_tokenizer",
        "the model's tokenizer is missing or damaged: {said}",
        "delete the model's folder and let it be fetched again",
        raised=ANYTHING,
        where=r"tokenization_(?:auto|utils_base|utils_tokenizers)\.py:",
    ),
    Failure(
        "broken_model",
        "the model's files are missing or damaged: {said}",
        "delete the model's folder and let it be fetched again",
        raised=r"(?P<said>.*(?:Error while deserializing header|no file named \S+\.(?:safetensors"
        r"|bin|json)|invalid JSON file|does not appear to have a file named|Unrecognized model in)"
        r"[^\n]{0,120}|You set `ignore_mismatched_sizes` to `False`|size mismatch for[^\n]{0,120})",
    ),
    Failure(
        "missing_model",
        "there is no model at {detail}",
        "--set model.source=local --set model.id=FOLDER, a folder with config.json in it",
        raised=r"^ValueError: path: '(?P<detail>[^']+)' not found",
    ),
    Failure(
        "port_taken",
        "the port is taken{port}",
        "a run of before may still be there (ps); another with env MASTER_PORT or --port",
        raised=r"(?i)address already in use(?:.*?port[:=]? ?(?P<port>\d+))?|EADDRINUSE",
        line=r"(?i).*The server socket has failed to (?:listen|bind)"
        r"|.*error while attempting to bind.*address already in use",
    ),
    # Hubs and the network
    Failure(
        "hub_auth",
        "the model hub wants you to log in, or to accept the model's terms ({detail})",
        "accept its terms on its page, then export HF_TOKEN (or MODELSCOPE_API_TOKEN)",
        raised=r"(?P<detail>GatedRepoError|401 Client Error|403 Client Error|Access to model \S+ "
        r"is restricted|Invalid (?:user )?token|Unauthorized for url)",
    ),
    Failure(
        "hub_not_found",
        "the model hub has no {detail}",
        "look at its name; the same model may be on the other hub: --set model.source=huggingface "
        "or modelscope",
        raised=r"(?s)RepositoryNotFoundError.*?/api/models/(?P<detail>[^/\s]+/[^/\s]+)"
        r"|(?P<revision>RevisionNotFoundError)|(?P<other>The request model: \S+) does not exist"
        r"|(?P<entry>EntryNotFoundError: 404)|404 Client Error: Not Found for url: (?P<url>\S+)",
    ),
    Failure(
        "offline",
        "the model is not on this computer, and hubs may not be asked (offline mode)",
        "unset HF_HUB_OFFLINE and MODELSCOPE_OFFLINE, or give a local folder: "
        "--set model.source=local --set model.id=PATH",
        raised=r"outgoing traffic has been disabled|OfflineModeIsEnabled|offline mode is enabled",
    ),
    Failure(
        "network",
        "the model hub could not be reached{host}",
        "check the network, or give a local folder: --set model.source=local --set model.id=PATH",
        raised=r"\bConnectionError|Max retries exceeded with url|ConnectError|\bNetworkError"
        r"|Name or service not known|Temporary failure in name resolution|LocalEntryNotFoundError"
        r"|ReadTimeout|ConnectTimeout|Remote end closed connection"
        r"|IncompleteRead|ChunkedEncodingError|SSLError|50[0234] Server Error",
    ),
    # Packages
    Failure(
        "missing_package",
        "a Python package is missing: {detail}",
        _INSTALL + "; one that the recipe alone needs: pip install it into .venv",
        raised=r"No module named '(?P<detail>[^']+)'"
        r"|The '(?P<other>[\w-]+)[^']*' distribution was not found"
        r"|ImportError: .{0,80}?requires? the (?P<third>[\w-]+) (?:library|package)",
    ),
    # Data
    Failure(
        "dataset_cache",
        "a cached copy of the data set is damaged",
        "delete ~/.cache/huggingface/datasets, or swift.load_from_cache_file: false",
        raised=r"ArrowInvalid: .*(?:[Ee]xpected to read|Not an Arrow file|not an Arrow file|Tried "
        r"reading schema|Expected to be able to read)|Invalid flatbuffers message",
        where=r"arrow_(?:dataset|reader)\.py:|table\.py:|builder\.py:",
    ),
    Failure(
        "missing_data",
        "there is no data file at {detail}",
        "python launchers/train.py --resume makes the run's data anew where its inputs are there",
        raised=r"The local path does not exist, dataset_id: `(?P<detail>[^`]+)`",
    ),
    Failure(
        "broken_data",
        "a data file or row cannot be read: {said}",
        "python data/sanitize.py FILE tells every broken row and leaves it out",
        raised=r"(?P<said>.*(?:JSON parse error|DatasetGenerationError|DatasetGenerationCastError"
        r"|Unmatched ''\"'|message: \{'role')[^\n]{0,160})",
    ),
    Failure(
        "no_steps",
        "there are fewer rows than one batch takes, so no step could be taken",
        "a smaller swift.per_device_train_batch_size, or swift.dataloader_drop_last: false",
        raised=r"max_steps must be set to a positive value if dataloader does not have a length",
    ),
    Failure(
        "no_rows",
        "no row was left to train on{rows}",
        _REPORT,
        raised=r"num_samples=0|^TypeError: 'NoneType' object is not iterable"
        r"|^ZeroDivisionError: integer division or modulo by zero",
    ),
    # Several processes
    Failure(
        "hung",
        "the processes waited for each other in vain ({detail})",
        "look at each rank's last lines; a row that one rank alone chokes on is a common cause",
        raised=r"(?P<detail>Watchdog caught collective operation timeout[^\n]{0,80})"
        r"|(?P<gloo>Timed out waiting \d+ms for \w+ operation)",
        line=r".*(?P<detail>Watchdog caught collective operation timeout: \w+\(SeqNum=\d+, "
        r"OpType=\w+)",
    ),
    Failure(
        "shared_memory",
        "the data loader's shared memory (/dev/shm) is too small",
        "docker run --shm-size=8g, or swift.dataloader_num_workers: 0",
        raised=r"is killed by signal: Bus error|insufficient shared memory"
        r"|unable to (?:open|write to) shared memory|torch_shm_manager",
        line=r"ERROR: Unexpected bus error encountered in worker",
    ),
    Failure(
        "worker_killed",
        "a process that reads the data was killed ({detail})",
        "most often the computer's memory ran out: swift.dataloader_num_workers: 0",
        raised=r"DataLoader worker \(pid\(?s?\)? (?P<detail>[\d, ]+)\) (?:is killed by signal"
        r"|exited unexpectedly)",
    ),
    Failure(
        "peer_lost",
        "another process of the training was lost",
        "the log of the one that was lost says why; its last lines are above the others'",
        raised=r"Connection (?:closed by peer|reset by peer)|NCCL error: remote process exited"
        r"|ncclRemoteError|NCCL communicator was aborted|ChildFailedError"
        r"|Broken pipe.*gloo|gloo.*(?:Broken pipe|EnforceNotMet)",
    ),
)

ENDED_BY_SIGNAL: dict[int, tuple[str, str, str]] = {
    2: ("interrupted", "it was interrupted", "go on with it when you like"),
    6: (
        "aborted",
        "a library gave up (SIGABRT)",
        "the last lines of the log say which; " + _STATUS,
    ),
    7: (
        "shared_memory",
        "memory that was mapped is gone (SIGBUS): /dev/shm or the disk is too small",
        "docker run --shm-size=8g; look at df",
    ),
    9: (
        "killed",
        "the system killed the process (SIGKILL), most often because memory ran out",
        "close other programs, or take a smaller model",
    ),
    11: (
        "crashed",
        "a library crashed (SIGSEGV)",
        "packages that do not fit each other are the usual cause: " + _STATUS,
    ),
    15: (
        "terminated",
        "it was told to end (SIGTERM) from outside, such as by a job's time limit",
        "resume it; ask for more time",
    ),
}
"""Kind, cause and remedy of a child that a signal ended without a word."""
