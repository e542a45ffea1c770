"""A tokenizer by name, and a small one that is always there."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
BYTE_OFFSET = len(SPECIAL_TOKENS)
BYTE_VALUES = 256


class MockEncoding(dict[str, Any]):
    """Model input by name, with the names as attributes too: ``**encoding`` feeds a model."""

    @property
    def input_ids(self) -> Any:
        """Token ids: lists, or a tensor of shape (B, T), int64."""
        return self["input_ids"]

    @property
    def attention_mask(self) -> Any:
        """1 for tokens, 0 for padding; shaped like ``input_ids``."""
        return self["attention_mask"]

    def to(self, device: str | torch.device) -> "MockEncoding":
        """Move the tensors to a device; lists stay as they are."""
        return MockEncoding(
            {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in self.items()
            }
        )


class MockTokenizer:
    """A tokenizer without files: one token for each byte of the UTF-8 text.

    The special tokens are pad 0, eos 1, bos 2, unk 3 and mask 4; byte ``b`` is token ``b + 5``.
    So ids are the same in every process, and every text comes back from its ids exactly. Like
    GPT-2's, it adds no special tokens, and text that looks like one is plain text.

    Args:
        vocab_size: The size to report, for models that are built after it; at least 261.

    Raises:
        ValueError: ``vocab_size`` has no room for the special tokens and the bytes.
    """

    pad_token, eos_token, bos_token, unk_token, mask_token = SPECIAL_TOKENS
    pad_token_id, eos_token_id, bos_token_id, unk_token_id, mask_token_id = range(BYTE_OFFSET)

    def __init__(self, vocab_size: int = 32768) -> None:
        if vocab_size < BYTE_OFFSET + BYTE_VALUES:
            raise ValueError(
                f"vocab_size must be at least {BYTE_OFFSET + BYTE_VALUES}, got {vocab_size}"
            )
        self.vocab_size = vocab_size

    def __len__(self) -> int:
        """Return the vocabulary size."""
        return self.vocab_size

    def encode(self, text: str) -> list[int]:
        """Turn a text into token ids.

        Raises:
            TypeError: ``text`` is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"text must be a string or a list of strings, got {type(text).__name__}"
            )
        # Lone surrogates, which files read with errors="surrogateescape" hold, come back too.
        return [byte + BYTE_OFFSET for byte in text.encode("utf-8", "surrogatepass")]

    def decode(self, token_ids: Iterable[int] | Tensor, skip_special_tokens: bool = False) -> str:
        """Turn token ids into text.

        Args:
            token_ids: Ids, or a tensor of shape (T,). Those that no text gives read ``<unk>``;
                bytes that are not UTF-8, as a model may produce them, read U+FFFD.
            skip_special_tokens: Leave out special and unknown tokens.

        Returns:
            The text.
        """
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else token_ids
        parts: list[str] = []
        run = bytearray()
        for token_id in ids:
            if BYTE_OFFSET <= token_id < BYTE_OFFSET + BYTE_VALUES:
                run.append(token_id - BYTE_OFFSET)
                continue
            if skip_special_tokens:
                continue
            parts.append(_text(run))
            run.clear()
            parts.append(_special_token(token_id))
        parts.append(_text(run))
        return "".join(parts)

    def batch_decode(
        self, sequences: Sequence[Sequence[int]] | Tensor, skip_special_tokens: bool = False
    ) -> list[str]:
        """Turn several sequences of token ids, or a tensor of shape (B, T), into texts."""
        return [self.decode(sequence, skip_special_tokens) for sequence in sequences]

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | Literal["longest", "max_length"] = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: Literal["pt"] | None = None,
    ) -> MockEncoding:
        """Encode one text or several, as Hugging Face tokenizers do.

        Args:
            text: A text, or a list of them.
            padding: True or ``"longest"`` fills up on the right to the longest text,
                ``"max_length"`` to ``max_length``.
            truncation: Cut texts to ``max_length`` tokens.
            max_length: In tokens.
            return_tensors: ``"pt"`` for int64 tensors of shape (B, T), B = 1 for one text.

        Returns:
            ``input_ids`` and ``attention_mask``: lists of ids for one text, lists of lists for
            several, or tensors.

        Raises:
            TypeError: A text is not a string.
            ValueError: ``max_length`` is needed and missing; or tensors are asked for texts of
                different lengths without padding.
        """
        if max_length is None and (truncation or padding == "max_length"):
            raise ValueError("truncation and padding='max_length' need max_length=")
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors must be 'pt' or None, got {return_tensors!r}")
        texts = [text] if isinstance(text, str) else text
        rows = [self.encode(one) for one in texts]
        if truncation:
            rows = [row[:max_length] for row in rows]
        masks = [[1] * len(row) for row in rows]
        if padding:
            longest = max((len(row) for row in rows), default=0)
            width = longest if padding != "max_length" or max_length is None else max_length
            masks = [mask + [0] * (width - len(mask)) for mask in masks]
            rows = [row + [self.pad_token_id] * (width - len(row)) for row in rows]
        if return_tensors == "pt":
            if len({len(row) for row in rows}) > 1:
                raise ValueError("the texts differ in length: pass padding=True to get tensors")
            return MockEncoding(
                input_ids=torch.tensor(rows, dtype=torch.int64),
                attention_mask=torch.tensor(masks, dtype=torch.int64),
            )
        if isinstance(text, str):
            return MockEncoding(input_ids=rows[0], attention_mask=masks[0])
        return MockEncoding(input_ids=rows, attention_mask=masks)


