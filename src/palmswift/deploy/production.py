"""The `production` command: a folder with all that runs a trained model for others to use."""

from __future__ import annotations

import argparse
import getpass
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.command import Console, Done, make_parser, run

if TYPE_CHECKING:
    from palmswift.deploy.spec import ServerSpec
    from palmswift.launchers.run_folder import RunFolder

EXAMPLES = """
python deploy/production.py --run latest --out production
python deploy/production.py --run latest --out production --replicas 2
python deploy/production.py --run latest --out production --machines 10.0.0.5 10.0.0.6
python deploy/production.py --run latest --out production --set vllm_max_model_len=4096
"""

_FILES = {
    "Dockerfile": "Dockerfile.j2",
    "compose.yaml": "compose.yaml.j2",
    "env.example": "env.example.j2",
    "prometheus.yml": "prometheus.yml.j2",
    "alerts.yml": "alerts.yml.j2",
    "kubernetes.yaml": "kubernetes.yaml.j2",
    "README.md": "README.md.j2",
}
"""What every folder has, and the template of it under deploy/templates/production."""

_MACHINE = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
_PORTED = re.compile(r":\d{1,5}$")

_FRONT_PORT = 8080
"""Where clients ask a balancer of several machines, one of which may have a server on --port."""

_IMAGES = {True: "vllm/vllm-openai:v0.32.0", False: "vllm/vllm-openai-cpu:v0.32.0"}
"""vLLM's own images, with and without a GPU."""


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "production.py",
        "Write Dockerfile, compose, systemd unit, Kubernetes manifest, metrics and a board for a "
        "run, served by vLLM as it was trained.",
        EXAMPLES,
    )
    parser.add_argument("--run", default="latest", metavar="RUN", help="`latest`, a name, a folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--port", type=int, default=8000, help="port on this machine (8000)")
    parser.add_argument("--replicas", type=int, default=1, help="servers side by side (1)")
    parser.add_argument(
        "--machines",
        nargs="+",
        default=[],
        metavar="HOST[:PORT]",
        help="a server on each of these machines, and one balancer before them",
    )
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=DIR", help="a further adapter"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="as in serve.py"
    )
    return parser


def slug_of(name: str) -> str:
    """The name as containers, units and pods may have it: lower case, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return slug or "model"


def mounts_of(spec: ServerSpec) -> dict[str, str]:
    """Folders of this machine to where they lie in a container."""
    from palmswift.deploy.vllm_server import adapters_of

    found = {spec.model: "/models/base"} if Path(spec.model).is_dir() else {}
    for number, folder in enumerate(adapters_of(spec).values()):
        found[str(folder)] = f"/models/adapter-{number}"
    return found


def _inside(words: Sequence[str], mounts: Mapping[str, str]) -> list[str]:
    """The words with every mounted folder's path as it is in the container."""
    return [
        next(
            (
                f"{word.removesuffix(host)}{target}"
                for host, target in mounts.items()
                if word == host or word.endswith(f"={host}")
            ),
            word,
        )
        for word in words
    ]


