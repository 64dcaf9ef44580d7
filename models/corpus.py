"""Text corpora: training and validation tokens, and batches of windows by (seed, step).

A corpus is identified by its content: `content_hash` is part of the `TrainingSpec`, so paths and machines do not
matter. Batches have no state: a step repeated after a rollback reads the same data. This module does not load torch.

Documents are joined by a zero byte, which is a token of its own in both tokenizers. *Not modelled*: epochs (windows
are drawn with replacement), attention masks at document boundaries.
"""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import re
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from models.spec import LARGEST_OF_2_BYTES, DataSpec
from models.token_files import MappedFile, Tokens, map_tokens, readable
from models.training_state import digest

if TYPE_CHECKING:  # the library is imported where a text is cut into byte pairs
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import Split

Document = tuple[str, bytes]  # name, which decides the split, and content

# Of the standard library: third-party code, tests that some distributions omit, files written by builds.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
SKIPPED_PREFIXES = ("_sysconfigdata", "config-", "sitecustomize", "usercustomize")

LONGEST_WORD = 1000
"""Characters of a word that byte pairs are trained on; the time to train grows with the square of its length."""
LONG_WORD = re.compile(rf"(?<!\S)\S{{{LONGEST_WORD + 1},}}|(?<!\s)\s{{{LONGEST_WORD + 1},}}")
LETTERS_NUMBERS_OTHERS_SPACES = (
    r"\p{L}",
    r"\p{N}",
    r"[^\s\p{L}\p{N}]",
    r"\s",
)  # the words of ByteLevel are runs of one

CHARACTERS_PER_CHUNK, CHUNKS_PER_BATCH = 2**18, 64  # of text to encode: bounds memory; no token spans two chunks


@dataclass(frozen=True, eq=False)
class Corpus:
    """Training and validation token ids (uint16 or uint32, [num_tokens]). tokenizer: what made them of a text."""

    train: Tokens
    validation: Tokens
    vocabulary_size: int
    tokenizer: str
    description: str
    files: tuple[MappedFile, ...] = ()

    @cached_property
    def content_hash(self) -> str:
        """Name of the content, equal on every machine."""
        streams = self.train, self.validation
        hashes = [(stream.dtype.str, hashlib.sha256(stream.data).hexdigest()) for stream in streams]
        return digest(f"{hashes}|{self.vocabulary_size}|{self.tokenizer}")

    def batch(self, seed: int, step: int, num_sequences: int, sequence_length: int) -> npt.NDArray[np.int64]:
        """Windows of the training tokens, uniformly at random: a pure function of (seed, step).

        Shape [num_sequences, sequence_length + 1]: inputs are `[:, :-1]`, targets `[:, 1:]`.
        """
        self.require(sequence_length)
        num_starts = len(self.train) - sequence_length
        starts = np.random.default_rng([seed, step]).integers(num_starts, size=(num_sequences, 1))
        return self._windows(self.train, starts, sequence_length)

    def validation_windows(self, num_sequences: int, sequence_length: int) -> npt.NDArray[np.int64]:
        """Fixed windows, evenly spaced from first token to last: shape [num_sequences, sequence_length + 1]."""
        self.require(sequence_length, num_sequences)
        last_start = len(self.validation) - sequence_length - 1
        starts = np.arange(num_sequences)[:, None] * last_start // max(1, num_sequences - 1)
        return self._windows(self.validation, starts, sequence_length)

    def _windows(self, stream: Tokens, starts: npt.NDArray[np.int64], sequence_length: int) -> npt.NDArray[np.int64]:
        for file in self.files:
            file.require_unchanged()
        return np.asarray(stream[starts + np.arange(sequence_length + 1)], dtype=np.int64)

    def require(self, sequence_length: int, num_validation_sequences: int = 1) -> None:
        """Raise ValueError unless training has tokens for one window and validation for the given number."""
        needs = (("training", self.train, 1), ("validation", self.validation, num_validation_sequences))
        for name, stream, num_windows in needs:
            needed = sequence_length + num_windows  # windows start at least one token apart
            if len(stream) < needed:
                windows = counted(num_windows, "different sequence")
                raise ValueError(
                    f"the {name} text has {len(stream):,} tokens, but needs {needed:,} for {windows} of "
                    f"{sequence_length} + 1 tokens (data: {self.description})"
                )


