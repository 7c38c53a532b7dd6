"""Where sentence pairs come from: the source that a study names is found, and read as its splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa

from leanformer.config import TextDataConfig
from leanformer.data.hub import SourceSplit, check_hub, load_dataset, quiet
from leanformer.data.iwslt import is_iwslt, read_iwslt
from leanformer.data.number_words import number_words
from leanformer.data.pairs import SentencePairs
from leanformer.data.splits import name_splits
from leanformer.data.text_files import lines_with_endings, read_aligned, read_tmx, read_tsv
from leanformer.errors import LeanformerError

TABLE_FORMATS = {".jsonl": "json", ".parquet": "parquet"}  # the suffix, and the format's name in datasets
FILE_SUFFIXES = (".tsv", ".tmx", *TABLE_FORMATS)


def read_source(config: TextDataConfig) -> tuple[dict[str, SentencePairs], list[str]]:
    """The pairs of ``config.source`` as they are written there, in the shapes that docs/text-data.md lists.

    Returns:
        ``{role: pairs}`` with ``train`` and, where the source has them, ``validation`` and ``test``; and in words what
        was found.

    Raises:
        LeanformerError: for a source that is missing, cannot be read or understood, or has no such languages.
    """
    languages = (config.source_language, config.target_language)
    if config.source == "number-words":
        kinds = ", ".join(dict.fromkeys(config.numbers.kinds))
        note = f"numbers to {config.numbers.largest:,} in words ({kinds}; seed {config.split_seed})"
        return number_words(config), [note]
    path = Path(config.source).expanduser()
    if path.is_dir():
        return _read_directory(path, config, languages)
    if path.is_file():
        return _read_file(path, config, languages)
    aligned = [path.with_name(f"{path.name}.{language}") for language in languages]
    if any(file.is_file() for file in aligned):
        return {"train": read_aligned(*aligned)}, [f"files: {' and '.join(map(str, aligned))}"]
    check_hub(config.source, f"no such directory or file, and no {' and '.join(map(str, aligned))}")
    with quiet():
        return _from_table(load_dataset(config.source, config.source, config.subset), config, languages)


def _read_directory(
    directory: Path, config: TextDataConfig, languages: tuple[str, str]
) -> tuple[dict[str, SentencePairs], list[str]]:
    """An IWSLT archive, a data set in the hub's layout, or aligned plain files."""
    if is_iwslt(directory):
        splits, notes = read_iwslt(directory, languages)
        if "train" not in splits:
            raise LeanformerError(
                f"data.source {config.source}: holds no training file train.tags.{'-'.join(languages)}.{languages[0]} "
                "(or of the other direction); take it from the same archive"
            )
        return splits, notes
    if any(path.suffix in TABLE_FORMATS for path in directory.rglob("*")):
        with quiet():
            return _from_table(load_dataset(config.source, str(directory), config.subset), config, languages)
    names = lines_with_endings(directory, languages)
    if not names:
        raise LeanformerError(
            f"data.source {config.source}: holds no parquet or jsonl files, no IWSLT archive, and no files such as "
            f"train.{languages[0]} and train.{languages[1]}"
        )
    roles, notes = _roles(list(names), config.source)
    notes.append(
        f"files: {', '.join(sorted(f'{name}.{language}' for name in roles.values() for language in languages))}"
    )
    return {
        role: read_aligned(*(directory / f"{name}.{language}" for language in languages))
        for role, name in roles.items()
    }, notes


def _read_file(
    file: Path, config: TextDataConfig, languages: tuple[str, str]
) -> tuple[dict[str, SentencePairs], list[str]]:
    """One file of pairs, which is training data to divide."""
    suffix = file.suffix.lower()
    if suffix in TABLE_FORMATS:
        with quiet():
            splits = load_dataset(config.source, TABLE_FORMATS[suffix], data_files={"train": str(file)})
        return _from_table(splits, config, languages)
    if suffix == ".tsv":
        return {"train": read_tsv(file, languages)}, []
    if suffix == ".tmx":
        pairs, others = read_tmx(file, languages)
        return {"train": pairs}, [f"{others:,} translation units without both languages left out"] if others else []
    right = f"one of {', '.join(FILE_SUFFIXES)}"
    if suffix.removeprefix(".") in languages:
        right = f"{file.with_suffix('')} for it and its partner in the other language"
    raise LeanformerError(f"data.source {config.source}: is a file of another kind; give {right}")


def _roles(found: list[str], source: str) -> tuple[dict[str, str], list[str]]:
    """The names of the splits by role, and in words which are not used."""
    roles = name_splits(found, source)
    unused = [name for name in found if name not in roles.values()]
    return roles, [f"splits not used: {', '.join(unused)}"] if unused else []


def _from_table(
    found: Mapping[str, SourceSplit], config: TextDataConfig, languages: tuple[str, str]
) -> tuple[dict[str, SentencePairs], list[str]]:
    """The pairs of a data set's splits, from a column a language, or a column ``translation`` of both."""
    roles, notes = _roles(list(found), config.source)
    splits = {}
    for role, name in roles.items():
        split = found[name]
        if "translation" in split.examples.features and not set(languages) <= set(split.examples.features):
            examples = split.examples.select_columns(["translation"]).flatten()
            names = {column: column.removeprefix("translation.") for column in examples.features}
            split = replace(split, examples=examples.rename_columns(names))
        splits[role] = SentencePairs(*(_column(split, language, config) for language in languages))
    notes.append(f"columns: {languages[0]} (source), {languages[1]} (target)")
    return splits, notes


def _column(split: SourceSplit, language: str, config: TextDataConfig) -> tuple[str, ...]:
    """The sentences of a column; what is missing counts as empty."""
    key = "source_language" if language == config.source_language else "target_language"
    features = split.examples.features
    if language not in features:
        raise LeanformerError(f"data.{key}: no column {language!r} in {config.source}; there are {', '.join(features)}")
    feature = features[language]
    if not isinstance(feature, datasets.Value) or feature.dtype not in ("string", "large_string"):
        raise LeanformerError(f"data.{key}: column {language!r} of {config.source} holds {feature}; wanted are strings")
    stored = split.examples.select_columns([language]).with_format("arrow")[:][language]
    texts = []
    for row, value in enumerate(stored.cast(pa.large_binary()).to_pylist()):  # strings are not checked when read
        try:
            texts.append((value or b"").decode())
        except UnicodeDecodeError as error:
            raise LeanformerError(
                f"{split.place(row, language)}: byte 0x{value[error.start]:02x} is not UTF-8; convert the file to UTF-8"
            ) from error
    return tuple(texts)
