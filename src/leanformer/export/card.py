"""The card of an exported directory, ``README.md``, with metadata as on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from leanformer.results.formats import differing
from leanformer.runtime.manifest import CARD, EXPORTED_MODEL, MANIFEST, Manifest

PIPELINES = {"image-classification": "image-classification", "translation": "translation"}
"""The study's task -> the hub's name of it."""
ENGINES = {"onnx": "ONNX Runtime", "ctranslate2": "CTranslate2"}
"""Format -> its engine, as it is called."""


LONG = 20
"""Of a list with more numbers, the card says how many they are."""


def card(manifest: Manifest, directory: Path) -> str:
    """The card's text, in Markdown.

    Args:
        manifest: What the directory holds.
        directory: Where all other files are.
    """
    metadata = {
        "library_name": "leanformer",
        "pipeline_tag": PIPELINES.get(manifest.task, manifest.task),
        "tags": ["leanformer", manifest.format, manifest.precision, manifest.source.architecture],
    }
    return "\n".join([*heading(metadata), *_paragraphs(manifest, directory)]) + "\n"


def heading(metadata: Mapping[str, Any]) -> Iterator[str]:
    """The lines that the hub reads; without a license they say where one belongs."""
    yield "---"
    yield yaml.safe_dump(dict(metadata), sort_keys=False).rstrip()
    if "license" not in metadata:
        yield "# license: the license is yours to choose; add it here before you publish the model"
    yield "---"
    yield ""


def _paragraphs(manifest: Manifest, directory: Path) -> Iterator[str]:
    source = manifest.source
    yield f"# {source.candidate or Path(source.model).name or source.model}"
    yield ""
    yield (
        f"A model for {manifest.task} of the architecture {source.architecture}, in the form of "
        f"{ENGINES.get(manifest.format, manifest.format)}, weights in {manifest.precision}. leanformer made it from "
        f"`{source.model}`, and it runs without PyTorch and transformers."
    )
    yield ""
    if source.study is not None:
        yield (f"It is the model `{source.candidate}` of the study `{source.study}`, trained with seed {source.seed}.")
        yield ""
    yield from _decision(manifest)
    yield from _structure(manifest, directory)
    yield from _parity(manifest)
    yield from _usage(manifest)
    yield "## License"
    yield ""
    yield "Whoever publishes this model chooses its license, and says it at the top of this file."


def parity_line(manifest: Manifest) -> str:
    """The comparison with the model in a line."""
    parity = manifest.parity
    answers = "classes" if manifest.images is not None else "translations"
    differ = parity.inputs - round(parity.agreement * parity.inputs)
    line = differing(differ, parity.inputs, answers)
    if differ:
        line += f" ({parity.near_ties:,} of them are near ties)"
    if parity.largest_difference is not None:
        line += f", logits within {parity.largest_difference:.1g}"
    return line


def _decision(manifest: Manifest) -> Iterator[str]:
    decision = manifest.decision
    if decision is not None:
        exported = decision.get("of") == EXPORTED_MODEL
        yield from decided(decision, "this exported model" if exported else "its trained models, before export")


def decided(decision: Mapping[str, Any], subject: str) -> Iterator[str]:
    """What a study decided, with its intervals.

    Args:
        decision: As in ``Manifest``.
        subject: On what, in words.
    """
    yield "## Decision"
    yield ""
    if decision.get("decision"):
        yield f"The study's decision on {subject}: **{decision['decision']}**."
    if decision.get("reason"):
        yield str(decision["reason"])
    yield ""
    rows = [(f"{decision.get('metric')} on the test data", decision.get("quality"))]
    rows.append(("difference to the baseline", decision.get("difference")))
    found = [(name, interval) for name, interval in rows if isinstance(interval, dict)]
    if found:
        yield "| | mean | interval |"
        yield "|---|---|---|"
        for name, interval in found:
            yield f"| {name} | {interval['mean']:.4g} | {interval['low']:.4g} to {interval['high']:.4g} |"
        yield ""


def _structure(manifest: Manifest, directory: Path) -> Iterator[str]:
    sizes = {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (CARD, MANIFEST)
    }
    yield "## Structure and size"
    yield ""
    yield f"{manifest.source.parameters:,} parameters; the model's files have {sum(sizes.values()):,} bytes:"
    yield ""
    yield from (f"- `{name}`: {size:,} bytes" for name, size in sizes.items())
    yield ""
    yield from changed(manifest.plan)


def changed(plan: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a resolved plan changed, site by site."""
    if not plan:
        yield "Nothing was replaced in it: it is a whole model of its architecture."
        yield ""
        return
    yield "What stands at the sites that were changed:"
    yield ""
    for site, entry in plan.items():
        arguments = {key: _shown(value) for key, value in entry.items() if key != "block" and value is not None}
        yield f"- `{site}`: `{entry.get('block')}`" + (f" `{json.dumps(arguments)}`" if arguments else "")
    yield ""


def _shown(value: Any) -> Any:
    """An argument; of a long list, such as the subwords that a decoder keeps, the length alone."""
    return f"{len(value):,} numbers" if isinstance(value, list) and len(value) > LONG else value


def _parity(manifest: Manifest) -> Iterator[str]:
    yield "## Does it say the same as the model that it was made from?"
    yield ""
    yield f"Compared on inputs {manifest.parity.described}: {parity_line(manifest)}."
    yield ""


def _usage(manifest: Manifest) -> Iterator[str]:
    images = manifest.images is not None
    yield "## Use"
    yield ""
    yield "```"
    yield f"pip install 'leanformer[{manifest.format}]'"
    yield "leanformer predict DIRECTORY image.png" if images else "leanformer translate DIRECTORY sentences.txt"
    call = "predict(['image.png'])" if images else "translate(['a sentence'])"
    yield f"python -c \"import leanformer as lf; print(lf.runtime.load('DIRECTORY').{call})\""
    yield "```"
    yield ""
    yield "DIRECTORY is the one that holds this file. `manifest.json` says the rest, with the SHA-256 of every file."
    yield ""