def variables(spec: ServerSpec, folder: RunFolder, out: Path, args: argparse.Namespace) -> Any:
    """What the templates are filled in with."""
    from palmswift import __version__
    from palmswift.deploy.server import server_command
    from palmswift.deploy.vllm_server import PROGRAM, served_names

    gpu = folder.recipe.needs_gpu
    mounts = mounts_of(spec)
    everywhere = spec.model_copy(update={"host": "0.0.0.0"})
    inside = server_command(everywhere, 8000, bounded=False).argv[len(PROGRAM) :]
    host = server_command(spec, args.port)
    begin = host.script.index("\nexec ") + 1
    slug = slug_of(spec.name)
    replicas = [f"server-{number + 1}" for number in range(args.replicas)]
    machines = [at if _PORTED.search(at) else f"{at}:{args.port}" for at in args.machines]
    balanced = len(machines or replicas) > 1
    return {
        "name": spec.name,
        "slug": slug,
        "run": folder.path.name,
        "version": __version__,
        "image": _IMAGES[gpu],
        "gpu": gpu,
        "env": {} if gpu else {"VLLM_CPU_KVCACHE_SPACE": "1"},
        "entrypoint": ["python3", *PROGRAM[1:]],
        "words": _inside(inside, mounts),
        "mounts": mounts,
        "port": args.port,
        "replicas": replicas,
        "machines": machines,
        "replica_count": len(machines or replicas),
        "targets": machines or [f"{replica}:8000" for replica in replicas],
        "balanced": balanced,
        "front_port": _FRONT_PORT if machines and balanced else args.port,
        "served": served_names(spec),
        "tensorboard": str(folder.training) if folder.training.is_dir() else "",
        "folder": shlex.quote(str(out)),
        "unit_folder": str(out).replace("%", "%%"),
        "user": getpass.getuser(),
        "before_exec": host.script[:begin],
        "from_exec": host.script[begin:].replace(
            f"--host {spec.host}", f'--host "${{BIND:-{spec.host}}}"'
        ),
        "made_by": f"python deploy/production.py --run {folder.path.name} --out {out.name}",
    }


def write(out: Path, filled: Mapping[str, Any]) -> list[str]:
    """Write the folder; the names of its files."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from palmswift.deploy.board import board
    from palmswift.files import write_json, write_text
    from palmswift.paths import project_root

    templates = project_root() / "deploy" / "templates" / "production"
    environment = Environment(
        loader=FileSystemLoader(templates), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    slug = filled["slug"]
    files = {**_FILES, "server.sh": "server.sh.j2", f"{slug}.service": "server.service.j2"}
    if filled["balanced"]:
        files["nginx.conf"] = "nginx.conf.j2"
    for name, template in files.items():
        write_text(out / name, environment.get_template(template).render(**filled))
    for name, place in (("datasource", "datasources"), ("dashboards", "dashboards")):
        text = (templates / "grafana" / f"{name}.yaml").read_text(encoding="utf-8")
        write_text(out / "grafana" / "provisioning" / place / f"{name}.yaml", text)
    write_json(out / "grafana" / "dashboards" / f"{slug}.json", board(filled["name"], slug))
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.deploy.fitting import planned
    from palmswift.deploy.serve import named_folders
    from palmswift.deploy.settings import parse_settings
    from palmswift.deploy.spec import check_spec, spec_of_run
    from palmswift.errors import InputError, Problem
    from palmswift.launchers.run_folder import find_run
    from palmswift.paths import user_path

    problems = []
    if args.replicas < 1:
        problems.append(Problem("must be at least 1", "--replicas"))
    problems += [
        Problem("is not HOST or HOST:PORT", f"--machines {at}")
        for at in args.machines
        if not _MACHINE.fullmatch(at)
    ]
    if args.machines and args.replicas != 1:
        problems.append(Problem("--machines has one server on each", "--replicas"))
    if not 1 <= args.port <= 65535:
        problems.append(Problem("is not a port", f"--port {args.port}"))
    out = user_path(args.out).absolute()
    if out.is_file() or (
        out.is_dir() and any(out.iterdir()) and not (out / "compose.yaml").exists()
    ):
        problems.append(Problem("is there already and is none of ours", str(out), "another --out"))
    if problems:
        raise InputError("the folder cannot be written", problems)
    folder = find_run(args.run)
    trained = spec_of_run(folder)
    changes = {
        "server": "vllm",
        "backend": "vllm",
        "more_adapters": named_folders(args.also),
        "swift": {**trained.swift, **parse_settings(args.set)},
    }
    spec = planned(trained.model_copy(update=changes), folder.recipe)
    check_spec(spec)
    names = write(out, variables(spec, folder, out, args))
    console.say(f"written  {out}")
    for name in names:
        console.say(f"  {name}")
    console.say(f"next     see {out / 'README.md'}")
    return Done({"folder": str(out), "files": names})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    return run(_parser(), _body, argv)
