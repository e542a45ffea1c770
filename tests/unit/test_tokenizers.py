"""MockTokenizer and get_tokenizer."""

import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cross_phase.utils import MockTokenizer, get_tokenizer

any_text = st.text(st.characters(exclude_categories=()), max_size=40)


def test_special_tokens_and_vocabulary_are_the_agreed_ones() -> None:
    tokenizer = MockTokenizer()

    assert tokenizer.pad_token_id == 0
    assert tokenizer.eos_token_id == 1
    assert tokenizer.bos_token_id == 2
    assert tokenizer.unk_token_id == 3
    assert tokenizer.mask_token_id == 4
    assert tokenizer.vocab_size == len(tokenizer) == 32768
    assert tokenizer.decode(range(5)) == "<pad><eos><bos><unk><mask>"


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_every_text_comes_back_exactly(text: str) -> None:
    tokenizer = MockTokenizer()
    ids = tokenizer.encode(text)

    assert tokenizer.decode(ids) == text
    assert all(5 <= token_id < tokenizer.vocab_size for token_id in ids)


def test_ids_are_the_same_in_every_process() -> None:
    # Literals, because what one process computes twice would also hold for a salted hash.
    assert MockTokenizer().encode("Hé!") == [77, 200, 174, 38]


def test_text_that_looks_like_a_special_token_is_plain_text() -> None:
    tokenizer = MockTokenizer()

    assert 1 not in tokenizer.encode("<eos>")
    assert tokenizer.decode([*tokenizer.encode("<eos>"), 1], skip_special_tokens=True) == "<eos>"


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(-5, 40_000), max_size=20), skip=st.booleans())
def test_whatever_a_model_produces_can_be_decoded(ids: list[int], skip: bool) -> None:
    text = MockTokenizer().decode(torch.tensor(ids, dtype=torch.int64), skip_special_tokens=skip)

    assert isinstance(text, str)


def test_unknown_ids_and_broken_bytes_are_marked() -> None:
    tokenizer = MockTokenizer()

    assert tokenizer.decode([9999]) == "<unk>"
    assert tokenizer.decode([5 + 0xFF]) == "\N{REPLACEMENT CHARACTER}"


def test_a_call_gives_ids_and_mask_for_one_text_and_for_several() -> None:
    tokenizer = MockTokenizer()

    one = tokenizer("ab")
    assert one.input_ids == tokenizer.encode("ab")
    assert one.attention_mask == [1, 1]
    several = tokenizer(["ab", "c"])
    assert several["input_ids"] == [tokenizer.encode("ab"), tokenizer.encode("c")]
    assert several["attention_mask"] == [[1, 1], [1]]
    assert tokenizer.batch_decode(several.input_ids) == ["ab", "c"]


def test_padding_fills_up_on_the_right_and_is_masked(device: torch.device) -> None:
    tokenizer = MockTokenizer()
    encoding = tokenizer(["abc", "d"], padding=True, return_tensors="pt").to(device)

    assert encoding.input_ids.dtype == torch.int64
    assert encoding.input_ids.shape == (2, 3)
    assert encoding.input_ids.device.type == device.type
    assert encoding.input_ids[1].tolist() == [*tokenizer.encode("d"), 0, 0]
    assert encoding.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert tokenizer.batch_decode(encoding.input_ids, skip_special_tokens=True) == ["abc", "d"]


def test_truncation_and_max_length_give_exact_shapes() -> None:
    tokenizer = MockTokenizer()

    assert tokenizer("abcdef", truncation=True, max_length=4).input_ids == tokenizer.encode("abcd")
    fixed = tokenizer(["abcdef", "a"], truncation=True, padding="max_length", max_length=4)
    assert [len(row) for row in fixed.input_ids] == [4, 4]
    assert tokenizer("abc", return_tensors="pt").input_ids.shape == (1, 3)
    assert tokenizer([], return_tensors="pt").input_ids.numel() == 0


def test_bad_calls_are_refused() -> None:
    tokenizer = MockTokenizer()

    with pytest.raises(ValueError, match="padding=True"):
        tokenizer(["abc", "d"], return_tensors="pt")
    with pytest.raises(ValueError, match="max_length="):
        tokenizer("abc", truncation=True)
    with pytest.raises(ValueError, match="return_tensors"):
        tokenizer("abc", return_tensors="np")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        tokenizer(["abc", 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="261"):
        MockTokenizer(vocab_size=260)


def word_tokenizer(folder: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    words = tokenizers.models.WordLevel({"<unk>": 0, "hello": 1, "world": 2}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def network_attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse the network, and tell what asked for it."""
    attempts: list[Any] = []

    def refuse(*address: Any, **options: Any) -> NoReturn:
        attempts.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


@pytest.mark.filterwarnings("error:.*MockTokenizer")
def test_a_hugging_face_tokenizer_in_a_folder_is_loaded(
    tmp_path: Path, network_attempts: list[Any]
) -> None:
    tokenizer = get_tokenizer(str(word_tokenizer(tmp_path / "words")))

    assert not isinstance(tokenizer, MockTokenizer)
    assert tokenizer.encode("hello world") == [1, 2]
    assert network_attempts == []


@pytest.mark.filterwarnings("error:.*MockTokenizer")
def test_a_hugging_face_tokenizer_in_the_cache_is_loaded(
    tmp_path: Path, network_attempts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--our--words"
    word_tokenizer(repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")

    tokenizer = get_tokenizer("our/words")

    assert tokenizer.encode("world hello") == [2, 1]
    assert network_attempts == []


def test_without_permission_the_network_is_not_touched(network_attempts: list[Any]) -> None:
    with pytest.warns(UserWarning, match="MockTokenizer stands in .* allow_download=True"):
        tokenizer = get_tokenizer("no-such-organisation/no-such-tokenizer")

    assert isinstance(tokenizer, MockTokenizer)
    assert network_attempts == []


def test_with_permission_the_hub_is_asked_and_its_failure_is_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    calls: list[tuple[str, dict[str, Any]]] = []

    def from_pretrained(name: str, **options: Any) -> NoReturn:
        calls.append((name, options))
        raise OSError("the hub does not answer")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)

    with pytest.warns(UserWarning, match="the hub does not answer"):
        assert isinstance(get_tokenizer("our/unheard-of", allow_download=True), MockTokenizer)
    assert calls == [("our/unheard-of", {"local_files_only": False, "trust_remote_code": False})]


def test_a_name_or_folder_that_cannot_be_a_tokenizer_says_why(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Repo id"):
        assert isinstance(get_tokenizer("not a name"), MockTokenizer)
    with pytest.warns(UserWarning, match="MockTokenizer stands in for it: ."):
        assert isinstance(get_tokenizer(str(tmp_path)), MockTokenizer)


def test_a_missing_transformers_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.warns(UserWarning, match="transformers cannot be imported"):
        assert isinstance(get_tokenizer("gpt2"), MockTokenizer)
