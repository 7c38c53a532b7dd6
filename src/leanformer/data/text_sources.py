"""Where sentence pairs come from: finds the source that a study names, and reads its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanformer.config.translation import TextDataConfig
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.paths import source_path
from leanformer.core.warning import StudyWarning
from leanformer.data.groups import column_groups, shared_groups
from leanformer.data.hub import SourceSplit, check_hub, load_dataset, quiet, refuse_subset
from leanformer.data.iwslt import is_iwslt, read_iwslt
from leanformer.data.languages import match_codes, same_language
from leanformer.data.number_words import number_words
from leanformer.data.pairs import SentencePairs, clean_pairs, divide_pairs, fold_of_pairs
from leanformer.data.splits import SPLIT_NAMES, name_splits
from leanformer.data.text_checks import leak_warning, left_out_warning, present, untranslated_warning
from leanformer.data.text_files import plain_file, plain_names, read_aligned, read_csv, read_tsv
from leanformer.data.text_reading import unpacked_name
from leanformer.data.text_tables import TABLE_FORMATS, check_packed, load_table, suffix_of, text_column
from leanformer.data.tmx import read_tmx
from leanformer.data.walking import check_tables, files_below

PAIR_SUFFIXES = (".tsv", ".csv", ".tmx")  # of files that are read here
FILE_SUFFIXES = (*PAIR_SUFFIXES, *TABLE_FORMATS)
TALK = "talk"  # what data.group calls the parts of an IWSLT archive
KEYS = ("source_language", "target_language")  # of the study's section

Splits = dict[str, SentencePairs]


def read_source(config: TextDataConfig, by_role: bool = True) -> tuple[Splits, list[str]]:
    """The unchanged pairs of ``config.source``, in the forms that docs/text-data.md lists.

    Args:
        config: the study's ``data`` section.
        by_role: whether splits are known by what they are for; if not, all are read, by their own names.

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
    path = source_path(config.source)
    if path.is_dir():
        return _read_directory(path, config, languages, by_role)
    if path.is_file():
        refuse_subset(config.source, config.subset)
        return _read_file(path, config, languages)
    aligned = [plain_file(path, language) for language in languages]
    if any(file.is_file() for file in aligned):
        refuse_subset(config.source, config.subset)
        return {"train": read_aligned(aligned[0], aligned[1], _group_file(path, config))}, [
            f"files: {' and '.join(map(str, aligned))}"
        ]
    check_hub(config.source, f"no such directory or file, and no {' and '.join(map(str, aligned))}")
    with quiet():
        return _from_table(load_dataset(config.source, config.source, config.subset), config, languages, by_role)


def _read_directory(
    directory: Path, config: TextDataConfig, languages: tuple[str, str], by_role: bool
) -> tuple[Splits, list[str]]:
    """An IWSLT archive, a data set in the hub's layout, or for each split a file of pairs or two aligned files."""
    if is_iwslt(directory):
        refuse_subset(config.source, config.subset)
        if config.group not in (None, TALK):
            raise LeanformerError(f"data.group: an IWSLT archive marks talks alone; give {TALK}, not {config.group!r}")
        splits, notes = read_iwslt(directory, languages)
        if config.group is None:
            splits = {role: replace(pairs, groups=None) for role, pairs in splits.items()}
        if by_role and "train" not in splits:
            raise LeanformerError(
                f"data.source {config.source}: holds no training file train.tags.{'-'.join(languages)}.{languages[0]} "
                "(or of the other direction); take it from the same archive"
            )
        return splits, notes
    below = files_below(directory)
    files = _files_of_splits(directory, languages)
    tables = [path for path in below if suffix_of(path) in TABLE_FORMATS]
    if tables:
        check_tables(below)
        _check_one_kind(config.source, tables, files)
        for table in tables:
            check_packed(table)
        with quiet():
            found = load_dataset(config.source, str(directory), config.subset)
            splits, notes = _from_table(found, config, languages, by_role)
        unused = [file.name for of_split in files.values() for file in of_split if file.is_file()]
        return splits, [*notes, *([f"files not used: {', '.join(unused)}"] if unused else [])]
    if not files:
        raise LeanformerError(
            f"data.source {config.source}: holds no files of pairs ({', '.join(FILE_SUFFIXES)}), no IWSLT archive, and "
            f"no files such as train.{languages[0]} and train.{languages[1]}"
        )
    refuse_subset(config.source, config.subset)
    roles, notes = _roles(list(files), config.source, by_role)
    notes.append(f"files: {', '.join(sorted(file.name for name in roles.values() for file in files[name]))}")
    splits = {}
    for role, name in roles.items():
        if len(files[name]) == 2:
            splits[role] = read_aligned(files[name][0], files[name][1], _group_file(directory / name, config))
        else:
            splits[role], more = _read_pairs(files[name][0], languages, config.group)
            notes += [f"{role}: {note}" for note in more]
    return splits, notes


