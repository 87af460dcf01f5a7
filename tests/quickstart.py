"""The commands of docs/quickstart.md, as a new user types them: nothing but `kubectl trimtab`, line by line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

DOCUMENT = Path(__file__).parents[1] / "docs/quickstart.md"


def commands() -> dict[str, list[str]]:
    """Return the arguments of each command by its verb, as a shell reads them."""
    (block,) = re.findall(r"^```\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    assert all(line[:2] == ["kubectl", "trimtab"] for line in lines), "there is no other command"
    return {line[2]: line[2:] for line in lines}


@dataclass(frozen=True)
class Newcomer:
    """Somebody with a kubeconfig, whose namespace is the context's, and a folder to work in."""

    kubeconfig: Path
    namespace: str
    folder: Path
    variables: Mapping[str, str]

    def types(self, verb: str, seconds: float = 300) -> str:
        """Run the quickstart's command of a verb; return what it prints, which holds no secret."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["contexts"][0]["context"]["namespace"] = self.namespace
        own = self.folder / "kubeconfig"
        own.write_text(yaml.safe_dump(config))
        environment = {**os.environ, **self.variables, "KUBECONFIG": str(own)}
        line = [sys.executable, "-m", "trimtab", *commands()[verb]]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=seconds, check=False, cwd=self.folder, env=environment
        )
        assert done.returncode == 0, (verb, done.stdout, done.stderr)
        assert self.variables["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
        return done.stdout
