"""The ledger of a run directory: what was seen of each test split, so that the error of all looks stays as promised.

A look is a report with new outcomes on a test split. The ledger knows the candidates and seeds that were ever evaluated
there, what was accepted at which look, and which seed's model ships, which is chosen before the first look and stays
chosen (docs/decisions.md, "Looks").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError
from leanformer.core.files import write_atomically
from leanformer.core.json_files import DamagedError, read_sealed, sealed
from leanformer.core.warning import StudyWarning
from leanformer.decide.looks import Look
from leanformer.results.metrics import METRICS

FILE = "ledger.json"


@dataclass(frozen=True)
class Seen:
    """What a report sees of a test split.

    Args:
        outcomes: SHA-256 of the answers of each model, and of its probabilities where the metric reads these.
        candidates: Statement (``artifact`` or ``recipe``) -> name -> the identity of what is decided on: its recipe, as
            ``recipe_of`` gives it, and in what form it ships. Those that failed count too.
        seeds: The seeds of the candidates, which the baseline has too.
        accept: Metric and its settings, margin and confidence.
        baseline_seeds: Further seeds of the baseline alone.
    """

    outcomes: Sequence[str]
    candidates: Mapping[str, Mapping[str, str]]
    seeds: Sequence[int]
    accept: Mapping[str, Any]
    baseline_seeds: Sequence[int] = ()


class Ledger:
    """What was seen of one test split in one run directory.

    Args:
        directory: The run directory.
        split: The SHA-256 of the test split.
        planned: The looks that the study plans.

    Raises:
        LeanformerError: The ledger is damaged, or another number of looks was planned before the first.
    """

    def __init__(self, directory: Path, split: str, planned: int) -> None:
        self._path = directory / FILE
        self._split = split
        self._planned = planned
        self._splits = _read(self._path)
        first = self._looks[0] if self._looks else None
        if first is not None and self._page["planned"] != planned:
            before = self._page["planned"]
            raise LeanformerError(
                f"accept.looks: {planned}, and {before} {'look was' if before == 1 else 'looks were'} planned before "
                f"the first look at this test split ({first['date']}); the number cannot change after results were "
                "seen: put it back"
            )

    @property
    def _page(self) -> dict[str, Any]:
        return self._splits.setdefault(
            self._split, {"planned": self._planned, "looks": [], "ships": {}, "accepted": []}
        )

    @property
    def _looks(self) -> list[dict[str, Any]]:
        looks: list[dict[str, Any]] = self._page["looks"]
        return looks

    @property
    def taken(self) -> int:
        """Looks that were taken so far."""
        return len(self._looks)

    def check_seeds(self, seeds: Iterable[int], baseline_seeds: Iterable[int]) -> None:
        """Refuses a study that leaves out seeds that were evaluated: dropping some after results were seen is a choice.

        Args:
            seeds: The candidates'.
            baseline_seeds: The baseline's, which are these and perhaps more.

        Raises:
            LeanformerError: It names the seeds.
        """
        for key, kept, place in (("seeds", seeds, "seeds"), ("baseline_seeds", baseline_seeds, "baseline.seeds")):
            missing = sorted({seed for look in self._looks for seed in look[key]} - set(kept))
            if missing:
                one = len(missing) == 1
                which = f"seed {missing[0]} was" if one else f"seeds {', '.join(map(str, missing))} were"
                raise LeanformerError(
                    f"{place}: {which} evaluated on this test split at an earlier look, and every seed that was "
                    f"evaluated stays in the analysis; put {'it' if one else 'them'} back, or test the model on new "
                    "data (leanformer confirm)"
                )

    def ships(self, recipe: str) -> int | None:
        """The seed whose model ships; None where none was chosen yet."""
        seed: int | None = self._page["ships"].get(recipe)
        return seed

    def keep_ships(self, seeds: Mapping[str, int]) -> None:
        """Keeps the seeds whose models ship, chosen on the validation split; those that were chosen before stay.

        Args:
            seeds: Recipe -> seed.
        """
        self._page["ships"] = {**seeds, **self._page["ships"]}
        self._write()

    def look(self, seen: Seen) -> int:
        """Records a look where there are outcomes that nobody has seen, before they are shown to anybody.

        Returns:
            The number of this look: that of the last one where nothing is new.
        """
        known = {outcome for look in self._looks for outcome in look["outcomes"]}
        new = [outcome for outcome in seen.outcomes if outcome not in known]
        if new or not self._looks:
            self._looks.append(
                {
                    "date": datetime.now(UTC).date().isoformat(),
                    "outcomes": new,
                    "candidates": {statement: dict(names) for statement, names in seen.candidates.items()},
                    "seeds": list(seen.seeds),
                    "baseline_seeds": list(seen.baseline_seeds),
                    "accepts": [dict(seen.accept)],
                }
            )
        else:  # the same outcomes, perhaps with another margin or under other names
            _join(self._looks[-1], seen)
        self._write()
        return self.taken

    def confirmation(self, seen: Seen) -> None:
        """Records what a confirmation shows of new test data: one look, which each further candidate joins.

        Args:
            seen: What it shows.
        """
        if not self._looks:
            self.look(seen)
            self._page["confirmation"] = True
        else:
            (look,) = self._looks
            look["outcomes"] += [one for one in seen.outcomes if one not in look["outcomes"]]
            _join(look, seen)
            look["seeds"] = sorted({*look["seeds"], *seen.seeds})
        self._write()

    def for_statement(self, statement: str, names: Mapping[str, str], compared: int, accept: Mapping[str, Any]) -> Look:
        """What the decisions of this look have to account for.

        Args:
            statement: ``artifact`` or ``recipe``.
            names: Name -> identity, of what is decided on now.
            compared: How many of these have a comparison.
            accept: Metric, margin, confidence and baseline: only what was accepted with the same counts.
        """
        accepted = {
            entry["candidate"]: entry["look"]
            for entry in self._page["accepted"]
            if entry["statement"] == statement and entry["accept"] == dict(accept)
        }
        return Look(
            number=self.taken,
            planned=self._planned,
            others=len(self.evaluated(statement)) - compared,
            accepted={name: accepted[candidate] for name, candidate in names.items() if candidate in accepted},
        )

    def keep_accepted(self, statement: str, candidates: Iterable[str], accept: Mapping[str, Any]) -> None:
        """Keeps what was accepted at this look: it stays accepted.

        Args:
            statement: ``artifact`` or ``recipe``.
            candidates: The identities of what is accepted, that of earlier looks too.
            accept: Metric, margin, confidence and baseline.
        """
        known = {
            entry["candidate"]
            for entry in self._page["accepted"]
            if entry["statement"] == statement and entry["accept"] == dict(accept)
        }
        self._page["accepted"] += [
            {"statement": statement, "candidate": candidate, "look": self.taken, "accept": dict(accept)}
            for candidate in candidates
            if candidate not in known
        ]
        self._write()

    def evaluated(self, statement: str) -> set[str]:
        """What was ever evaluated on this split for a statement."""
        return {name for look in self._looks for name in look["candidates"].get(statement, {}).values()}

    def history(self) -> list[dict[str, Any]]:
        """One entry for each look: its date, its candidates' names, seeds and margin."""
        return [
            {
                "number": number,
                "date": look["date"],
                "candidates": list(look["candidates"]["artifact"]),
                "seeds": look["seeds"],
                "max_drop": look["accepts"][-1]["max_drop"],
            }
            for number, look in enumerate(self._looks, 1)
        ]

    def changes(self, accept: Mapping[str, Any]) -> list[StudyWarning]:
        """What was changed after results were seen.

        Args:
            accept: Metric and its settings, margin and confidence as they are now.
        """
        if not self._looks:
            return []
        first, now = self._looks[0], set(self._looks[-1]["candidates"]["artifact"].values())
        changed = []
        earlier = [one for look in self._looks for one in look["accepts"]]
        for key in accept:
            steps = [
                _written(value) for value, _ in groupby(one[key] for one in (*earlier, accept) if _has_effect(key, one))
            ]
            if len(steps) > 1:
                changed.append(f"accept.{key} was {', then '.join(steps[:-1])} and is {steps[-1]}")
        before = {name for look in self._looks[:-1] for name in look["candidates"]["artifact"].values()}
        if before:
            seeds = len(set(self._looks[-1]["seeds"]) - set(first["seeds"]))
            for count, one, several in (
                (len(now - before), "candidate joined", "candidates joined"),
                (len(before - now), "candidate was left out", "candidates were left out"),
                (seeds, "seed joined", "seeds joined"),
            ):
                if count:
                    changed.append(f"{count} {several}" if count > 1 else f"one {one}")
        if not changed:
            return []
        sentence = (
            f"after results on this test split were seen, {', '.join(changed)}; margins promise what they say where "
            "they were chosen before (candidates and seeds that join or are left out are accounted for)"
        )
        return [StudyWarning("changed-after-look", sentence, len(changed))]

    def other_splits(self) -> list[StudyWarning]:
        """Other test splits that were looked at in this run directory, before this one was first."""
        others = [page for split, page in self._splits.items() if split != self._split]
        looks = sum(len(page["looks"]) for page in others if not page.get("confirmation"))
        if not looks:
            return []
        sentence = (
            f"this run directory has looked at another test split {looks} time{'s' if looks > 1 else ''}: if it holds "
            "examples of this one, or the same in another size, those looks do not count here as they should; keep the "
            "test split, or decide on new data (leanformer confirm)"
        )
        return [StudyWarning("another-test-split", sentence, looks)]

    def elsewhere(self) -> list[StudyWarning]:
        """Other run directories beside this one in which the same test split was looked at."""
        found = []
        for path in sorted(self._path.parent.parent.glob(f"*/{FILE}")):
            if path.parent.resolve() == self._path.parent.resolve():
                continue
            try:
                page = _read(path).get(self._split)
            except LeanformerError:
                continue  # it is not ours to repair
            if page is not None and page["looks"]:
                found.append((path.parent, len(page["looks"])))
        if not found:
            return []
        places = ", ".join(f"{path} ({looks} look{'s' if looks > 1 else ''})" for path, looks in found[:3])
        sentence = (
            f"the same test split was looked at in other run directories: {places}; their candidates do not count in "
            "the correction here: decide in one run directory, or on new data (leanformer confirm)"
        )
        return [StudyWarning("looked-at-elsewhere", sentence, len(found))]

    def _write(self) -> None:
        write_atomically(self._path, sealed({"splits": self._splits}))


