"""The product's images run as any user of group 0, as clusters give out that know none of /etc/passwd."""

from __future__ import annotations

import getpass
import pwd
import re
from pathlib import Path

import pytest
from trimtab_operator.domain.work.building.job import ENVIRONMENT

FOLDER = Path(__file__).parents[3] / "deploy/images"
IMAGES = ("operator", "console", "prepare", "trainer", "evaluator", "vllm-cpu")


@pytest.mark.parametrize("name", IMAGES)
def test_the_user_is_a_number_of_group_0_and_has_a_name_and_a_home(name: str) -> None:
    last = (FOLDER / f"Containerfile.{name}").read_text().rpartition("\nFROM ")[2]
    *_, user = re.findall(r"^USER (.*)$", last, re.MULTILINE)
    assert user == "65532:0", "a name is refused with runAsNonRoot"
    told = dict(pair.split("=", 1) for line in re.findall(r"^ENV (.*)$", last, re.MULTILINE) for pair in line.split())
    assert told.items() >= {"HOME": "/tmp", "USER": "trimtab", "LOGNAME": "trimtab"}.items()


def test_a_user_without_an_entry_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch._inductor and transformers ask when they look for their caches."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert getpass.getuser() == "trimtab"
