"""Where promtool comes from: nothing is downloaded that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_local import Failed, promtool


class Machine:
    """apt and dpkg of a machine; `asked` notes every command."""

    def __init__(self, lists: bool) -> None:
        self.lists = lists
        self.asked: list[str] = []

    def __call__(self, what: str, command: list[object], *_: object, folder: Path | None = None) -> None:
        self.asked.append(" ".join(str(word) for word in command[:2]))
        match command:
            case ["apt-get", "update"]:
                self.lists = True
            case ["apt-get", "download", _] if not self.lists:
                raise Failed("Unable to locate package")
            case ["apt-get", "download", _]:
                assert folder is not None
                (folder / "prometheus_2.42.0+ds-5_amd64.deb").touch()
            case ["dpkg", "-x", _, Path() as root]:
                (root / "usr/bin").mkdir(parents=True)
                (root / "usr/bin/promtool").write_text("program")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A fresh machine: nothing on the PATH, nothing kept, no lists of packages."""
    machine = Machine(lists=False)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", lambda name: None if name == "promtool" else f"/usr/bin/{name}")
    monkeypatch.setattr(promtool, "watch", machine)
    return machine


def test_on_a_fresh_machine_the_lists_come_first(machine: Machine, tmp_path: Path) -> None:
    assert promtool.ensure() == tmp_path / "cache" / "prometheus-2.42.0+ds-5" / "promtool"
    assert machine.asked == ["apt-get download", "apt-get update", "apt-get download", "dpkg -x"]


def test_lists_that_are_there_are_not_asked_for(machine: Machine) -> None:
    machine.lists = True
    promtool.ensure()
    assert machine.asked == ["apt-get download", "dpkg -x"]


def test_it_is_unpacked_once_and_nothing_else_is_kept(machine: Machine, tmp_path: Path) -> None:
    first = promtool.ensure()
    machine.asked.clear()
    assert promtool.ensure() == first
    assert machine.asked == []
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == ["prometheus-2.42.0+ds-5", "promtool.lock"]


def test_the_machines_own_is_taken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert promtool.ensure() == Path("/usr/bin/promtool")
    assert machine.asked == []


def test_without_apt_a_person_is_asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(Failed, match="promtool"):
        promtool.ensure()