def _join(look: dict[str, Any], seen: Seen) -> None:
    """Adds to a look what is seen of its outcomes under other names or with another margin."""
    for statement, names in seen.candidates.items():
        look["candidates"][statement] = {**look["candidates"].get(statement, {}), **names}
    if look["accepts"][-1] != dict(seen.accept):
        look["accepts"].append(dict(seen.accept))


def is_of_study(directory: Path, split: str) -> bool:
    """Whether a study looked at these test data in a run directory; a confirmation of its models is none.

    Args:
        directory: The run directory.
        split: The SHA-256 of the data.
    """
    page = _read(directory / FILE).get(split)
    return page is not None and len(page["looks"]) > (1 if page.get("confirmation", False) else 0)


def recipe_of(settings: Mapping[str, Any]) -> str:
    """What a candidate is, whatever its name: a hash of its trial's settings without seeds, and without the fold of a
    cross-validation.

    Args:
        settings: The settings of one of its trials.
    """

    def common(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: common(inner) for key, inner in value.items() if key not in ("seed", "fold")}
        return [common(inner) for inner in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps(common(settings)).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    """The pages of a ledger, by the SHA-256 of their test splits.

    Raises:
        LeanformerError: It is damaged: what was seen is not known then.
    """
    if not path.exists():
        return {}
    try:
        content = read_sealed(path, required=True)
    except DamagedError as error:
        raise LeanformerError(
            f"{error}; it records what was seen of the test split: put back a copy, or start in a new run directory "
            "with new test data"
        ) from None
    splits: dict[str, Any] = content["splits"]
    return splits


def _has_effect(key: str, accept: Mapping[str, Any]) -> bool:
    """Whether a key is for all metrics, or one that the metric reads."""
    settings = {name for metric in METRICS.values() for name in metric.reads}
    return key not in settings or key in METRICS[accept["metric"]].reads


def _written(value: Any) -> str:
    """A value as the study file has it."""
    return "null" if value is None else str(value)
