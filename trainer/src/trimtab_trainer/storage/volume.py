"""`FileStore`: a folder of a mounted volume, for laptops, tests and PersistentVolumeClaims."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..contract import Reason
from ..errors import SettingsInvalid, StorageFailed, TrainerError
from .store import CHUNK_BYTES, FileEntry, ObjectDamaged, ObjectInfo, ObjectMissing, Store, checked, replacing


class FileStore(Store):
    """Objects as files below a folder, with the same promises as S3: whole or absent, and put once."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri = uri
        self._root = root

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        found = []
        with self._named(prefix):
            for folder, folders, names in os.walk(self._root):
                # Kubernetes mounts ConfigMaps and Secrets through folders that start with two dots.
                folders[:] = [name for name in folders if not name.startswith("..")]
                for name in names:
                    file = Path(folder, name)
                    path = file.relative_to(self._root).as_posix()
                    if path.startswith(prefix) and not _is_part(name) and file.is_file():
                        found.append(ObjectInfo(path, file.stat().st_size))
        return sorted(found)

    def chunks(self, path: str, offset: int = 0) -> Generator[bytes]:
        # Without O_NONBLOCK a pipe would be waited for, and a device has no end.
        with self._named(path), os.fdopen(os.open(self._file(path), os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(path)
            if not stat.S_ISREG(mode):
                raise ObjectDamaged(f"{self.address(path)} is no file; delete it")
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def confined(self, path: str) -> None:
        with self._named(path):
            if not self._file(path).resolve().is_relative_to(self._root.resolve()):
                raise ObjectDamaged(f"{self.address(path)} is a link that leads elsewhere; put the file in its place")

    def put(self, path: str, data: bytes) -> None:
        with self._named(path), replacing(self._file(path)) as file:
            file.write(data)

    def put_once(self, path: str, data: bytes) -> bool:
        target = self._file(path)
        with self._named(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
            try:
                with part.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # A hard link is the one atomic "create unless it exists" that never shows half a file.
                os.link(part, target)
            except FileExistsError:
                return False
            finally:
                part.unlink(missing_ok=True)
        return True

    def upload(self, source: Path, path: str) -> FileEntry:
        with self._named(path):
            origin = FileStore(source.parent.as_uri(), source.parent)
            entry = origin.download(source.name, self._file(path))
        return FileEntry(path, entry.size, entry.sha256)

    def exists(self, path: str) -> bool:
        with self._named(path):
            return self._file(path).is_file()

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            file = self._file(path)
            with self._named(path):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # Object storage has no empty folders.
                for folder in file.parents:
                    if folder == self._root:
                        break
                    folder.rmdir()

    def local(self, path: str) -> Path | None:
        return self._file(path).absolute()

    def _file(self, path: str) -> Path:
        return self._root / checked(path)

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        try:
            yield
        except TrainerError:
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(f"{self.address(path)} does not exist") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ObjectDamaged(f"{self.address(path)} is a link that leads nowhere; delete it") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise SettingsInvalid(
                    f"{self.address(path)}: {error.strerror}; check the volume's mount and the pod's fsGroup",
                    Reason.ACCESS_DENIED,
                ) from error
            raise StorageFailed(f"{self.address(path)}: {error.strerror or error}") from error


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")
