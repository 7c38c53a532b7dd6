"""Data sets of the Hugging Face hub and their local copies, read by ``datasets``; and what is wrong with bad ones.

Images and text share these: a data set is opened as its splits, and every failure is one line that names the file
wherever one file is at fault.
"""

from __future__ import annotations

import errno
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from leanformer.core.errors import LeanformerError, first_line

HUB_SECONDS = 10  # to wait for the hub's first answer
JSON = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
DEEPEST = 60  # levels of brackets in JSON; Arrow takes 64, and many thousands would end the process itself
_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class SourceSplit:
    """One split of a source, as the source divides it.

    Attributes:
        source: the source, as the study gives it.
        name: the split's own name.
        examples: its rows. Images are not decoded.
        files: the local files that the rows were read from, in order, each with its number of rows; empty for others.
    """

    source: str
    name: str
    examples: datasets.Dataset
    files: tuple[tuple[str, int], ...] = ()

    @property
    def has_tables(self) -> bool:
        """Whether ``files`` are local parquet files."""
        return any(file.endswith(".parquet") for file, _ in self.files)

    def place(self, row: int, column: str) -> str:
        """The place of a value of ``examples``, for messages: an image's file, or a table's row and column."""
        first = 0  # row of the file
        for file, count in self.files:
            if row < first + count:
                return f"{file}, row {row - first}, column {column!r}" if file.endswith(".parquet") else file
            first += count
        return f"{self.source}, split {self.name}, row {row}, column {column!r}"


def joined(splits: Mapping[str, SourceSplit]) -> SourceSplit:
    """The rows of all splits of a source as one split, in the source's order.

    Args:
        splits: The splits by their names.

    Raises:
        LeanformerError: Their columns differ.
    """
    parts = list(splits.values())
    if len(parts) == 1:
        return parts[0]
    try:
        examples = datasets.concatenate_datasets([part.examples for part in parts])
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise LeanformerError(
            f"data.source {parts[0].source}: the columns of its splits {', '.join(splits)} differ "
            f"({first_line(error)}); write them alike"
        ) from None
    files = tuple(file for part in parts for file in part.files) if all(part.files for part in parts) else ()
    return SourceSplit(parts[0].source, " and ".join(splits), examples, files)


@contextmanager
def quiet() -> Iterator[None]:
    """Turns the progress bars and log lines of libraries that read data off: their errors are raised all the same."""
    bars = datasets.are_progress_bars_disabled()
    levels = datasets.logging.get_verbosity(), huggingface_hub.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        if not bars:
            datasets.enable_progress_bars()
        datasets.logging.set_verbosity(levels[0])
        huggingface_hub.logging.set_verbosity(levels[1])


def check_hub(source: str, nothing_local: str) -> None:
    """Asks the hub once whether a data set exists; loading would retry for half a minute without a network.

    Args:
        source: the study's ``data.source``, which names nothing on disk.
        nothing_local: how the message says so.

    Raises:
        LeanformerError: ``source`` is no data set's id, or the hub does not give that data set.
    """
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        raise LeanformerError(f"data.source {source}: {nothing_local}")
    if (Path(datasets.config.HF_DATASETS_CACHE) / source.replace("/", "___")).is_dir():
        return
    try:
        huggingface_hub.HfApi().dataset_info(source, timeout=HUB_SECONDS)
    except Exception as error:
        if isinstance(error, GatedRepoError):  # the next one's subclass
            problem = "asks for a log-in: accept its terms and run 'hf auth login'"
        elif isinstance(error, RepositoryNotFoundError):
            problem = "does not exist or is private; check the name"
        else:  # whatever the network's libraries raise
            problem = f"cannot be reached ({first_line(error)}); check the name and the network"
        raise LeanformerError(f"data.source {source}: {nothing_local}, and as a hub data set it {problem}") from error


def refuse_subset(source: str, subset: str | None) -> None:
    """Refuses the name of a configuration where the source has no configurations.

    Raises:
        LeanformerError: A name is given.
    """
    if subset is not None:
        raise LeanformerError(
            f"data.subset does nothing here: {subset!r} would be a configuration of a hub data set, and {source} is "
            "none; leave it out"
        )


