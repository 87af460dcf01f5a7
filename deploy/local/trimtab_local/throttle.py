"""Run a command, and the clusters that it starts, with less processor time than the machine has.

For tests that must be green on a slower machine: what waits by the clock alone fails here first.
"""

import os
import subprocess
from collections.abc import Sequence

from trimtab_local.cluster import remove_cgroups, until
from trimtab_local.instance import CGROUPS, PARENT

NAME = "trimtab-throttled"
PERIOD_US = 100_000
ENTER = 'echo $$ >"$0" && exec "$@"'


def run(cpus: float, command: Sequence[str]) -> int:
    """Run a command with so many processors' time; return its exit code. Nothing of it may be left when it ends."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    folder = (CGROUPS if unified else CGROUPS / "cpu") / NAME
    if unified:
        (CGROUPS / "cgroup.subtree_control").write_text("+cpu")
    leaf = folder / "command"  # beside the clusters: in cgroup v2 a group has processes or groups
    leaf.mkdir(parents=True, exist_ok=True)
    quota = round(cpus * PERIOD_US)
    if unified:
        (folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota))
    line = ["/bin/sh", "-c", ENTER, str(leaf / "cgroup.procs"), *command]
    try:
        return subprocess.run(line, env={**os.environ, PARENT: NAME}, check=False).returncode
    finally:
        until(lambda: remove_cgroups(NAME), f"the end of the cgroup {folder}", 30)