def _check_one_kind(source: str, tables: Sequence[Path], files: Mapping[str, Sequence[Path]]) -> None:
    """Refuses a split in files of pairs beside splits in tables: it would be left out.

    Raises:
        LeanformerError: There is one.
    """
    in_tables = {unpacked_name(table).stem for table in tables}
    known = {name for names in SPLIT_NAMES.values() for name in names}
    for name, (file, *_) in files.items():
        if name.lower() in known and name not in in_tables:
            raise LeanformerError(
                f"data.source {source}: holds {tables[0].name} and {file.name}; give all splits in files of one kind"
            )


def _files_of_splits(directory: Path, languages: tuple[str, str]) -> dict[str, list[Path]]:
    """The files of a directory by the names of the splits that they hold: one of pairs each, or two that are aligned.

    Raises:
        LeanformerError: for a name that several files claim.
    """
    found: dict[str, list[Path]] = {}
    for file in sorted(directory.iterdir()):
        if file.is_file() and not file.name.startswith(".") and suffix_of(file) in PAIR_SUFFIXES:
            name = unpacked_name(file).stem
            if name in found:
                raise LeanformerError(
                    f"{directory}: {found[name][0].name} and {file.name} are both the split {name!r}; keep one of them"
                )
            found[name] = [file]
    for name in plain_names(directory, languages):
        aligned = [plain_file(directory / name, language) for language in languages]
        if name in found:
            raise LeanformerError(
                f"{directory}: {found[name][0].name} and {aligned[0].name} are both the split {name!r}; keep one of "
                "them"
            )
        found[name] = aligned
    return found


def _read_file(file: Path, config: TextDataConfig, languages: tuple[str, str]) -> tuple[Splits, list[str]]:
    """One file of pairs, from which all splits are taken."""
    suffix = suffix_of(file)
    if suffix in TABLE_FORMATS:
        return _from_table(load_table(config.source, file), config, languages)
    if suffix in PAIR_SUFFIXES:
        pairs, notes = _read_pairs(file, languages, config.group)
        return {"train": pairs}, notes
    right = f"one of {', '.join(FILE_SUFFIXES)}, packed (.gz) or not"
    plain = unpacked_name(file)
    if plain.suffix.removeprefix(".") in languages:
        right = f"{plain.with_suffix('')} for it and its partner in the other language"
    raise LeanformerError(f"data.source {config.source}: is a file of another kind; give {right}")


def _group_file(prefix: Path, config: TextDataConfig) -> Path | None:
    """The file with the groups of aligned plain files, where the study has groups."""
    return None if config.group is None else plain_file(prefix, config.group)


def _read_pairs(file: Path, languages: tuple[str, str], group: str | None) -> tuple[SentencePairs, list[str]]:
    """The pairs of a file with one of ``PAIR_SUFFIXES``, and in words what was left out."""
    suffix = suffix_of(file)
    if suffix == ".tmx":
        pairs, others = read_tmx(file, languages, group)
        return pairs, [f"{others:,} translation units without both languages left out"] if others else []
    return (read_tsv if suffix == ".tsv" else read_csv)(file, languages, group), []


def _roles(found: list[str], source: str, by_role: bool) -> tuple[dict[str, str], list[str]]:
    """The names of the splits by role, or by themselves, and in words which splits are not used."""
    if not by_role:
        return {name: name for name in found}, []
    roles = name_splits(found, source)
    unused = [name for name in found if name not in roles.values()]
    return roles, [f"splits not used: {', '.join(unused)}"] if unused else []


def _from_table(
    found: Mapping[str, SourceSplit], config: TextDataConfig, languages: tuple[str, str], by_role: bool = True
) -> tuple[Splits, list[str]]:
    """The pairs of a data set's splits, from a column for each language, or a column ``translation`` of both."""
    roles, notes = _roles(list(found), config.source, by_role)
    splits: Splits = {}
    used: tuple[str, ...] = ()
    for role, name in roles.items():
        split = found[name]
        groups = None if config.group is None else tuple(group or "" for group in column_groups(split, config.group))
        if "translation" in split.examples.features and None in match_codes(split.examples.features, languages):
            examples = split.examples.select_columns(["translation"]).flatten()
            names = {column: column.removeprefix("translation.") for column in examples.features}
            split = replace(split, examples=examples.rename_columns(names))
        used = _named_columns(split, config, languages)
        source, target = (text_column(split, column, f"data.{key}") for column, key in zip(used, KEYS, strict=True))
        splits[role] = SentencePairs(source, target, groups)
    notes.append(f"columns: {used[0]} (source), {used[1]} (target)")
    return splits, notes