def load_dataset(
    source: str, path: str, subset: str | None = None, data_files: Mapping[str, str] | None = None
) -> dict[str, SourceSplit]:
    """The splits of a data set, by the names that it gives them.

    Args:
        source: the study's ``data.source``, for messages.
        path: what ``datasets`` loads: a directory, a hub id, or a format (``json``, ``parquet``) for ``data_files``.
        subset: the configuration's name, where there are several.
        data_files: one file a split, for a format.

    Raises:
        LeanformerError: for anything that keeps the data set from being read.
    """
    files: Mapping[str, Sequence[str]] = {}
    try:
        builder = datasets.load_dataset_builder(path, subset, data_files=data_files)
        files = builder.config.data_files or {}
        for file in _local_json(files):
            check_json_depth(file)
        builder.download_and_prepare()
        return {
            str(name): SourceSplit(source, str(name), examples, _rows_of_files(files.get(name, [])))
            for name, examples in builder.as_dataset().items()
        }
    except LeanformerError:
        raise
    except Exception as error:  # of many libraries and types; every one means that the source cannot be read
        raise _load_error(source, error, [file for split in files.values() for file in split]) from error


def _local_json(files: Mapping[str, Sequence[str]]) -> list[Path]:
    paths = (Path(file) for split in files.values() for file in split if file.endswith(JSON))
    return [path for path in paths if path.is_file()]


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, packed by gzip or not."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        yield from lines


def check_json_depth(file: Path) -> None:
    """Makes sure that no line of a JSON file is nested too deeply for the libraries that read it.

    Raises:
        LeanformerError: One is.
    """
    for number, line in enumerate(_lines(file), start=1):
        if line.count(b"[") + line.count(b"{") <= DEEPEST:
            continue
        brackets = _JSON_STRING.sub(b"", line)
        steps = ((byte in b"[{") - (byte in b"]}") for byte in brackets)
        if max(accumulate(steps), default=0) > DEEPEST:
            raise LeanformerError(
                f"{file}, line {number}: brackets are nested more than {DEEPEST} deep; write one object on each "
                "line, with plain values"
            )


def _rows_of_files(files: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Local parquet files with their numbers of rows; empty for files on the hub and of other kinds."""
    if all(map(_is_local_parquet, files)):
        return tuple((file, pq.read_metadata(file).num_rows) for file in files)
    return ()


def _is_local_parquet(file: str) -> bool:
    return file.endswith(".parquet") and Path(file).is_file()


def _load_error(source: str, error: BaseException, files: Sequence[str]) -> LeanformerError:
    """Says why a data set cannot be read, and names the file if it is one file's fault."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    # datasets checks the free space beforehand, and then raises an error without a number.
    if isinstance(root, OSError) and (root.errno == errno.ENOSPC or "Not enough disk space" in str(root)):
        return LeanformerError(
            f"data.source {source}: no space left in {datasets.config.HF_DATASETS_CACHE}; free some, or set "
            "HF_DATASETS_CACHE to another directory"
        )
    for file in filter(_is_local_parquet, files):
        try:
            parquet = pq.ParquetFile(file)
            if parquet.metadata.num_rows == 0:
                return LeanformerError(f"{file}: holds no examples; fill it or remove it")
            if isinstance(root, (pa.ArrowException, OSError)):  # damage behind the footer shows when all is read
                for _ in parquet.iter_batches():
                    pass
        except (pa.ArrowException, OSError) as cause:
            return LeanformerError(f"{file}: not a whole parquet file ({first_line(cause)}); copy or download it again")
    if problem := _schema_problem([file for file in files if _is_local_parquet(file)]):
        return LeanformerError(problem)
    for file in files:
        if file.endswith((".jsonl", ".jsonl.gz")) and Path(file).is_file() and (problem := _json_problem(Path(file))):
            return LeanformerError(f"{file}{problem}")
    return LeanformerError(f"data.source {source}: cannot be read: {first_line(root)}")


def _schema_problem(files: Sequence[str]) -> str | None:
    """Which column has different types in two parquet files of a data set, which datasets cannot always join."""
    first: dict[str, tuple[str, pa.DataType]] = {}
    for file in files:
        for field in pq.read_schema(file):
            place, kind = first.setdefault(field.name, (file, field.type))
            if kind != field.type:
                return f"{file}: column {field.name!r} holds {field.type}, but {kind} in {place}; write both alike"
    return None


def _json_problem(file: Path) -> str | None:
    """What is wrong with the first bad line of a file of JSON lines, and where."""
    if file.stat().st_size == 0:
        return ": is empty; fill it or remove it"
    for number, line in enumerate(_lines(file), start=1):
        try:
            value = json.loads(line.decode()) if line.strip() else {}
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeDecodeError as cause:
            return f", line {number}: byte 0x{line[cause.start]:02x} is not UTF-8; convert the file to UTF-8"
        except UnicodeEncodeError as cause:
            half = f"\\u{ord(cause.object[cause.start]):04x}"
            return f", line {number}: {half} is half of a character; write both halves, or the character itself"
        except json.JSONDecodeError as cause:
            return f", line {number}: not complete JSON ({cause.msg}); write one object on each line"
        if not isinstance(value, dict):
            return f", line {number}: holds no JSON object; write one object on each line"
    return None