def load_corpus(spec: DataSpec, base_folder: Path, cache_folder: Path | None = None) -> Corpus:
    """Read, split and tokenize the data of `spec`; relative paths start at `base_folder`.

    Byte-pair encodings are cached. ValueError for data that is missing, empty, unreadable or not as `spec` says.
    """
    needed = {"text": "files", "tokens": "train_tokens", "huggingface": "dataset"}.get(spec.source)
    if needed and not getattr(spec, needed):
        raise ValueError(f"data source '{spec.source}' needs '{needed}', which is not given")
    if spec.vocabulary_size > LARGEST_OF_2_BYTES and (spec.source, spec.token_bytes) != ("tokens", 4):
        raise ValueError(f"vocabulary_size {spec.vocabulary_size:,} needs source: tokens with token_bytes: 4")
    if spec.source == "tokens":
        return load_tokens(spec, base_folder)
    if spec.source == "stdlib":
        documents, what = read_stdlib()
    elif spec.source == "text":
        documents, what = read_text(spec.files, base_folder)
    else:
        documents, what = read_huggingface(spec, base_folder)
    train, validation = split(documents, spec.validation_fraction)
    num_bytes = sum(len(content) for _, content in documents)
    what += f", {num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f", {num_bytes:,} bytes"
    if spec.tokenizer == "bpe":
        return byte_pairs(train, validation, spec.vocabulary_size, cache_folder, f"{what} as byte pairs")
    streams = [np.frombuffer(side, dtype=np.uint8).astype("<u2") for side in (train, validation)]
    return Corpus(streams[0], streams[1], 256, "bytes", f"{what} as bytes")


def read_stdlib() -> tuple[list[Document], str]:
    """Sources of the running Python's standard library: equal wherever that version is installed."""
    top = sysconfig.get_paths()["stdlib"]
    documents = []
    for folder, folders, files in os.walk(top):
        folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith(SKIPPED_PREFIXES)]
        below = "".join(f"{part}/" for part in Path(folder).relative_to(top).parts)
        for file in files:
            is_source = file.endswith(".py") and not file.startswith(SKIPPED_PREFIXES)
            if is_source and (content := read_file(Path(folder, file))):
                documents.append((below + file, content))
    if not documents:
        raise ValueError(f"data source 'stdlib': {top} holds no Python sources; use source: text instead")
    return documents, f"Python {platform.python_version()} standard library, {len(documents):,} files"


def read_text(patterns: tuple[str, ...], base_folder: Path) -> tuple[list[Document], str]:
    """Non-empty files that match the patterns, named by their paths below their common folder."""
    contents: dict[Path, bytes] = {}
    for pattern in patterns:
        found = sorted(glob.glob(os.path.join(glob.escape(str(base_folder)), pattern), recursive=True))
        files = [Path(os.path.abspath(path)) for path in found if not os.path.isdir(path)]
        matched = {path: content for path in files if (content := read_file(path))}
        if not matched:
            only = f"only {'empty files' if files else 'folders'}, as {found[0]}" if found else "no file"
            raise ValueError(f"data source 'text': '{pattern}' matches {only} (searched from {base_folder})")
        contents |= matched
    # A file with two names, by a link, must not be on both sides of the split.
    once = {path.resolve(): path for path in sorted(contents, reverse=True)}.values()
    shared = os.path.commonpath([path.parent for path in once])
    documents = [(path.relative_to(shared).as_posix(), contents[path]) for path in once]
    return documents, counted(len(documents), "text file")


def counted(number: int, what: str) -> str:
    """A count with its noun, in the plural where needed."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def read_huggingface(spec: DataSpec, base_folder: Path) -> tuple[list[Document], str]:
    """First documents of a dataset in a local folder or on the Hugging Face hub, named by their index."""
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError as error:
        message = "the data source 'huggingface' needs the extra: pip install 'churnlab[hf]'"
        raise ValueError(message) from error
    disable_progress_bars()
    name = " ".join(filter(None, [spec.dataset, spec.dataset_config]))
    what = f"Hugging Face dataset '{name}', split '{spec.dataset_split}'"
    field, fields, values = spec.text_field, [spec.text_field], []
    try:
        path = str(local) if (local := base_folder / str(spec.dataset)).exists() else spec.dataset
        stream = load_dataset(path, spec.dataset_config, split=spec.dataset_split, streaming=True)
        for row in islice(stream, spec.max_documents):
            fields = list(row)
            if field not in fields:
                break
            values.append(row[field])
    except Exception as error:  # from the library, the network or the files
        raise ValueError(f"{what}, cannot be read: {error!r:.500}") from error
    if field not in fields:
        raise ValueError(f"{what}, has no field '{field}' (text_field); its fields are {', '.join(fields)}")
    kinds = sorted({type(value).__name__ for value in values if value is not None} - {"str"})
    if kinds:
        raise ValueError(f"{what}: field '{field}' must hold text, but holds {', '.join(kinds)}")
    documents = [(f"{index:09}", text.encode(errors="replace")) for index, text in enumerate(values) if text]
    if not documents:
        raise ValueError(f"{what}: field '{field}' is empty in all of {len(values):,} documents")
    return documents, f"{what}, {len(documents):,} documents"


def load_tokens(spec: DataSpec, base_folder: Path) -> Corpus:
    """Token files in nanoGPT's format, memory-mapped; one pass checks them."""
    if spec.tokenizer != "bytes":
        raise ValueError(f"data source 'tokens' is encoded already: leave out tokenizer '{spec.tokenizer}'")
    paths = [base_folder / name for name in (spec.train_tokens, spec.validation_tokens) if name]
    mapped = [map_tokens(path, spec.vocabulary_size, spec.token_bytes) for path in paths]
    streams = [stream for stream, _ in mapped]
    if len(streams) == 1:
        cut = int(len(streams[0]) * (1 - spec.validation_fraction))
        streams = [streams[0][:cut], streams[0][cut:]]
    elif paths[0].samefile(paths[1]):
        raise ValueError(f"data source 'tokens': {paths[0]} is both train_tokens and validation_tokens")
    files, (train, validation) = " and ".join(path.name for path in paths), streams
    what = f"token {'file' if len(paths) == 1 else 'files'} {files}, {len(train):,} + {len(validation):,} tokens"
    return Corpus(train, validation, spec.vocabulary_size, "given", what, tuple(file for _, file in mapped))


