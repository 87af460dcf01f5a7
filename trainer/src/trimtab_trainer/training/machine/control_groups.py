"""The control groups of this process, version 1 or 2: a container's limits, and what came of them. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of its ancestors (in a container, one: the top)."""
    top = root / "sys/fs/cgroup"
    for line in lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = controllers.split(",")
        if controllers and controller not in names:
            continue
        for base in [top / controllers, top / controller] if controllers else [top]:
            folder = base / path.lstrip("/")
            while True:
                if folder.is_dir():
                    yield folder
                if folder in (base, folder.parent):
                    break
                folder = folder.parent


def killed_for_memory(root: Path = Path("/")) -> int:
    """Return how many processes of this container the kernel has ended for want of memory."""
    for group in control_groups(root, "memory"):
        for file in ("memory.events", "memory.oom_control"):
            for line in lines(group / file):
                name, _, count = line.partition(" ")
                if name == "oom_kill" and count.strip().isdigit():
                    return int(count)
    return 0


def lines(file: Path) -> list[str]:
    """Return the lines of a file, none of one that is not there."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
