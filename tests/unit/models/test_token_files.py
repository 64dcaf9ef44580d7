from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.corpus import load_corpus
from models.spec import DataSpec
from models.token_files import map_tokens
from support.examples import examples


def drawn_ids(seed: int, vocabulary_size: int, num_tokens: int) -> np.ndarray:
    """Ids with Zipf's distribution, in which 0 is among the rare ones, as a byte-pair encoding has them."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, vocabulary_size + 1)
    ranks = rng.choice(vocabulary_size, num_tokens, p=shares / shares.sum())
    return rng.permutation(vocabulary_size)[ranks]


def spec(**fields: object) -> DataSpec:
    return DataSpec(source="tokens", **fields)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@settings(max_examples=examples(10, 25), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    vocabulary_size=st.sampled_from([4, 65, 128, 257, 512, 5000, 50_257, 65_536, 128_256]),
    num_tokens=st.integers(10_000, 20_000),
)
def test_ids_are_read_right_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, width: int, seed: int, vocabulary_size: int, num_tokens: int
) -> None:
    ids = drawn_ids(seed, vocabulary_size, 4 * (num_tokens // 4))
    if ids.max() >= 256**width:
        return
    path = tmp_path_factory.mktemp("tokens") / "train.bin"
    ids.astype(f"<u{width}").tofile(path)
    for wanted in (2, 4):
        if wanted == width:
            np.testing.assert_array_equal(map_tokens(path, max(257, vocabulary_size), wanted)[0], ids)
        else:
            with pytest.raises(ValueError, match=r"token_bytes: |bytes each|not below"):
                map_tokens(path, 50_257, wanted)


def test_messages_name_what_is_in_the_file_and_what_fits(tmp_path: Path) -> None:
    ids = drawn_ids(1, 257, 4000)
    headers = {magic: np.array([magic, 1, len(ids), *[0] * 253], dtype="<i4") for magic in (20240520, 20240801)}
    ids.astype("<u4").tofile(tmp_path / "four.bin")
    ids.astype("<i8").tofile(tmp_path / "eight.bin")
    ids.astype("<u2").tofile(tmp_path / "two.bin")
    (tmp_path / "text.bin").write_text("What is written here is text, not numbers. " * 200)
    (tmp_path / "llm.bin").write_bytes(headers[20240520].tobytes() + ids.astype("<u2").tobytes())
    (tmp_path / "llama.bin").write_bytes(headers[20240801].tobytes() + ids.astype("<u4").tobytes())
    np.save(tmp_path / "array.npy", ids.astype("<u2"))
    for name, token_bytes, message in (
        (
            "four.bin",
            2,
            "four.bin holds tokens of 4 bytes each .set token_bytes: 4.: expected uint16 tokens, 2 bytes each",
        ),
        ("eight.bin", 2, "holds tokens of 8 bytes each .write them as uint32 or uint16"),
        ("eight.bin", 4, "holds tokens of 8 bytes each .write them as uint32 or uint16.: expected uint32"),
        ("two.bin", 4, "not below vocabulary_size 257; read with token_bytes: 2, all tokens are"),
        ("text.bin", 2, "holds plain text or tokens of 1 byte each .use source: text"),
        ("llm.bin", 2, r"llm.c file of uint16 .* expected uint16 tokens alone; cut it off \(tail .* token_bytes: 2"),
        ("llama.bin", 2, "llm.c file of uint32 .* read the rest with token_bytes: 4"),
        ("array.npy", 2, "begins with the header of a NumPy file"),
    ):
        size = 50_257 if name == "text.bin" else 257
        with pytest.raises(ValueError, match=message):
            load_corpus(spec(train_tokens=name, token_bytes=token_bytes, vocabulary_size=size), tmp_path)


def test_ids_of_4_bytes_may_have_large_vocabularies(tmp_path: Path) -> None:
    ids = drawn_ids(2, 128_256, 6000)
    ids.astype("<u4").tofile(tmp_path / "train.bin")
    large = spec(train_tokens="train.bin", token_bytes=4, vocabulary_size=128_256, validation_fraction=0.5)
    corpus = load_corpus(large, tmp_path)
    np.testing.assert_array_equal(np.concatenate([corpus.train, corpus.validation]), ids)
    assert corpus.batch(0, 0, 200, 64).max() > 65_536
    with pytest.raises(ValueError, match="128,256 needs source: tokens with token_bytes: 4"):
        load_corpus(large.model_copy(update={"token_bytes": 2}), tmp_path)


def test_the_name_of_a_corpus_of_2_bytes_stays(tmp_path: Path) -> None:
    np.arange(400, dtype="<u2").tofile(tmp_path / "train.bin")
    corpus = load_corpus(spec(train_tokens="train.bin"), tmp_path)
    assert corpus.content_hash == "cbcee2570bdca1c8e74df19dd9d8d445"  # frozen: stored trainings are named by it


@pytest.mark.parametrize("fault", ["cut", "emptied", "written over", "removed"])
def test_a_file_that_changes_in_use_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "train.bin"
    drawn_ids(3, 257, 400_000).astype("<u2").tofile(path)
    corpus = load_corpus(spec(train_tokens="train.bin"), tmp_path)
    before = corpus.batch(0, 0, 4, 16)
    np.testing.assert_array_equal(corpus.batch(0, 0, 4, 16), before)
    if fault == "removed":
        path.unlink()
    else:
        content = {"cut": path.read_bytes()[:1000], "emptied": b"", "written over": path.read_bytes()[::-1]}[fault]
        path.write_bytes(content)
    message = "cannot be read any more" if fault == "removed" else "train.bin has changed while it was in use"
    for read in (lambda: corpus.batch(0, 1, 4, 16), lambda: corpus.validation_windows(4, 16)):
        with pytest.raises(ValueError, match=message):
            read()
