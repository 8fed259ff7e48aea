"""A further node's part in a training: its processes, without the results, which node 0 has."""

from __future__ import annotations

from palmswift.command import Console
from palmswift.errors import ChildError
from palmswift.files import write_text
from palmswift.launchers.diagnosis import diagnose
from palmswift.launchers.engines.ranks import quote_rank_logs
from palmswift.launchers.render import Rendered
from palmswift.launchers.run_folder import RunFolder
from palmswift.process import ProcessGroup
from palmswift.recipes.source import shown


def follow(run: RunFolder, command: Rendered, node_rank: int, console: Console) -> None:
    """Run this node's processes to their end; `ChildError` when they failed.

    Nothing but logs and the command is written, so that nodes may share one run folder.
    """
    write_text(run.path / f"command.node{node_rank}.sh", command.script)
    log = run.logs / f"train.node{node_rank}.log"
    start = log.stat().st_size if log.is_file() else 0
    console.note(f"train    as node {node_rank} of {run.recipe.launch.nodes}; log: {shown(log)}")
    with ProcessGroup(command.argv, log=log, env=command.env) as child:
        exit_code = child.wait()
    if exit_code != 0:
        quote_rank_logs(run.logs, log)
        failure = diagnose(log, exit_code, start=start)
        raise ChildError(
            f"node {node_rank} failed ({failure.kind}): {failure.cause}",
            remedy=f"{failure.remedy}\n     log: {shown(log)}; node 0 may say more",
        )
