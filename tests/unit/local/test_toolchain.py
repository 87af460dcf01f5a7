from pathlib import Path

import pytest
from trimtab_local import Failed, toolchain


def test_only_root_on_linux_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(Failed, match="Linux"):
        toolchain.require_root()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Failed, match="needs root"):
        toolchain.require_root()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    toolchain.require_root()


@pytest.mark.parametrize(
    ("machine", "enough"), [("go1.26.8", True), ("go1.27.0", True), ("go1.19.8", False), ("go1.26.2", False)]
)
def test_an_old_go_is_not_taken(machine: str, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.26.3\n")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    monkeypatch.setattr(toolchain, "run", lambda command: machine)
    unpacked: list[Path] = []
    monkeypatch.setattr(toolchain, "_unpack_go", unpacked.append)
    toolchain.go(tmp_path)
    assert bool(unpacked) is not enough


def test_what_is_installed_is_not_asked_of_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(toolchain, "watch", lambda what, command, environment: asked.append(command))
    monkeypatch.setattr("shutil.which", lambda name: name)
    toolchain.install({str(tmp_path): "there"})
    assert asked == []
    toolchain.install({str(tmp_path): "there", str(tmp_path / "missing"): "buildah"})
    assert asked[-1][-1] == "buildah"
    assert "there" not in asked[-1]
