"""A checkpoint's folder on disk: which files count, and how they change all at once.

The folder holds data files that are never changed once written, under names that are never used
again, and ``manifest.json``, which names those that count. Replacing the manifest is the one
step that turns the old checkpoint into the new one; until then new data files are not referred
to, and afterwards the old ones are not.
"""

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .tensor_files import DataFile, write_tensor_file

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

FORMAT = "cross_phase.checkpoint"
VERSION = 1
MANIFEST_NAME = "manifest.json"
ROLES = ("model", "optimizer", "extra")

DATA_NAME = re.compile(rf"(?:{'|'.join(ROLES)})-[0-9a-f]{{32}}\.safetensors")
STAGING_NAME = re.compile(r"\.staging-[0-9a-f]{32}")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        files: The data files of each role: ``model``, ``optimizer``, ``extra``.
        tied: Names of the model's tensors that are stored under another name.
        config: The encoded configuration.
        metadata: The encoded metadata.
        optimizer: The encoded optimizer state without its tensors, or None.
    """

    files: Mapping[str, tuple[DataFile, ...]] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    metadata: Any = None
    optimizer: Any = None

    def names(self) -> set[str]:
        """Return the names of all data files."""
        return {file.name for files in self.files.values() for file in files}

    def to_json(self) -> str:
        """Write the manifest, with a checksum of itself."""
        body = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps({**body, "sha256": _body_sha256(body)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            ValueError: It is not a manifest of this version, or not as it was written.
        """
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{MANIFEST_NAME} is not JSON: {error}") from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ValueError(f"{MANIFEST_NAME} is not the manifest of a checkpoint")
        if body.get("version") != VERSION:
            raise ValueError(
                f"{MANIFEST_NAME} has format version {body.get('version')!r}, and this library "
                f"reads {VERSION}: load it with the version that wrote it"
            )
        checksum = body.pop("sha256", None)
        if checksum != _body_sha256(body):
            raise ValueError(f"{MANIFEST_NAME} is damaged or was edited: its checksum differs")
        if set(body) != {"format", "version", "files", "tied", "config", "metadata", "optimizer"}:
            raise ValueError(f"{MANIFEST_NAME} lacks entries or has unknown ones")
        return cls(
            files=_parse_files(body["files"]),
            tied=_parse_tied(body["tied"]),
            config=body["config"],
            metadata=body["metadata"],
            optimizer=body["optimizer"],
        )


def read_manifest(folder: Path) -> bytes:
    """Read the manifest's bytes.

    Raises:
        FileNotFoundError: There is no checkpoint.
    """
    try:
        return (folder / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_dir():
            why = f"the folder has no {MANIFEST_NAME}: no save into it was ever completed"
        elif folder.exists():
            why = "it is a file; a checkpoint is a folder"
        else:
            why = "no such folder"
        raise FileNotFoundError(f"no checkpoint at {folder}: {why}") from error


def replace_checkpoint(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    tied: Mapping[str, str],
    config: Any,
    metadata: Any,
    optimizer: Any,
) -> None:
    """Make the folder hold this checkpoint instead of the one that it holds, if any.

    At every moment, a crash included, the folder holds the old checkpoint or the new one.
    Writers take turns where the file system has locks. Files that no checkpoint refers to any
    more, also those that an interrupted writer left, are removed.

    Args:
        folder: The folder; it is made where it does not exist.
        tensors: The tensors of each role, ready to store.
        tied: See :class:`Manifest`, like the others.
        config: Encoded.
        metadata: Encoded.
        optimizer: Encoded.

    Raises:
        OSError: Something cannot be written; the old checkpoint is still there.
    """
    _make_durable_folder(folder)
    with _folder_lock(folder) as locked:
        save_id = secrets.token_hex(16)
        staging = folder / f".staging-{save_id}"
        disposable = _referenced_names(folder)
        staging.mkdir()
        try:
            files: dict[str, tuple[DataFile, ...]] = {}
            for role, role_tensors in tensors.items():
                name = f"{role}-{save_id}.safetensors"
                disposable.add(name)
                files[role] = (write_tensor_file(staging / name, role_tensors),)
                (staging / name).replace(folder / name)
            manifest = Manifest(files, tied, config, metadata, optimizer)
            with (staging / MANIFEST_NAME).open("x", encoding="utf-8") as file:
                file.write(manifest.to_json())
                file.flush()
                os.fsync(file.fileno())
            # The data files must be there for good before a manifest refers to them.
            _sync_folder(folder)
            (staging / MANIFEST_NAME).replace(folder / MANIFEST_NAME)
            _sync_folder(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if locked:
                # No other writer is at work, so whatever is not referred to was left behind.
                _remove_leftovers(folder)
            _remove_unreferenced(folder, disposable)


def _body_sha256(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _parse_files(files: Any) -> dict[str, tuple[DataFile, ...]]:
    if not isinstance(files, dict) or "model" not in files or not set(files) <= set(ROLES):
        raise ValueError(f"{MANIFEST_NAME}: 'files' must hold 'model' and only {', '.join(ROLES)}")
    return {role: tuple(_parse_file(entry) for entry in _list(files[role])) for role in files}


def _parse_file(entry: Any) -> DataFile:
    if not isinstance(entry, dict) or set(entry) != {"name", "bytes", "sha256"}:
        raise ValueError(f"{MANIFEST_NAME}: a file needs 'name', 'bytes' and 'sha256'")
    name = entry["name"]
    # Nothing but our own names: a manifest must not reach files outside its folder.
    if not isinstance(name, str) or DATA_NAME.fullmatch(name) is None:
        raise ValueError(f"{MANIFEST_NAME}: {name!r} is not the name of a data file")
    return DataFile(name, entry["bytes"], entry["sha256"])


def _parse_tied(tied: Any) -> dict[str, str]:
    if not isinstance(tied, dict) or not all(isinstance(kept, str) for kept in tied.values()):
        raise ValueError(f"{MANIFEST_NAME}: 'tied' must map names to names")
    return tied


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{MANIFEST_NAME}: expected a list of files")  # noqa: TRY004 - bad data
    return value


def _make_durable_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the folder's entries durable; Windows has no such thing for folders."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _folder_lock(folder: Path) -> Iterator[bool]:
    """Wait for the folder's other writers; the system frees the lock of one that dies.

    Yields:
        Whether there is a lock: some network file systems and Windows have none for folders.
    """
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            logger.debug("%s cannot be locked: %s", folder, error)
            locked = False
        else:
            locked = True
        yield locked
    finally:
        os.close(descriptor)


def _referenced_names(folder: Path) -> set[str]:
    """Names that the folder's manifest refers to; none where there is no readable one."""
    try:
        return Manifest.from_json(read_manifest(folder)).names()
    except (FileNotFoundError, ValueError):
        return set()


def _remove_leftovers(folder: Path) -> None:
    for path in list(folder.iterdir()):
        if STAGING_NAME.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    data = {path.name for path in folder.iterdir() if DATA_NAME.fullmatch(path.name)}
    _remove_unreferenced(folder, data)


def _remove_unreferenced(folder: Path, names: set[str]) -> None:
    """Remove those of the named data files that the manifest on disk does not refer to."""
    for name in names - _referenced_names(folder):
        _remove(folder / name)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # The checkpoint itself is whole, so a file too many is no reason to fail.
        logger.warning("%s is not needed any more, but stays: %s", path, error)
