"""What ``leanformer bench`` writes: the time that models take on one machine, as a typed file.

A study reads it where ``measure.from`` names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import described, one_of
from leanformer.core.paths import read_text
from leanformer.results.costs import RUNTIMES
from leanformer.results.rows import Amount, Count, Median, Record

VERSION: Literal[1] = 1
MOST_BYTES = 50_000_000

AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def _took_time(time: Median) -> Median:
    if time.median <= 0:
        raise ValueError(f"the median is {time.median:g}; a call takes more than 0 ms")
    return time


class Rounds(Record):
    """What each round measured, in milliseconds of a call: of the clock, and of the process on all its threads."""

    wall_ms: list[Amount]
    cpu_ms: list[Amount]


class Timing(Record):
    """The time of a model's calls with one batch size and length."""

    batch: AtLeastOne
    """Images or sentences of a call."""
    length: AtLeastOne | None
    """Subwords of each source, the end mark included; null: as long as the sentences are, and for images."""
    calls: AtLeastOne
    """In each round."""
    tokens: Count | None
    """Subwords that a call writes, all sentences and end marks included; null for classifiers."""
    wall_ms: Annotated[Median, AfterValidator(_took_time)]
    """Of a call."""
    p95_ms: Positive
    """The 95th percentile of all calls of all rounds."""
    cpu_ms: Median
    """Processor time of a call, on all threads of the process."""
    speed: Median
    """The first model's time divided by this one's, of the same round."""
    cpu_speed: Median | None
    """The same of the processor time; null where the system's clock shows none."""
    rounds: Rounds

    @property
    def per_second(self) -> float:
        """Images or sentences a second."""
        return 1000 * self.batch / self.wall_ms.median

    @property
    def ms_per_token(self) -> float | None:
        """Milliseconds of a call for each subword that it writes; None where none is written."""
        return self.wall_ms.median / self.tokens if self.tokens else None

    @property
    def tokens_per_second(self) -> float | None:
        """Subwords written a second; None where none is."""
        return 1000 * self.tokens / self.wall_ms.median if self.tokens else None


class TimedModel(Record):
    """A model, by what a study knows it again wherever it lies, and its times."""

    name: str
    """As it was given."""
    runtime: Annotated[str, BeforeValidator(one_of(lambda: list(RUNTIMES)))]
    """``torch``, or the format whose engine runs it."""
    precision: str
    """Of its weights."""
    weights: str
    """SHA-256 of the weights that it was trained with, as in an exported model's ``manifest.json``."""
    files: dict[str, Count]
    """File of its directory -> bytes."""
    timings: Annotated[list[Timing], Field(min_length=1)]

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(self.files.values())

    @property
    def key(self) -> tuple[str, str, str]:
        """What it runs in, its precision, and its weights."""
        return self.runtime, self.precision, self.weights


def _names_the_machine(environment: dict[str, str]) -> dict[str, str]:
    missing = [key for key in ("processor", "cpu_flags") if key not in environment]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return environment


class Bench(Record):
    """The content of the file."""

    version: Literal[1] = VERSION
    task: str
    inputs: str
    """What the models were given, in words."""
    sentences: str | None = None
    """Of translators: the ``digest`` of the sentences; null for classifiers, and in files of earlier versions."""
    beam: AtLeastOne
    max_tokens: AtLeastOne | None
    """The longest translation; null for classifiers."""
    rounds: AtLeastOne
    threads: AtLeastOne
    device: str
    environment: Annotated[dict[str, str], AfterValidator(_names_the_machine)]
    """Versions, and the machine (``core.machine``)."""
    models: Annotated[list[TimedModel], Field(min_length=1)]


def digest(sentences: Sequence[str]) -> str:
    """By what sentences are known again: their SHA-256, in their order, without those that are blank."""
    return hashlib.sha256("\n".join(sentence for sentence in sentences if sentence.strip()).encode()).hexdigest()


def read_bench(path: Path, name: str = "") -> Bench:
    """Reads a file that ``leanformer bench --out`` wrote.

    Args:
        path: The file.
        name: Where it was named, for messages, such as ``measure.from``.

    Raises:
        LeanformerError: There is no such file, or it holds something else.
    """
    where = f"{name} {path}".strip()
    remedy = "write it anew: leanformer bench DIR... --out FILE"
    try:
        text = read_text(path, MOST_BYTES)
    except LeanformerError as error:
        raise LeanformerError(f"{name}: {error}; {remedy}" if name else f"{error}; {remedy}") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise LeanformerError(f"{where}: not JSON; {remedy}") from None
    if not isinstance(content, dict) or "models" not in content:
        raise LeanformerError(f"{where}: not what leanformer bench writes; {remedy}")
    version = content.get("version")
    if version != VERSION or isinstance(version, bool):
        raise LeanformerError(
            f"{where}: its version is {quoted(version)}, and this leanformer reads version {VERSION}; {remedy}"
        )
    try:
        return Bench.model_validate(content)
    except ValidationError as error:
        raise LeanformerError(f"{where}: damaged ({described(error, content)}); {remedy}") from None