def _named_columns(split: SourceSplit, config: TextDataConfig, languages: tuple[str, str]) -> tuple[str, str]:
    """The columns of the languages."""
    features = split.examples.features
    columns = match_codes(features, languages)
    for key, language, column in zip(KEYS, languages, columns, strict=True):
        if column is None:
            raise LeanformerError(
                f"data.{key}: no column {language!r} in {config.source}; there are {', '.join(features)}"
            )
    return str(columns[0]), str(columns[1])


@dataclass(frozen=True)
class TextData:
    """The sentence pairs that translators learn from and are tested on.

    Attributes:
        notes: in words: what was found, left out and set aside, with counts.
        warnings: what the reader of the results has to know about these pairs.
        test_rows: (n,) the numbers of the test pairs among all; None without cross-validation.
    """

    train: SentencePairs
    validation: SentencePairs
    test: SentencePairs
    notes: tuple[str, ...]
    warnings: tuple[StudyWarning, ...] = ()
    test_rows: NDArray[np.int64] | None = None


def load_text(config: TextDataConfig) -> TextData:
    """The sentence pairs of a source, divided; equal configurations and files give equal pairs.

    Args:
        config: the study's ``data`` section.

    Raises:
        LeanformerError: for a source that cannot be read or understood, for sides that are not aligned, and for splits
            without pairs: see docs/text-data.md for all the cases.
    """
    # 1. Read the source's splits, without pairs that have an empty side.
    splits, notes, found = _read_clean(config)

    # 2. Set aside the splits that the source lacks, and apply the limits.
    rows = None
    if config.cross_validation is not None:
        fold = fold_of_pairs(splits, config)
        pool, rows = splits["train"], fold.test
        splits |= {"train": pool.select(fold.train.tolist()), "test": pool.select(rows.tolist())}
        notes.append(fold.note)
    divided, division_notes = divide_pairs(splits, config)
    notes += division_notes
    for role in ("train", "validation", "test"):
        of_groups = f" in {len(set(divided[role].groups or ())):,} groups" if divided[role].groups is not None else ""
        notes.append(f"{role}: {len(divided[role]):,} pairs{of_groups}")

    # 3. Look for what makes results misleading.
    # In a study of all folds the tested pairs are the training pairs too; the studies of the folds look at them.
    apart = {role: pairs for role, pairs in divided.items() if role != "test" or not config.is_cross_validated}
    found += [leak_warning(divided["train"], apart[role], role) for role in ("validation", "test") if role in apart]
    found.append(untranslated_warning(divided))
    found += shared_groups({role: pairs.groups for role, pairs in apart.items() if pairs.groups is not None})
    return TextData(divided["train"], divided["validation"], divided["test"], tuple(notes), tuple(present(found)), rows)


def load_tested_text(config: TextDataConfig) -> TextData:
    """All sentence pairs of a source, whatever its splits, to test a trained model on.

    Args:
        config: where they are; nothing is divided or limited.

    Returns:
        Data of which all three splits are the same pairs.

    Raises:
        LeanformerError: for a source that cannot be read or understood, or that holds no pairs.
    """
    splits, notes, found = _read_clean(config, by_role=False)
    pairs = SentencePairs(
        tuple(source for split in splits.values() for source in split.sources),
        tuple(target for split in splits.values() for target in split.targets),
        None
        if any(split.groups is None for split in splits.values())
        else tuple(group for split in splits.values() for group in split.groups or ()),
    )
    if not len(pairs):
        raise LeanformerError(f"data.source {config.source}: holds no sentence pairs; give some")
    found.append(untranslated_warning({"test": pairs}))
    return TextData(pairs, pairs, pairs, tuple(notes), tuple(present(found)))


def _read_clean(config: TextDataConfig, by_role: bool = True) -> tuple[Splits, list[str], list[StudyWarning | None]]:
    """The splits of ``read_source`` without pairs that have an empty side, with notes and warnings."""
    if same_language(config.source_language, config.target_language):
        raise LeanformerError(
            f"data.target_language: {config.target_language!r} is the source language too; give two languages"
        )
    splits, notes = read_source(config, by_role)
    found: list[StudyWarning | None] = []
    for role, pairs in splits.items():
        splits[role], left_out = clean_pairs(pairs)
        if left_out and not len(splits[role]):
            raise LeanformerError(
                f"data.source {config.source}: all {left_out:,} pairs of the {role} split have an empty side; give it "
                "pairs with text on both"
            )
        if left_out:
            notes.append(f"{role}: {left_out:,} of {len(pairs):,} pairs left out, as a side is empty")
        found.append(left_out_warning(role, left_out, len(pairs), "a side is empty; check whether lines are missing"))
        if "" in (groups := splits[role].groups or ()):
            pair = groups.index("")
            raise LeanformerError(
                f"data.group: the {role} split: the pair of {quoted(splits[role].sources[pair])} has no group; every "
                "pair needs one"
            )
    return splits, notes, found
