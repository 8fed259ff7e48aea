"""A Slurm of one machine for tests: `sbatch`, `srun`, `squeue` and `scontrol`, which run the job.

They read the options that palmswift's jobs use. A node is a process of its own on this machine,
told its number as Slurm tells it.
"""

from __future__ import annotations

import sys
from pathlib import Path

NUMBER = 4242

_SBATCH = r"""
import os, re, shlex, subprocess, sys
from pathlib import Path
script = Path(sys.argv[-1])
said = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script.read_text(), re.M))
output = shlex.split(said["output"])[0].replace("%j", "@")
nodes = {"SLURM_JOB_ID": "@", "SLURM_JOB_NUM_NODES": said["nodes"], "SLURM_JOB_NODELIST": "here"}
with open(output, "ab") as file:
    job = subprocess.Popen(["bash", str(script)], stdin=subprocess.DEVNULL, stdout=file,
                           stderr=file, env={**os.environ, **nodes}, start_new_session=True)
Path(__file__).with_name("job.pid").write_text(str(job.pid))
print("@;cluster" if "--parsable" in sys.argv else "Submitted batch job @")
"""

_SRUN = r"""
import os, subprocess, sys
words = sys.argv[1:]
options = {}
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    options[name] = value
running = []
for number in range(int(os.environ["SLURM_JOB_NUM_NODES"])):
    output = options["--output"].replace("%j", "@").replace("%n", str(number))
    env = {**os.environ, "SLURM_NODEID": str(number)}
    with open(output, "ab") as file:
        running.append(subprocess.Popen(words, stdout=file, stderr=file, env=env))
sys.exit(max(process.wait() for process in running))
"""

_SQUEUE = r"""
import sys
from pathlib import Path
pid = Path(__file__).with_name("job.pid")
proc = Path("/proc") / pid.read_text() / "status" if pid.exists() else pid
if "--jobs=@" not in sys.argv or not proc.exists() or "zombie" in proc.read_text():
    sys.exit("slurm_load_jobs error: Invalid job id specified")
print("RUNNING")
"""

_SCONTROL = r"""
import sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1")
"""


def make_slurm(folder: Path) -> Path:
    """The programs in a folder, to be put first in PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {"sbatch": _SBATCH, "srun": _SRUN, "squeue": _SQUEUE, "scontrol": _SCONTROL}
    for name, text in programs.items():
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{text.replace('@', str(NUMBER))}", "utf-8")
        program.chmod(0o755)
    return folder
