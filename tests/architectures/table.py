"""What comes of every family of language models: `python -m tests.architectures.table` writes docs/architectures.md.

It takes minutes. `test_table.py` compares the same with what stands there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from trimtab_trainer.base.unsupported import unsupported
from trimtab_trainer.errors import SettingsInvalid

from tests.trainer.train.families import UNMADE, families, make_family, train_family

PAGE = Path(__file__).parents[2] / "docs/architectures.md"
HEAD = "| model_type | class | trained | rows packed | linear layers of two | why not |\n" + "| --- " * 6 + "|\n"


def outcome(family: str) -> str:
    """Return the row of a family; a tiny model of it is made and trained for that."""
    kind = family.partition(":")[0]
    if (why := unsupported(kind)) is not None:
        return row(family, "refused", why=why)
    if (why := UNMADE.get(family)) is not None:
        return row(family, "not tried", why=why)
    with tempfile.TemporaryDirectory() as folder:
        make_family(family, Path(folder))
        try:
            trained = train_family(Path(folder))
        except SettingsInvalid as error:
            if "base model: " not in error.message:
                raise  # of the train stage, while a GPU is held
            return row(family, "refused", why=error.message.removeprefix("base model: ").partition(";")[0])
        return row(family, "yes", "yes" if trained.packing else "no", str(trained.modules))


def row(family: str, trained: str, packed: str = "", layers: str = "", why: str = "") -> str:
    """Return a row of the table."""
    kind, _, name = family.partition(":")
    return "| " + " | ".join((f"`{kind}`", f"`{name}`", trained, packed, layers, why)) + " |"


def rows() -> dict[str, str]:
    """Return the rows of the page, by family."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = line.split(" | ")
        if line.startswith("| `") and len(cells) == 6:
            found[f"{cells[0].strip('| `')}:{cells[1].strip('`')}"] = line
    return found


if __name__ == "__main__":
    from trimtab_trainer.training.machine import hardware

    hardware.configure()
    text, _, _ = PAGE.read_text().partition("| model_type |")
    PAGE.write_text(text + HEAD + "".join(outcome(family) + "\n" for family in families()))