def get_tokenizer(name: str = "gpt2", *, allow_download: bool = False) -> Any:
    """Load a Hugging Face tokenizer, or fall back to :class:`MockTokenizer`.

    Nothing is fetched unless ``allow_download`` says so: a folder, or what is in the local
    cache, is loaded, and the network is never waited for. Code that comes with a tokenizer is
    never run.

    Args:
        name: A name on the Hugging Face hub, or a folder that holds a tokenizer.
        allow_download: Fetch the tokenizer from the hub where the local cache lacks it.

    Returns:
        The Hugging Face tokenizer; where it cannot be loaded, a :class:`MockTokenizer`, with
        a ``UserWarning`` that says why.
    """
    try:
        # Importing transformers takes seconds, which only this function should cost.
        from transformers import AutoTokenizer  # noqa: PLC0415
    except ImportError as error:
        return _fall_back(name, f"transformers cannot be imported ({error})")
    try:
        folder = _local_folder(name)
        if folder is None and not allow_download:
            return _fall_back(
                name,
                "there is no such folder, and the local cache lacks it "
                "(pass allow_download=True to fetch it)",
            )
        load: Any = AutoTokenizer.from_pretrained
        return load(
            name if folder is None else str(folder),
            local_files_only=folder is not None,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        return _fall_back(name, str(error).partition("\n")[0])


def _local_folder(name: str) -> Path | None:
    """Find a tokenizer's folder on this machine, in the Hugging Face cache if need be.

    Given a hub name, transformers asks the network about more than the files, also with
    ``local_files_only``; given a folder it does not.
    """
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - comes with transformers

    if Path(name).is_dir():
        return Path(name)
    for file_name in ("tokenizer.json", "tokenizer_config.json"):
        cached = try_to_load_from_cache(name, file_name)
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def _fall_back(name: str, reason: str) -> MockTokenizer:
    warnings.warn(
        f"no tokenizer {name!r}, so MockTokenizer stands in for it: {reason}",
        UserWarning,
        stacklevel=3,
    )
    return MockTokenizer()


def _text(run: bytearray) -> str:
    try:
        return run.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return run.decode("utf-8", "replace")


def _special_token(token_id: int) -> str:
    if 0 <= token_id < BYTE_OFFSET:
        return SPECIAL_TOKENS[token_id]
    return MockTokenizer.unk_token
