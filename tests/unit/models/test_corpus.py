import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer, decoders

from models import corpus as corpus_module
from models.corpus import Corpus, load_corpus
from models.spec import DataSpec
from support.examples import examples

CHECKOUT = Path(corpus_module.__file__).parents[1]


def text_spec(*files: str, **settings: object) -> DataSpec:
    return DataSpec(source="text", files=files, **settings)


def tokens_spec(**settings: object) -> DataSpec:
    return DataSpec(source="tokens", **settings)


def dataset_spec(dataset: str, **settings: object) -> DataSpec:
    return DataSpec(source="huggingface", dataset=dataset, **settings)


def counting(num_train: int, num_validation: int = 50) -> Corpus:
    """A corpus in which every token tells its own position."""
    streams = [np.arange(n, dtype=np.uint16) for n in (num_train, num_validation)]
    return Corpus(streams[0], streams[1], 65_536, "name", "counting")


def documents_of(stream: np.ndarray) -> set[bytes]:
    return set(stream.astype(np.uint8).tobytes().split(b"\0"))


@pytest.fixture
def many_files(tmp_path: Path) -> Path:
    """Forty files in two folders; each says its own name, in words that repeat."""
    for folder in ("text", "text/deeper"):
        (tmp_path / folder).mkdir()
        for number in range(20):
            text = f"{folder} {number}: the quick brown fox jumps über the lazy dog {'and on ' * number}"
            (tmp_path / folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """A folder that the datasets library can read: two hundred short documents."""
    folder = tmp_path / "fables"
    folder.mkdir()
    rows = [{"text": f"fable {number}: the fox and the grapes", "id": number} for number in range(200)]
    (folder / "fables.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "fables"


# Windows


@given(
    num_train=st.integers(2, 300),
    num_validation=st.integers(2, 300),
    sequence_length=st.integers(1, 64),
    num_sequences=st.integers(1, 20),
    seed=st.integers(0, 2**70),
    step=st.integers(0, 2**40),
)
def test_windows_are_runs_of_the_stream_or_a_clear_error(
    num_train: int, num_validation: int, sequence_length: int, num_sequences: int, seed: int, step: int
) -> None:
    corpus = counting(num_train, num_validation)
    if num_train < sequence_length + 1 or num_validation < sequence_length + num_sequences:
        with pytest.raises(ValueError, match=r"text has \d+ tokens, but needs \d+"):
            corpus.require(sequence_length, num_sequences)
        return
    corpus.require(sequence_length, num_sequences)
    batch = corpus.batch(seed, step, num_sequences, sequence_length)
    held_out = corpus.validation_windows(num_sequences, sequence_length)
    for windows, length in ((batch, num_train), (held_out, num_validation)):
        assert windows.shape == (num_sequences, sequence_length + 1)
        assert windows.dtype == np.int64
        assert (np.diff(windows, axis=1) == 1).all()
        assert windows.min() >= 0
        assert windows.max() < length
    starts = held_out[:, 0]
    assert len(set(starts)) == num_sequences
    assert starts[0] == 0
    if num_sequences > 1:
        assert held_out[-1, -1] == num_validation - 1
        gaps = np.diff(starts)
        assert gaps.max() - gaps.min() <= 1, "evenly spaced"


def test_a_batch_depends_on_seed_and_step_and_on_nothing_else() -> None:
    corpus = counting(1000)
    in_order = [corpus.batch(3, step, 4, 16) for step in range(10)]
    again = {step: counting(1000).batch(3, step, 4, 16) for step in (7, 0, 9, 7, 2)}
    for step, batch in again.items():
        np.testing.assert_array_equal(batch, in_order[step])
    assert not np.array_equal(in_order[0], in_order[1])
    assert not np.array_equal(in_order[0], corpus.batch(4, 0, 4, 16))
    assert corpus.batch(3, 7, 4, 2)[:, 0].tolist() == [529, 680, 965, 598]  # frozen: results rest on it
    reached = counting(10).batch(0, 0, 200, 7)
    assert set(reached[:, 0]) == {0, 1, 2}
    np.testing.assert_array_equal(counting(8).batch(0, 0, 2, 7), [range(8)] * 2)


def test_too_short_a_stream_names_the_tokens_it_has_and_needs() -> None:
    with pytest.raises(ValueError, match=r"the training text has 8 tokens, but needs 9 for 1 .* of 8 \+ 1"):
        counting(8).batch(0, 0, 1, 8)
    with pytest.raises(ValueError, match=r"the validation text has 10 tokens, but needs 12 for 4 .* of 8 \+ 1"):
        counting(100, 10).validation_windows(4, 8)
    with pytest.raises(ValueError, match="data: counting"):
        counting(100, 10).require(10)


# The standard library


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the standard library, with one good file in it."""
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    (tmp_path / "email" / "mime").mkdir(parents=True)
    (tmp_path / "email" / "mime" / "image.py").write_text("good = 1")
    return tmp_path


def test_the_standard_library_is_megabytes_of_python() -> None:
    corpus = load_corpus(DataSpec(), Path("nowhere"))
    corpus.require(1024, 64)
    assert len(corpus.train) > 4_000_000
    assert 0.01 < len(corpus.validation) / len(corpus.train) < 0.2
    assert corpus.vocabulary_size == 256
    assert corpus.train.dtype == np.uint16
    version = ".".join(map(str, sys.version_info[:3]))
    assert corpus.description.startswith(f"Python {version} standard library, ")
    assert corpus.description.endswith(" MB as bytes")
    whole = corpus.train.astype(np.uint8).tobytes() + corpus.validation.astype(np.uint8).tobytes()
    assert b"class TextWrapper:" in whole
    for place in {sys.prefix, sys.base_prefix} - {"/usr"}:
        assert place.encode() not in whole, "nothing of this machine"
    assert load_corpus(DataSpec(), Path()).content_hash == corpus.content_hash


def test_build_products_of_the_standard_library_are_left_out(library: Path) -> None:
    (library / "another.py").write_text("good = 2")
    (library / "notes.txt").write_text("bad")
    (library / "sitecustomize.py").write_text("bad")
    (library / "_sysconfigdata__linux.py").write_text("bad")
    folders = "site-packages/numpy test email/tests idlelib/idle_test config-3.11-x86 x/__pycache__"
    for folder in folders.split():
        (library / folder).mkdir(parents=True)
        (library / folder / "module.py").write_text("bad")
    corpus = load_corpus(DataSpec(), library)
    assert documents_of(corpus.train) | documents_of(corpus.validation) == {b"good = 1", b"good = 2"}


def test_a_python_without_sources_suggests_text(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (library / "email" / "mime" / "image.py").rename(library / "image.pyc")
    with pytest.raises(ValueError, match="holds no Python sources; use source: text"):
        load_corpus(DataSpec(), library)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(library / "python311.zip")})
    with pytest.raises(ValueError, match=r"python311.zip holds no Python sources; use source: text"):
        load_corpus(DataSpec(), library)


# Text files


def test_a_file_is_read_once_for_training_or_for_validation(many_files: Path):
    corpus = load_corpus(text_spec("text/**", validation_fraction=0.3), many_files)
    train, validation = documents_of(corpus.train), documents_of(corpus.validation)
    assert len(train) + len(validation) == 40
    assert not train & validation
    assert 4 <= len(validation) <= 20
    assert train | validation == {path.read_bytes() for path in many_files.rglob("*.txt")}
    assert corpus.description.startswith("40 text files, ")
    (many_files / "text" / "link.txt").symlink_to(many_files / "text" / "7.txt")
    once = load_corpus(text_spec("text/*.txt"), many_files)
    twice = load_corpus(text_spec("text/*.txt", "text/../text/?.txt", str(many_files / "text/3.txt")), many_files)
    assert len(documents_of(once.train) | documents_of(once.validation)) == 20
    assert len(once.train) + len(once.validation) == len(twice.train) + len(twice.validation)
    assert once.content_hash == twice.content_hash


def test_a_files_split_is_independent_of_others_and_the_folder(many_files: Path) -> None:
    spec = text_spec("text/**/*.txt", validation_fraction=0.3)
    before = load_corpus(spec, many_files)
    moved = many_files / "elsewhere"
    moved.mkdir()
    (many_files / "text").rename(moved / "renamed")
    absolute = load_corpus(text_spec(f"{moved}/renamed/**/*.txt", validation_fraction=0.3), many_files)
    assert absolute.content_hash == before.content_hash
    (moved / "renamed" / "new.txt").write_text("a new file")
    after = load_corpus(text_spec("**/*.txt", validation_fraction=0.3), moved)
    assert documents_of(before.train) <= documents_of(after.train)
    assert documents_of(before.validation) <= documents_of(after.validation)
    assert after.content_hash != before.content_hash


@pytest.mark.parametrize("fraction", [0.0001, 0.9999])
def test_neither_side_of_a_few_files_is_empty(tmp_path: Path, fraction: float) -> None:
    for name in "abc":
        (tmp_path / name).write_text(f"file {name}")
    corpus = load_corpus(text_spec("*", validation_fraction=fraction), tmp_path)
    sizes = [len(documents_of(stream)) for stream in (corpus.train, corpus.validation)]
    assert sizes == ([2, 1] if fraction < 0.5 else [1, 2])


def test_a_single_file_is_cut_by_position(tmp_path: Path):
    (tmp_path / "book.txt").write_bytes(bytes(range(200)))
    corpus = load_corpus(text_spec("book.txt", validation_fraction=0.1), tmp_path)
    np.testing.assert_array_equal(corpus.train, np.arange(180))
    np.testing.assert_array_equal(corpus.validation, np.arange(180, 200))
    name = write_tokens(tmp_path / "all.bin", list(range(200)))
    corpus = load_corpus(tokens_spec(train_tokens=name, validation_fraction=0.25), tmp_path)
    assert corpus.train.tolist() == list(range(150))
    assert corpus.validation.tolist() == list(range(150, 200))


def test_names_of_folders_and_files_may_be_globs_and_any_bytes(tmp_path: Path) -> None:
    base = tmp_path / "run [1]*"
    base.mkdir()
    for name in (b"\xff\xfe.txt", "größe.txt".encode()):
        Path(os.fsdecode(bytes(base) + b"/" + name)).write_text("words")
    assert load_corpus(text_spec("*.txt"), base).description == "2 text files, 10 bytes as bytes"


def test_text_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "empty.txt").touch()
    (tmp_path / "full.txt").write_text("words and words")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    for files, message in (
        ((), "'text' needs 'files'"),
        (("nothing/*.md",), r"'nothing/\*.md' matches no file \(searched from .*"),
        (("full.txt", "no.txt"), "'no.txt' matches no file"),
        (("fold*",), r"'fold\*' matches only folders, as .*folder"),
        (("folder",), "'folder' matches only folders"),
        (("folder/*",), r"'folder/\*' matches only empty files, as .*empty.txt"),
        (("dang*",), "cannot read .*dangling.txt: expected a file, but it is missing"),
        (("pipe",), "cannot read .*pipe: expected a file, but it is a pipe or device"),
    ):
        with pytest.raises(ValueError, match=message):
            load_corpus(text_spec(*files), tmp_path)
    monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(ValueError, match=r"cannot read .*full.txt: Permission denied"):
        load_corpus(text_spec("full.txt"), tmp_path)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_tiny_text_says_that_it_is_too_short(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "tiny.txt").write_text("a")
    corpus = load_corpus(text_spec("tiny.txt", tokenizer=tokenizer), tmp_path)
    with pytest.raises(ValueError, match=r"training text has 0 tokens, but needs 129 .*1 text file, 1 bytes"):
        corpus.require(128, 4)


# Token files


def write_tokens(path: Path, tokens: list[int]) -> str:
    np.array(tokens, dtype="<u2").tofile(path)
    return path.name


def test_token_files_are_taken_as_they_are(tmp_path: Path) -> None:
    train = write_tokens(tmp_path / "train.bin", [*range(1000), 50_256])
    validation = write_tokens(tmp_path / "val.bin", list(range(1100)))
    spec = tokens_spec(train_tokens=train, validation_tokens=validation, vocabulary_size=50_257)
    corpus = load_corpus(spec, tmp_path)
    assert corpus.train.tolist() == [*range(1000), 50_256]
    assert corpus.validation.tolist() == list(range(1100))
    assert corpus.vocabulary_size == 50_257
    assert corpus.description == "token files train.bin and val.bin, 1,001 + 1,100 tokens"
    assert not corpus.train.flags.writeable
    assert corpus.batch(0, 0, 3, 1000)[0, -1] == 50_256


def test_token_files_that_cannot_be_right(tmp_path: Path) -> None:
    good = write_tokens(tmp_path / "good.bin", [1, 2, 511, 3])
    (tmp_path / "odd.bin").write_bytes(b"12345")
    (tmp_path / "empty.bin").touch()
    (tmp_path / "folder").mkdir()
    gpt2 = write_tokens(tmp_path / "gpt2.bin", [1, 2, 50_256, 512])
    for settings_, message in (
        ({}, "'tokens' needs 'train_tokens'"),
        ({"train_tokens": "gone.bin"}, "cannot read .*gone.bin: expected a file, but it is missing"),
        ({"train_tokens": "folder"}, "cannot read .*folder: expected a file, but it is a folder"),
        ({"train_tokens": "odd.bin"}, "odd.bin has 5 bytes: expected uint16 tokens, 2 bytes each"),
        ({"train_tokens": good, "validation_tokens": "empty.bin"}, "empty.bin has 0 bytes"),
        ({"train_tokens": gpt2}, "gpt2.bin: token 50256 at 2 is not below vocabulary_size 512"),
        ({"train_tokens": good, "validation_tokens": gpt2}, "gpt2.bin: token 50256"),
        ({"train_tokens": good, "validation_tokens": good}, "both train_tokens and validation_tokens"),
        ({"train_tokens": good, "tokenizer": "bpe"}, "encoded already: leave out tokenizer 'bpe'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_corpus(tokens_spec(**settings_), tmp_path)


# Hugging Face


def test_documents_of_a_local_dataset_are_found_empty_ones_not(tmp_path: Path, dataset: str):
    spec = dataset_spec(dataset, max_documents=150, validation_fraction=0.2)
    corpus = load_corpus(spec, tmp_path)
    train, validation = documents_of(corpus.train), documents_of(corpus.validation)
    assert not train & validation
    assert train | validation == {b"fable %d: the fox and the grapes" % number for number in range(150)}
    assert 15 <= len(validation) <= 50
    assert corpus.description.startswith("Hugging Face dataset 'fables', split 'train', 150 documents, ")
    assert str(tmp_path) not in corpus.description
    absolute = load_corpus(spec.model_copy(update={"dataset": str(tmp_path / dataset)}), Path())
    assert absolute.content_hash == corpus.content_hash
    fewer = load_corpus(spec.model_copy(update={"max_documents": 100}), tmp_path)
    assert documents_of(fewer.train) <= train, "documents keep their side"
    (tmp_path / "some").mkdir()
    rows = [{"story": text} for text in ("one", "", None, "two", "")]
    (tmp_path / "some" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = load_corpus(dataset_spec("some", text_field="story"), tmp_path)
    assert documents_of(corpus.train) | documents_of(corpus.validation) == {b"one", b"two"}


def test_datasets_that_cannot_be_read(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "void").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jsonl").write_text('{"text": "so far so good"}\n{"text": [[[')
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "a.jsonl").write_text('{"text": ""}\n{"text": ""}')
    for spec, message in (
        (DataSpec(source="huggingface"), "'huggingface' needs 'dataset'"),
        (dataset_spec(dataset, text_field="story"), r"'fables'.* no field 'story' \(text_field\); .* text, id"),
        (dataset_spec(dataset, text_field="id"), "field 'id' must hold text, but holds int"),
        (dataset_spec(dataset, dataset_split="test"), r"split 'test', cannot be read: .*Available splits"),
        (dataset_spec(dataset, dataset_config="old"), "'fables old'.* cannot be read: "),
        (dataset_spec(str(tmp_path / "gone")), "gone'.* cannot be read: FileNotFoundError"),
        (dataset_spec("void"), "'void'.* cannot be read: "),
        (dataset_spec("broken"), "'broken'.* cannot be read: "),
        (dataset_spec("blank"), "'blank'.* field 'text' is empty in all of 2 documents"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_corpus(spec, tmp_path)
        assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_or_a_missing_library_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\n(LocalEntryNotFoundError)")
    monkeypatch.setattr("datasets.load_dataset", Mock(side_effect=unreachable))
    with pytest.raises(ValueError, match=r"'nobody/nothing', split 'train', cannot be read: .*Couldn't reach"):
        load_corpus(dataset_spec("nobody/nothing"), tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    extra = r"the data source 'huggingface' needs the extra: pip install 'churnlab\[hf\]'"
    with pytest.raises(ValueError, match=extra):
        load_corpus(dataset_spec("wikitext"), tmp_path)


# Byte pairs


def stored_text(cache_folder: Path, name: str) -> str:
    """A stream's text, decoded from its cached tokens by the cached tokenizer."""
    (path,) = cache_folder.iterdir()
    with safe_open(path, framework="numpy") as file:
        tokenizer = Tokenizer.from_str(file.metadata()["tokenizer"])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer.decode(file.get_tensor(name).tolist())


def test_byte_pairs_say_the_same_in_fewer_tokens(many_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where long texts are encoded in chunks."""
    spec = text_spec("text/**", validation_fraction=0.2)
    as_bytes = load_corpus(spec, many_files)
    texts = {name: getattr(as_bytes, name).astype(np.uint8).tobytes().decode() for name in ("train", "validation")}
    in_pairs = spec.model_copy(update={"tokenizer": "bpe", "vocabulary_size": 300})
    pairs = load_corpus(in_pairs, many_files, many_files / "cache")
    assert pairs.vocabulary_size == 300
    assert pairs.train.dtype == np.uint16
    assert 256 <= pairs.train.max() < 300
    assert len(pairs.train) < 0.7 * len(as_bytes.train)
    assert {name: stored_text(many_files / "cache", name) for name in texts} == texts
    assert pairs.content_hash != as_bytes.content_hash
    monkeypatch.setattr(corpus_module, "CHARACTERS_PER_CHUNK", 50)
    monkeypatch.setattr(corpus_module, "CHUNKS_PER_BATCH", 3)
    load_corpus(in_pairs, many_files, many_files / "of chunks")
    assert {name: stored_text(many_files / "of chunks", name) for name in texts} == texts


def test_byte_pairs_know_every_byte_and_keep_documents_apart(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_bytes(b"(a)" * number + b"(a)")
    (tmp_path / "strange.txt").write_bytes("žluťoučký 🐎 \x7f\u0085".encode() + b"\xff\xfe")
    spec = text_spec("*.txt", tokenizer="bpe", vocabulary_size=400, validation_fraction=0.5)
    corpus = load_corpus(spec, tmp_path, tmp_path / "cache")
    assert corpus.vocabulary_size < 400, "so little text has not so many pairs"
    texts = [stored_text(tmp_path / "cache", name) for name in ("train", "validation")]
    assert any("žluťoučký 🐎 \x7f\u0085\ufffd\ufffd" in text for text in texts)
    num_borders = sum(text.count("\0") for text in texts)
    separator = np.bincount(np.concatenate([corpus.train, corpus.validation]), minlength=257)
    assert num_borders == 29
    assert 29 in separator[:256], "one token of its own for each border"


def test_byte_pairs_are_the_same_in_every_process(many_files: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from models.corpus import load_corpus
from models.spec import DataSpec
assert not {{"torch", "datasets", "sim"}} & set(sys.modules)
spec = DataSpec(source="text", files=("text/**", {corpus_module.__file__!r}), tokenizer="bpe", vocabulary_size=600)
print(load_corpus(spec, Path({str(many_files)!r})).content_hash)
"""
    names = set()
    for seed, parallel in (("1", "true"), ("2", "true"), ("3", "false")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
        names.add(done.stdout.strip())
    assert len(names) == 1
    assert len(names.pop()) == 32


def test_only_the_training_text_decides_the_pairs(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"spam and eggs " * 90 + b"other endings " * 10)
    spec = text_spec("book.txt", tokenizer="bpe", validation_fraction=0.1)
    before = load_corpus(spec, tmp_path)
    (tmp_path / "book.txt").write_bytes(b"spam and eggs " * 90 + b"quite more so " * 10)
    after = load_corpus(spec, tmp_path)
    np.testing.assert_array_equal(before.train, after.train)
    assert before.content_hash != after.content_hash


@pytest.mark.parametrize("alphabet", ["ACGT", "0123456789", "".join(map(chr, range(0x4E00, 0x5200))), " \t", "=-"])
def test_text_without_spaces_is_learnt_in_pieces(tmp_path: Path, alphabet: str) -> None:
    """The time to learn pairs grows with the square of a word's length: 300,000 letters took minutes."""
    drawn = np.random.default_rng(0).choice(list(alphabet), 300_000 if len(alphabet) < 100 else 100_000)
    text = "x" + "".join(drawn) + "x"
    (tmp_path / "genome.txt").write_text(text, encoding="utf-8", newline="")
    spec = text_spec("genome.txt", tokenizer="bpe", vocabulary_size=300)
    corpus = load_corpus(spec, tmp_path, tmp_path / "cache")
    assert corpus.vocabulary_size > 260
    learnt = stored_text(tmp_path / "cache", "train").rstrip("\ufffd")  # a character may lie on both sides of the split
    assert len(learnt) > 0.9 * len(text)
    assert text.startswith(learnt)


def test_words_are_cut_only_where_long_ones_exist(tmp_path: Path) -> None:
    ordinary = b"spam and eggs " * 90 + b"=" * corpus_module.LONGEST_WORD + b" ham" + b"(a)" * 1000
    assert not corpus_module.has_long_words(ordinary)
    for long in (b"=" * 1001, b"A" * 1001, b"7" * 2000, b" " * 1500, "山".encode() * 1001):
        assert corpus_module.has_long_words(b"spam " + long + b" eggs")


def refuse_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizers.trainers.BpeTrainer", Mock(side_effect=AssertionError("trained again")))


def same(one: Corpus, other: Corpus) -> bool:
    streams = ((one.train, other.train), (one.validation, other.validation))
    return one.content_hash == other.content_hash and all(np.array_equal(a, b) for a, b in streams)


def test_an_encoding_is_learnt_once(many_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = text_spec("text/**", tokenizer="bpe", vocabulary_size=300)
    cache = many_files / "deep" / "cache"
    first = load_corpus(spec, many_files, cache)
    load_corpus(spec.model_copy(update={"vocabulary_size": 290}), many_files, cache)
    assert len(list(cache.iterdir())) == 2, "one file for each, and nothing temporary"
    without = load_corpus(spec, many_files)
    refuse_to_train(monkeypatch)
    cached = load_corpus(spec, many_files, cache)
    assert same(first, cached)
    assert same(first, without)
    assert first.description == cached.description
    assert first.vocabulary_size == cached.vocabulary_size
    (many_files / "text" / "3.txt").write_text("something else")
    with pytest.raises(AssertionError, match="trained again"):
        load_corpus(spec, many_files, cache)


def test_a_damaged_cache_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "book.txt").write_bytes(b"spam and eggs and spam " * 20)
    spec = text_spec("book.txt", tokenizer="bpe", vocabulary_size=260)
    good = load_corpus(spec, tmp_path, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    assert load_corpus(spec, tmp_path, tmp_path / "cache").vocabulary_size == good.vocabulary_size

    @settings(max_examples=examples(20, 60), deadline=None)
    @given(at=st.integers(0, len(whole) - 1), bit=st.integers(0, 7), cut=st.booleans())
    def damage(at: int, bit: int, cut: bool) -> None:
        changed = bytes([*whole[:at], whole[at] ^ 1 << bit, *whole[at + 1 :]])
        path.write_bytes(whole[:at] if cut else changed)
        again = load_corpus(spec, tmp_path, tmp_path / "cache")
        assert same(good, again)
        assert again.vocabulary_size == good.vocabulary_size
        assert again.train.dtype == np.uint16

    damage()
    path.write_bytes(b"")
    load_corpus(spec, tmp_path, tmp_path / "cache")
    refuse_to_train(monkeypatch)
    assert same(good, load_corpus(spec, tmp_path, tmp_path / "cache"))


def test_a_cache_folder_that_cannot_be_written_is_named(many_files: Path) -> None:
    (many_files / "cache").write_text("a file, not a folder")
    with pytest.raises(ValueError, match=r"cannot write to the cache folder .*cache: "):
        load_corpus(text_spec("text/*.txt", tokenizer="bpe"), many_files, many_files / "cache")
