"""A checkpoint's folder on disk: which files count, and how they change all at once.

The folder holds data files that are never changed once written, under names that are never used
again, and ``manifest.json``, which names those that count. Replacing the manifest is the one
step that turns the old checkpoint into the new one; until then new data files are not referred
to, and afterwards the old ones are not.

``model.safetensors.index.json`` names the model's files for the programs of Hugging Face. It
follows the manifest; until it does, it names the old checkpoint's files, and they are kept.
"""

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .checksums import HASHERS
from .huggingface_files import INDEX_NAME, index_json, indexed_files
from .tensor_files import DataFile, write_tensor_file

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

FORMAT = "cross_phase.checkpoint"
VERSION = 1
MANIFEST_NAME = "manifest.json"
ROLES = ("model", "optimizer", "extra", "training")

DATA_NAME = re.compile(rf"(?:{'|'.join(ROLES)})-[0-9a-f]{{32}}-[0-9]{{5,}}\.safetensors")
FILE_FIELDS = {entry.name for entry in fields(DataFile)}
STAGING_NAME = re.compile(r"\.staging-[0-9a-f]{32}")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        checksum: The name of the data files' checksums.
        files: The data files of each role: ``model``, ``optimizer``, ``extra``, ``training``.
        tied: Names of the model's tensors that are stored under another name.
        config: The encoded configuration.
        metadata: The encoded metadata.
        optimizer: The encoded optimizer state without its tensors, or None.
        training: The encoded training state without its tensors, or None.
    """

    checksum: str
    files: Mapping[str, tuple[DataFile, ...]] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    metadata: Any = None
    optimizer: Any = None
    training: Any = None

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
        names = {entry.name for entry in fields(cls)}
        if set(body) != {"format", "version", *names}:
            raise ValueError(f"{MANIFEST_NAME} lacks entries or has unknown ones")
        if body["checksum"] not in list(HASHERS):
            raise ValueError(f"{MANIFEST_NAME}: unknown checksum {body['checksum']!r}")
        return cls(
            **{
                **{name: body[name] for name in names},
                "files": _parse_files(body["files"]),
                "tied": _parse_names("tied", body["tied"]),
            }
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
    shards: Mapping[str, Sequence[Mapping[str, Tensor]]],
    contents: Manifest,
) -> None:
    """Make the folder hold this checkpoint instead of the one that it holds, if any.

    At every moment, a crash included, the folder holds the old checkpoint or the new one.
    Writers take turns where the file system has locks. Files that no checkpoint refers to any
    more, also those that an interrupted writer left, are removed.

    Args:
        folder: The folder; it is made where it does not exist.
        shards: The tensors of each file of each role, storable.
        contents: The rest of the manifest; its ``files`` are filled in.

    Raises:
        OSError: Something cannot be written; the old checkpoint is still there.
        ValueError: The folder holds the index of another program's checkpoint.
    """

    def write(staging: Path, save_id: str) -> Manifest:
        files = {
            role: tuple(
                write_tensor_file(
                    staging / f"{role}-{save_id}-{number:05}.safetensors",
                    tensors,
                    contents.checksum,
                )
                for number, tensors in enumerate(role_shards, start=1)
            )
            for role, role_shards in shards.items()
        }
        return replace(contents, files=files)

    make_durable_folder(folder)
    with folder_lock(folder) as locked:
        commit_files(folder, write, locked=locked)


def commit_files(
    folder: Path, write: Callable[[Path, str], Manifest], *, locked: bool, save_id: str = ""
) -> None:
    """Have data files written aside, and make them the folder's checkpoint.

    Args:
        folder: The folder, which exists.
        write: Given a new folder and the id that the files' names carry, writes the data files
            into that folder, durably, and returns the manifest that names them.
        locked: Whether no other writer can be at work.
        save_id: The id; a random one by default.

    Raises:
        OSError: Something cannot be written; the old checkpoint is still there.
        ValueError: The folder holds the index of another program's checkpoint.
    """
    save_id = save_id or new_save_id()
    staging = folder / staging_name(save_id)
    disposable = _indexed_names(folder)
    with suppress(ValueError):  # a damaged manifest does not stop a save that replaces it
        disposable |= _referenced_names(folder)
    staging.mkdir(exist_ok=True)
    try:
        manifest = write(staging, save_id)
        disposable |= manifest.names()
        for name in sorted(manifest.names()):
            (staging / name).replace(folder / name)
        _write_durably(staging / MANIFEST_NAME, manifest.to_json())
        _write_durably(staging / INDEX_NAME, index_json(manifest.files["model"]))
        # The data files must be there for good before a manifest refers to them.
        _sync_folder(folder)
        (staging / MANIFEST_NAME).replace(folder / MANIFEST_NAME)
        _sync_folder(folder)
        (staging / INDEX_NAME).replace(folder / INDEX_NAME)
        # Old files go only when no durable index refers to them.
        _sync_folder(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if locked:
            # No other writer is at work, so whatever is not referred to was left behind.
            _remove_leftovers(folder)
        _remove_unreferenced(folder, disposable)


def new_save_id() -> str:
    """Make an id that no save before had."""
    return secrets.token_hex(16)


def staging_name(save_id: str) -> str:
    """Name the folder in which a save is prepared."""
    return f".staging-{save_id}"


def _body_sha256(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _parse_files(files: Any) -> dict[str, tuple[DataFile, ...]]:
    if not isinstance(files, dict) or "model" not in files or not set(files) <= set(ROLES):
        raise ValueError(f"{MANIFEST_NAME}: 'files' must hold 'model' and only {', '.join(ROLES)}")
    return {role: tuple(_parse_file(entry) for entry in _list(files[role])) for role in files}


def _parse_file(entry: Any) -> DataFile:
    if not isinstance(entry, dict) or set(entry) != FILE_FIELDS:
        needed = ", ".join(sorted(FILE_FIELDS))
        raise ValueError(f"{MANIFEST_NAME}: a file needs {needed}")
    name = entry["name"]
    # Nothing but our own names: a manifest must not reach files outside its folder.
    if not isinstance(name, str) or DATA_NAME.fullmatch(name) is None:
        raise ValueError(f"{MANIFEST_NAME}: {name!r} is not the name of a data file")
    tensors = _parse_names("tensors", entry["tensors"])
    return DataFile(**{**entry, "tensors": tensors})


def _parse_names(what: str, names: Any) -> dict[str, str]:
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{MANIFEST_NAME}: {what!r} must map names to strings")
    return names


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{MANIFEST_NAME}: expected a list of files")  # noqa: TRY004 - bad data
    return value


def _write_durably(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def make_durable_folder(folder: Path) -> None:
    """Make a folder, and its parents, so that they outlast a crash."""
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
def folder_lock(folder: Path) -> Iterator[bool]:
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
    """Names that the folder's manifest refers to; none where there is no manifest.

    Raises:
        ValueError: The manifest cannot be read.
    """
    try:
        return Manifest.from_json(read_manifest(folder)).names()
    except FileNotFoundError:
        return set()


def _indexed_names(folder: Path) -> set[str]:
    """Names that the folder's index refers to.

    Raises:
        ValueError: They are another program's files.
    """
    names = indexed_files(folder)
    foreign = sorted(name for name in names if DATA_NAME.fullmatch(name) is None)
    if foreign:
        raise ValueError(
            f"the folder holds another program's checkpoint ({INDEX_NAME} names {foreign[0]}): "
            "save into a folder of its own"
        )
    return names


def _remove_leftovers(folder: Path) -> None:
    for path in list(folder.iterdir()):
        if STAGING_NAME.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    data = {path.name for path in folder.iterdir() if DATA_NAME.fullmatch(path.name)}
    _remove_unreferenced(folder, data)


def _remove_unreferenced(folder: Path, names: set[str]) -> None:
    """Remove those of the named data files that neither manifest nor index refers to."""
    try:
        referenced = _referenced_names(folder)
    except ValueError:
        return  # whose manifest is damaged may be mended by hand, as long as its data is there
    for name in names - referenced - indexed_files(folder):
        _remove(folder / name)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # The checkpoint itself is whole, so a file too many is no reason to fail.
        logger.warning("%s is not needed any more, but stays: %s", path, error)
