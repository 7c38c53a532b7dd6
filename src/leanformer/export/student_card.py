"""The card of a model in the form of transformers, ``README.md``, with metadata as on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from leanformer.export.card import changed, decided, heading
from leanformer.model.directory import read_json
from leanformer.model.hf import STUDENT_PREFIX, auto_classes_of
from leanformer.model.portable.student_file import FILE
from leanformer.results.formats import count, milliseconds, percent
from leanformer.results.metrics import find_metric

PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForSeq2SeqLM": "translation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
}
"""The class of transformers that loads a model -> the hub's name of its task."""


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, as far as that is known.

    Args:
        results: The results of its study.
        row: Its row there.
        decision: What the study decided on it, as in ``Manifest``.
        seed: The training's seed.
        base_model: The hub id or the name of the model that it was made from.
        license: That model's license.
        dataset: The hub id of the data.
    """

    results: Mapping[str, Any] | None = None
    row: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None
    seed: int | None = None
    base_model: str | None = None
    license: str | None = None
    dataset: str | None = None


def model_card(directory: Path, origin: Provenance, repository: str | None = None) -> str:
    """The card's text, in Markdown.

    Args:
        directory: The model's, with its configuration.
        origin: Where it comes from.
        repository: The hub id under which readers load it; None: from the directory.
    """
    config = read_json(directory / "config.json")
    name = directory.absolute().name if repository is None else repository.rpartition("/")[2]
    if repository is None and origin.results is not None and origin.row is not None:
        name = f"{origin.results['name']}-{origin.row['name']}"
    lines = [*heading(_metadata(config, origin, name)), *_paragraphs(directory, config, origin, name, repository)]
    text = "\n".join(lines) + "\n"
    return f"{text}\n<!-- leanformer wrote this text: {_sum(text)} -->\n"


def is_own(text: str) -> bool:
    """Whether a card is as leanformer wrote it, so that nothing is lost where it is written again."""
    body, mark, rest = text.rpartition("\n<!-- leanformer wrote this text: ")
    return bool(mark) and rest == f"{_sum(body)} -->\n"


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _auto_class(config: Mapping[str, Any]) -> str:
    """The class of transformers that loads the model."""
    names = config.get("auto_map", {})
    for architecture in config.get("architectures") or [] if not names else []:
        names = auto_classes_of(getattr(transformers, architecture))
    return next((name for name in names if name in PIPELINES), "AutoModel")


def _architecture(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type", "")).removeprefix(STUDENT_PREFIX)


def _metadata(config: Mapping[str, Any], origin: Provenance, name: str) -> dict[str, Any]:
    pipeline = PIPELINES.get(_auto_class(config)) or (origin.results or {}).get("task")
    metadata: dict[str, Any] = {"license": origin.license, "library_name": "transformers", "pipeline_tag": pipeline}
    if origin.base_model is not None and "/" in origin.base_model:
        metadata["base_model"] = origin.base_model
    metadata["tags"] = ["leanformer", _architecture(config)]
    if origin.dataset is not None:
        metadata["datasets"] = [origin.dataset]
    if origin.row is not None and origin.results is not None and origin.row["quality"] is not None:
        source = origin.results["data"]["source"]
        measured = {"type": origin.results["metric"], "value": origin.row["quality"]["mean"]}
        data = {"name": source, "type": origin.dataset or source}
        result = {"task": {"type": pipeline}, "dataset": data, "metrics": [measured]}
        metadata["model-index"] = [{"name": name, "results": [result]}]
    return {key: value for key, value in metadata.items() if value is not None}


def _paragraphs(
    directory: Path, config: Mapping[str, Any], origin: Provenance, name: str, repository: str | None
) -> Iterator[str]:
    plan = config.get("plan") or {}
    made = f", made from `{origin.base_model}`" if origin.base_model else ""
    yield f"# {name}"
    yield ""
    form = "A reduced model, of" if plan else "A model of"
    yield f"{form} the architecture {_architecture(config)}{made}; a model of leanformer."
    if origin.results is not None and origin.row is not None:
        yield (
            f"It is the model `{origin.row['name']}` of the study `{origin.results['name']}`, trained with seed "
            f"{origin.seed}."
        )
    yield ""
    yield "## What was taken out"
    yield ""
    yield from changed(plan)
    if origin.results is not None and origin.row is not None:
        yield from _table(origin.results, origin.row)
        if origin.decision is not None and origin.decision["decision"] is not None:
            yield from decided(origin.decision, "this model")
        yield from _data(origin.results)
    yield from _usage(directory, config, repository)
    yield "## License"
    yield ""
    if origin.license is None:
        yield "Whoever publishes this model chooses its license, and says it at the top of this file."
    else:
        yield f"As the model that it was made from: {origin.license}."


def _table(results: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    metric = find_metric(results)
    baseline = results["baseline"]

    def quality(of: Mapping[str, Any]) -> str:
        found = of["quality"]
        if found is None:
            return "–"
        mean, low, high = (f"{metric.scale * found[key]:.{metric.digits}f}" for key in ("mean", "low", "high"))
        return f"{mean} ({low} to {high}){f' {metric.unit}' if metric.unit else ''}"

    yield "## Beside the baseline"
    yield ""
    yield "| | this model | the baseline |"
    yield "|---|---|---|"
    yield f"| {metric.name} on the test data, with its interval | {quality(row)} | {quality(baseline)} |"
    share = f" ({percent(row['parameters_ratio'])})"
    yield f"| parameters | {count(row['parameters'])}{share} | {count(baseline['parameters'])} |"
    if row["latency_ms"] is not None and baseline["latency_ms"] is not None:
        times = (milliseconds(one["latency_ms"]["p50"]) for one in (row, baseline))
        yield f"| time of a call, median | {' | '.join(times)} |"
    yield ""


def _data(results: Mapping[str, Any]) -> Iterator[str]:
    data = results["data"]
    yield "## Data"
    yield ""
    yield (
        f"`{data['source']}`: {count(data['train'])} examples for training, {count(data['validation'])} for "
        f"validation, {count(data['test'])} for the test. {results['method']['interval']}"
    )
    yield ""


def _usage(directory: Path, config: Mapping[str, Any], repository: str | None) -> Iterator[str]:
    address = json.dumps(repository or "DIRECTORY")
    auto, own = _auto_class(config), (directory / FILE).is_file()
    yield "## Use"
    yield ""
    yield "```python"
    yield f"from transformers import {auto}"
    yield ""
    yield f"model = {auto}.from_pretrained({address}{', trust_remote_code=True' if own else ''})"
    yield "```"
    yield ""
    if own:
        yield (
            f"`trust_remote_code=True` runs `{FILE}`, which is beside the weights: read it first. With leanformer "
            "installed, nothing of it runs:"
        )
        yield ""
        yield "```python"
        yield "import leanformer.auto"
        yield f"from transformers import {auto}"
        yield ""
        yield f"model = {auto}.from_pretrained({address})"
        yield "```"
        yield ""
    if repository is None:
        yield "DIRECTORY is the one that holds this file."
        yield ""
