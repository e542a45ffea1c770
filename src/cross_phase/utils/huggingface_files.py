"""Where the programs of Hugging Face look for a model's tensors.

A model is one file ``model.safetensors``, or several and ``model.safetensors.index.json``, which
says in which file each tensor is; see the Transformers documentation, "Loading models".
"""

import json
from collections.abc import Sequence
from pathlib import Path

from .tensor_files import DataFile
from .tensor_headers import METADATA_KEY

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"


def index_json(files: Sequence[DataFile]) -> str:
    """Write the index of a model's files."""
    weight_map = {name: file.name for file in files for name in file.tensors}
    total_size = sum(file.bytes - file.header_bytes for file in files)
    return json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}, indent=1)


def read_weight_map(folder: Path) -> dict[str, str]:
    """Read in which file each tensor is.

    Raises:
        FileNotFoundError: The folder has no index.
        ValueError: The index is damaged, or names files outside the folder.
    """
    return _parse_weight_map((folder / INDEX_NAME).read_bytes())


def _parse_weight_map(text: bytes) -> dict[str, str]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{INDEX_NAME} is not JSON: {error}") from error
    weight_map = body.get("weight_map") if isinstance(body, dict) else None
    if not isinstance(weight_map, dict) or METADATA_KEY in weight_map:
        raise ValueError(f"{INDEX_NAME} has no 'weight_map' from tensors to files")
    for name in weight_map.values():
        if not isinstance(name, str) or name in {"", ".", ".."} or set(name) & set("/\\:\0"):
            raise ValueError(f"{INDEX_NAME}: {name!r} is not the name of a file beside it")
    return weight_map


def check_index(folder: Path, files: Sequence[DataFile]) -> None:
    """Check that the folder's index, where there is one, leads to a whole model.

    It may be that of the save before, which was complete, and whose files stay as long as the
    index names them: an interrupt after the manifest was replaced leaves it so.

    Args:
        folder: The checkpoint.
        files: The model's files.

    Raises:
        ValueError: It is damaged.
    """
    index = folder / INDEX_NAME
    try:
        text = index.read_bytes()
        while not _leads_to(folder, text, files):
            # A writer may have replaced the checkpoint since.
            before, text = text, index.read_bytes()
            if text == before:
                raise ValueError(
                    f"{INDEX_NAME} is damaged, so other programs would not find the model's "
                    "tensors, which are whole: load the checkpoint and save it again"
                )
    except FileNotFoundError:
        return


def _leads_to(folder: Path, text: bytes, files: Sequence[DataFile]) -> bool:
    named = set(_parse_weight_map(text).values())
    if not named or named & {file.name for file in files}:
        return bool(json.loads(text) == json.loads(index_json(files)))
    return all((folder / name).is_file() for name in named)


def indexed_files(folder: Path) -> set[str]:
    """Name the files that the folder's index refers to; none where there is no readable one."""
    try:
        return set(read_weight_map(folder).values())
    except (OSError, ValueError):
        return set()
