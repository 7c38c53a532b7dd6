"""Examples that belong together: how their groups are read, and that splits keep them whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import image_files
import numpy as np
import pytest
from image_files import png, random_image, write_parquet

from leanformer.config.images import ImageDataConfig
from leanformer.config.translation import TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.groups import check_test_groups, divide_groups, shared_groups
from leanformer.data.splits import make_splits
from leanformer.data.text_sources import TextData, load_text


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def load(source: Path | str, **keys: Any) -> TextData:
    return load_text(TextDataConfig(source=str(source), **{"source_language": "en", "target_language": "de", **keys}))


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(LeanformerError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Dividing


def split_names(groups: list[str], labels: list[int], **keys: Any) -> dict[str, list[str]]:
    """The groups of the examples of each split."""
    splits, _ = make_splits(
        {"train": np.array(labels)}, ImageDataConfig(**keys), {"train": np.array(groups, dtype=object)}
    )
    assert sorted(np.concatenate([split.rows for split in splits.values()])) == list(range(len(groups)))
    return {role: [groups[row] for row in split.rows] for role, split in splits.items()}


@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_in_one_split_alone(seed: int) -> None:
    groups = [f"object{row // 7}" for row in range(700)]
    own = split_names(groups, [row % 2 for row in range(700)], split_seed=seed)
    assert not shared_groups(own)
    # 100 groups of 7: 0.2 of 700 is 20 groups; 0.1 of the other 560 is 8 groups.
    assert {role: len(names) for role, names in own.items()} == {"train": 504, "validation": 56, "test": 140}


def test_division_follows_its_seed() -> None:
    groups, labels = [f"{row // 5}" for row in range(200)], [0] * 100 + [1] * 100
    assert split_names(groups, labels) == split_names(groups, labels)
    assert split_names(groups, labels)["test"] != split_names(groups, labels, split_seed=1)["test"]


def test_division_keeps_the_proportions_of_classes() -> None:
    # 20 classes of 5 objects of 4 photos: each class has 20 photos, of which 0.2 is one object.
    groups = [f"object{row // 4}" for row in range(400)]
    labels = np.array([row // 20 for row in range(400)])
    taken = divide_groups(groups, labels, 80, 0, role="test", missing=2)
    assert np.bincount(labels[taken]).tolist() == [4] * 20


def test_sizes_are_as_near_as_groups_allow() -> None:
    # 0.1 of 100 examples: of the groups of 50, 30, 11 and 9 the last two are nearest, as testing needs two.
    groups = ["a"] * 50 + ["b"] * 30 + ["c"] * 11 + ["d"] * 9
    taken = divide_groups(groups, np.zeros(100, np.int64), 10, 0, role="test", missing=2)
    assert set(np.array(groups)[taken]) == {"c", "d"}
    taken = divide_groups(groups, np.zeros(100, np.int64), 10, 0, role="validation", missing=1)
    assert set(np.array(groups)[taken]) in ({"c"}, {"d"})


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_group_stays_in_training(seed: int) -> None:
    groups = [f"{row // 10}" for row in range(200)]
    labels = np.array([2] * 10 + [row % 2 for row in range(190)])
    assert not divide_groups(groups, labels, 40, seed, role="test", missing=2)[:10].any()


def test_limits_draw_examples_of_all_groups() -> None:
    groups = np.array([f"{row // 10}" for row in range(500)], object)
    labels = {"train": np.array([row % 2 for row in range(500)])}
    whole, _ = make_splits(labels, ImageDataConfig(), {"train": groups})
    splits, _ = make_splits(labels, ImageDataConfig(test_limit=60), {"train": groups})
    assert len(set(groups[whole["test"].rows])) == 10
    assert len(splits["test"].rows) == 60
    assert set(splits["test"].rows) < set(whole["test"].rows)


def test_too_few_groups_to_divide() -> None:
    message = error_of(lambda: split_names(["a", "b", "c"] * 20, [0, 1] * 30))
    assert message == (
        "data.group: the training split has 3 groups to divide, and groups stay whole; give 4 or more (1 for training, "
        "2 for test, 1 for validation), or data with splits of their own"
    )
    assert set(split_names(["a", "b", "c", "d"] * 20, [0, 1] * 40)) == {"train", "validation", "test"}


def test_a_few_test_groups_are_a_warning_and_one_is_an_error() -> None:
    assert check_test_groups(np.arange(10)) == []
    (warning,) = check_test_groups(np.arange(20) % 9)
    assert (warning.code, warning.count) == ("few-groups", 9)
    assert "all 20 test examples are in one group" in error_of(lambda: check_test_groups(np.zeros(20, np.int64)))


# Images


def write_objects(root: Path, objects: int = 12, photos: int = 3) -> Path:
    """Photos of objects, of which each class has every other one."""
    for number in range(objects):
        directory = root / ("cat", "dog")[number % 2]
        directory.mkdir(parents=True, exist_ok=True)
        for photo in range(photos):
            random_image(10 * number + photo).save(directory / f"object{number}_{photo}.png")
    return root


@pytest.mark.parametrize("pattern", [r"(object\d+)_", r"object\d+", r"\w+/(object\d+)"])
def test_groups_in_names_of_files(pattern: str, tmp_path: Path) -> None:
    write_objects(tmp_path)
    data = image_files.load(tmp_path, group={"pattern": pattern}, test_fraction=0.5)
    assert data.test_groups is not None
    assert len(data.test_groups) == len(data.test) == 18
    assert {name: data.test_groups.count(name) for name in set(data.test_groups)} == dict.fromkeys(data.test_groups, 3)
    assert all(re.fullmatch(r"object\d+", name) for name in data.test_groups)
    assert "groups: 5 (train), 6 (test), 1 (validation)" in data.notes
    assert any(re.search(r"18 of 36, seed 0, 6 of 12 groups", note) for note in data.notes)


def test_groups_in_a_column_of_metadata(tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        random_image(number).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{('cat', 'dog')[number % 2]},{number // 3}")
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,animal,patient", *rows]))
    data = image_files.load(tmp_path, group="patient")  # the label column is the other one
    assert data.classes == ("cat", "dog")
    assert data.test_groups is not None
    assert sorted(data.test_groups) == sorted(3 * [*set(data.test_groups)])
    assert data.test_groups == image_files.load(tmp_path, group={"column": "patient"}).test_groups
    pattern = {"pattern": r"(\d)\d*\.png"}
    paths = image_files.load(tmp_path, group=pattern, test_fraction=0.5, label_column="animal").test_groups
    assert paths is not None
    assert set(paths) <= set("0123456789")


def test_a_group_in_two_given_splits_is_a_warning(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", patient=[row // 2 for row in range(20)])
    images = [png(random_image(50 + row)) for row in range(4)]
    write_parquet(tmp_path, "test", images=images, labels=[0, 1] * 2, patient=[3, 3, 4, 77])
    data = image_files.load(tmp_path, group="patient", label_column="label")
    assert data.test_groups == ("3", "3", "4", "77")
    found = [warning for warning in data.warnings if warning.code == "shared-groups"]
    assert sum(warning.count for warning in found) == 2  # each is in training or validation
    assert found[0].sentence.startswith(("test: 2 of 3 groups have examples in the train split too", "test: 1 of 3"))


def test_paths_that_are_stored_with_images(tmp_path: Path) -> None:
    images = [{**png(random_image(row)), "path": f"object{row // 2}_{row}.png"} for row in range(20)]
    write_parquet(tmp_path, images=images)
    data = image_files.load(tmp_path, group={"pattern": r"object\d+"})
    assert data.test_groups is not None
    assert set(data.test_groups) < {f"object{number}" for number in range(10)}


def test_bad_groups_of_images(tmp_path: Path) -> None:
    photos = write_objects(tmp_path / "photos")

    def of(source: Path, **keys: Any) -> str:
        return image_files.error_of(source, **keys)

    assert "no column 'object' in" in (message := of(photos, group="object"))
    assert message.endswith("there are image, label; or give a pattern of file names, {pattern: ...}")
    message = of(photos, group={"pattern": "thing"})
    assert "'thing' finds no group in 'cat/object0_0.png'" in message
    assert "column 'label' holds the classes" in of(photos, group="label", label_column="label")
    assert "give one of column and pattern" in of(photos, group={})
    assert "give one of column and pattern" in of(photos, group={"column": "a", "pattern": "b"})
    assert "'(' is no regular expression" in of(photos, group={"pattern": "("})
    assert "group.patern" in of(photos, group={"patern": "a"})
    table = write_parquet(tmp_path / "table", patient=[*range(19), None], weight=[0.5] * 20)
    assert "row 19, column 'patient': this image has no group" in of(table, group="patient", label_column="label")
    assert "column 'weight' of" in of(table, group="weight", label_column="label")
    assert "this image has no file name" in of(table, group={"pattern": "a"}, label_column="label")


# Text

DOCUMENTS = [f"doc{row // 4}" for row in range(40)]
ENGLISH = [f"this is sentence {row}" for row in range(40)]
GERMAN = [f"dies ist Satz {row}" for row in range(40)]


def write_lines(file: Path, lines: list[str]) -> Path:
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def write_table(file: Path) -> Path:
    mark = "\t" if file.suffix == ".tsv" else ","
    rows = [mark.join(row) for row in zip(ENGLISH, DOCUMENTS, GERMAN, strict=True)]
    return write_lines(file, [mark.join(("en", "document", "de")), *rows])


def write_frame(file: Path) -> Path:
    columns = {"en": ENGLISH, "de": GERMAN, "document": [int(name[3:]) for name in DOCUMENTS]}
    dataset = datasets.Dataset.from_dict(columns)
    dataset.to_parquet(file) if file.suffix == ".parquet" else dataset.to_json(file)
    return file


def write_nested(file: Path) -> Path:
    pairs = [{"en": english, "de": german} for english, german in zip(ENGLISH, GERMAN, strict=True)]
    datasets.Dataset.from_dict({"translation": pairs, "document": DOCUMENTS}).to_parquet(file)
    return file


def write_aligned(prefix: Path) -> Path:
    for ending, lines in (("en", ENGLISH), ("de", GERMAN), ("document", DOCUMENTS)):
        write_lines(prefix.with_name(f"{prefix.name}.{ending}"), lines)
    return prefix


def write_tmx(file: Path) -> Path:
    units = []
    for row, (english, german, name) in enumerate(zip(ENGLISH, GERMAN, DOCUMENTS, strict=True)):
        prop = f'<prop type="document">{name}</prop>'
        first, second = (prop, "") if row % 2 else ("", prop)  # of the unit, or of a variant
        units.append(
            f'<tu>{first}<tuv xml:lang="en">{second}<seg>{english}</seg></tuv>'
            f'<tuv xml:lang="de"><seg>{german}</seg></tuv></tu>'
        )
    return write_lines(file, [f'<tmx version="1.4"><header/><body>{"".join(units)}</body></tmx>'])


SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "tsv": (write_table, "pairs.tsv"),
    "csv": (write_table, "pairs.csv"),
    "jsonl": (write_frame, "pairs.jsonl"),
    "parquet": (write_frame, "pairs.parquet"),
    "a column of both languages": (write_nested, "pairs.parquet"),
    "plain": (write_aligned, "train"),
    "tmx": (write_tmx, "memory.tmx"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_groups_of_sentences(case: str, tmp_path: Path) -> None:
    write, name = SOURCES[case]
    data = load(write(tmp_path / name), group="document", test_fraction=0.3, validation_fraction=0.2)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    of_sentence = dict(zip(ENGLISH, DOCUMENTS, strict=True))
    for pairs in splits.values():
        assert pairs.groups is not None
        for source, group in zip(pairs.sources, pairs.groups, strict=True):
            assert of_sentence[source] in (group, f"doc{group}")
    # 10 documents of 4: 0.3 of 40 pairs is 3 documents; 0.2 of the other 28 is 5.6 pairs, nearest to 1 document.
    assert {role: len(pairs) for role, pairs in splits.items()} == {"train": 24, "validation": 4, "test": 12}
    assert not any(warning.code == "shared-groups" for warning in data.warnings)
    assert "test: 12 pairs in 3 groups" in data.notes


def test_aligned_files_in_a_directory(tmp_path: Path) -> None:
    write_aligned(tmp_path / "train")
    write_aligned(tmp_path / "test")
    data = load(tmp_path, group="document")
    assert data.test.groups == tuple(DOCUMENTS)
    shared = next(warning for warning in data.warnings if warning.code == "shared-groups")
    assert shared.sentence.startswith("test: 9 of 10 groups have examples in the train split too, such as 'doc0', ")


def test_limits_keep_the_groups_of_the_pairs(tmp_path: Path) -> None:
    data = load(write_table(tmp_path / "pairs.tsv"), group="document", test_fraction=0.3, test_limit=7)
    of_sentence = dict(zip(ENGLISH, DOCUMENTS, strict=True))
    assert data.test.groups == tuple(of_sentence[source] for source in data.test.sources)
    assert len(data.test) == 7


def test_talks_of_an_iwslt_archive(tmp_path: Path) -> None:
    for language in ("en", "de"):
        talks = [f"<talkid>{talk}</talkid>\n{language} {talk} a\n{language} {talk} b" for talk in (1, 22)]
        write_lines(tmp_path / f"train.tags.en-de.{language}", talks)
        for part, talk in (("dev2010", 535), ("tst2010", 22), ("tst2011", 7)):
            segment = f'<seg id="1">{part} {language}</seg>'
            xml = f'<mteval><srcset><doc docid="{talk}">{segment}</doc></srcset></mteval>'
            write_lines(tmp_path / f"IWSLT17.TED.{part}.en-de.{language}.xml", [xml])
    data = load(tmp_path, group="talk")
    assert data.train.groups == ("1", "1", "22", "22")
    assert data.validation.groups == ("535",)
    assert data.test.groups == ("22", "7")
    (shared,) = [warning for warning in data.warnings if warning.code == "shared-groups"]
    assert shared.sentence.startswith("test: 1 of 2 groups have examples in the train split too, such as '22'")
    assert load(tmp_path).test.groups is None
    assert error_of(lambda: load(tmp_path, group="document")).endswith("give talk, not 'document'")


def without_a_group(file: Path) -> Path:
    return write_lines(file, ["en\tde\tdocument", "one\teins\ta", "\tkeins\t", "two\tzwei\t"])


BAD: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "tsv": (write_table, "pairs.tsv", "talk", r"pairs\.tsv, line 1: no column 'talk'; there are en, document, de$"),
    "no first line": (
        lambda file: write_lines(file, ["one\teins"]),
        "pairs.tsv",
        "talk",
        "no column 'talk', as the first line names no columns",
    ),
    "parquet": (
        write_frame,
        "p.parquet",
        "talk",
        "no column 'talk' in .*p.parquet, split train; there are en, de, doc",
    ),
    "plain": (write_aligned, "train", "talk", r"data\.group: .*train\.talk: no such file; with plain files it holds"),
    "tmx": (write_tmx, "m.tmx", "talk", r"m\.tmx, unit 1: no property 'talk'; it has 'document'$"),
    "a pair without": (without_a_group, "p.tsv", "document", "the train split: the pair of 'two' has no group; every"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_groups_of_sentences(case: str, tmp_path: Path) -> None:
    write, name, group, message = BAD[case]
    source = write(tmp_path / name)
    assert re.search(message, error := error_of(lambda: load(source, group=group))), error


def test_aligned_groups_of_another_length(tmp_path: Path) -> None:
    write_aligned(tmp_path / "train")
    write_lines(tmp_path / "train.document", DOCUMENTS[:-1])
    assert "train.document has 39 lines, but" in error_of(lambda: load(tmp_path / "train", group="document"))


def test_too_few_documents_to_divide(tmp_path: Path) -> None:
    rows = [f"{ENGLISH[row]}\t{GERMAN[row]}\t{row % 3}" for row in range(40)]
    file = write_lines(tmp_path / "p.tsv", ["en\tde\tpart", *rows])
    assert "the training split has 3 groups to divide" in error_of(lambda: load(file, group="part"))