def read_file(path: Path) -> bytes:
    """Content of a file; ValueError if it cannot be read."""
    with readable(path):
        return path.read_bytes()


def split(documents: list[Document], fraction: float) -> tuple[bytes, bytes]:
    """Training and validation text: documents whose name's hash lies in the lowest `fraction` are held out."""
    if len(documents) == 1:
        content = documents[0][1]
        cut = int(len(content) * (1 - fraction))
        return content[:cut], content[cut:]
    ranks = {name: digest(ascii(name)) for name, _ in documents}  # of equal length: sorted as numbers
    num_held_out = sum(int(rank, 16) / 16**32 < fraction for rank in ranks.values())
    threshold = sorted(ranks.values())[min(max(num_held_out, 1), len(ranks) - 1)]
    train = [content for name, content in sorted(documents) if ranks[name] >= threshold]
    validation = [content for name, content in sorted(documents) if ranks[name] < threshold]
    return b"\0".join(train), b"\0".join(validation)


def byte_pairs(train: bytes, validation: bytes, size: int, cache_folder: Path | None, what: str) -> Corpus:
    """Corpus in a byte-level BPE of at most `size` tokens trained on `train`, or from the cache."""
    import tokenizers
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.trainers import BpeTrainer

    hashes = [hashlib.sha256(side).hexdigest() for side in (train, validation)]
    key = digest(f"{hashes}|{size}|{CHARACTERS_PER_CHUNK}|{tokenizers.__version__}")
    path = cache_folder / f"corpus-{key}.safetensors" if cache_folder else None
    if path and (cached := read_cache(path, what)):
        return cached
    tokenizer = tokenizers.Tokenizer(BPE())
    cutters = [Split("\0", "isolated"), *([word_cutter()] if has_long_words(train) else [])]
    tokenizer.pre_tokenizer = Sequence([*cutters, ByteLevel(add_prefix_space=False)])
    alphabet = ByteLevel.alphabet()  # all 256 bytes, so no token is unknown
    trainer = BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(chunks(train), trainer)
    streams = encode(tokenizer, train), encode(tokenizer, validation)
    corpus = Corpus(*streams, tokenizer.get_vocab_size(), tokenizer.to_str(), what)
    if path:
        write_cache(path, corpus)
    return corpus


@cache
def word_cutter() -> Split:
    """What cuts the longest words, each part of one sort of characters."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    pattern = "|".join(f"{kind}{{{LONGEST_WORD}}}" for kind in LETTERS_NUMBERS_OTHERS_SPACES)
    return Split(Regex(pattern), "isolated")


def has_long_words(content: bytes) -> bool:
    """Whether a text has words that must be cut, as DNA and lines of Chinese have: others keep their tokenizers."""
    runs = (run.group() for chunk in chunks(content) for run in LONG_WORD.finditer(chunk))
    return any(len(word_cutter().pre_tokenize_str(run)) > 1 for run in runs)


def chunks(content: bytes) -> list[str]:
    """Chunks of a text, each encoded separately."""
    text = content.decode(errors="replace")
    return [text[i : i + CHARACTERS_PER_CHUNK] for i in range(0, len(text), CHARACTERS_PER_CHUNK)]


def encode(tokenizer: Tokenizer, content: bytes) -> Tokens:
    """Tokens of a text, [num_tokens]."""
    texts, encoded = iter(chunks(content)), [np.empty(0, dtype="<u2")]
    while batch := list(islice(texts, CHUNKS_PER_BATCH)):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        encoded += [np.array(encoding.ids, dtype="<u2") for encoding in encodings]
    return np.concatenate(encoded)


def read_cache(path: Path, what: str) -> Corpus | None:
    """Corpus in a cache file, or None if the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            streams, metadata = (file.get_tensor("train"), file.get_tensor("validation")), file.metadata()
        corpus = Corpus(*streams, int(metadata["size"]), metadata["tokenizer"], what)
        return corpus if corpus.content_hash == metadata["hash"] else None
    except Exception:  # a damaged file fails in many ways; encode again
        return None


def write_cache(path: Path, corpus: Corpus) -> None:
    """Write a cache file atomically, also when several processes write it at the same time."""
    streams = {"train": corpus.train, "validation": corpus.validation}
    metadata = {"hash": corpus.content_hash, "size": str(corpus.vocabulary_size), "tokenizer": corpus.tokenizer}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            Path(folder, path.name).write_bytes(safetensors.numpy.save(streams, metadata))
            os.replace(Path(folder, path.name), path)
    except OSError as error:
        raise ValueError(f"cannot write to the cache folder {path.parent}: {error.strerror}") from error
