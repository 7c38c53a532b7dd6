"""Multi30k German to English: what each block in place of attention costs in BLEU, without and with tuning the whole.

    python benchmarks/multi30k.py --data ../shared/data/multi30k --out benchmarks/results/multi30k.json

Runs benchmarks/multi30k.yaml, a study of leanformer's own (one seed: it speaks of one trained teacher), and keeps its
rows. Every candidate, or those named with ``--tune``, is run a second time with an epoch of tuning the whole student,
those named with ``--longer`` a third time with four, and those named with ``--sequence`` with four on the teacher's own
translations. What is there already is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import leanformer as lf
from leanformer.files import write_atomically
from leanformer.rundir import to_json

STUDY = Path(__file__).with_suffix(".yaml")
TUNING = {"epochs": 1, "learning_rate": 5e-4, "cross_entropy": 1.0, "logits": 1.0, "targets": "data"}
LONGER = {**TUNING, "epochs": 4, "learning_rate": 1e-3}
SEQUENCE = {**LONGER, "targets": "teacher"}
KEPT = (
    "name",
    "method",
    "plan",
    "parameters",
    "parameters_ratio",
    "quality",
    "scores",
    "difference",
    "decision",
    "reason",
    "train_seconds",
    "latency_ms",
    "throughput_per_second",
    "tokens_per_second",
    "ms_per_token",
    "decoding",
    "by_length",
)


def row(result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a candidate."""
    changed = [change for change in result["changes"] if change["changed"]]
    return {key: result[key] for key in KEPT} | {
        "sites": [
            {key: change[key] for key in ("site", "block", "arguments", "removed", "added", "r2")} for change in changed
        ],
        "removed": sum(change["removed"] for change in changed),
        "added": sum(change["added"] for change in changed),
    }


def main() -> None:
    """Runs the study, prints its table, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Multi30k: a hub id or a local copy in its layout")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--tune", nargs="*", help="candidates; by default all, with nothing behind it none")
    parser.add_argument("--longer", nargs="*", default=["both-slots", "all-slots"])
    parser.add_argument("--sequence", nargs="*", default=["all-slots"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    study = lf.read_study(STUDY, [f"data.source={arguments.data}"]).model_dump(mode="json")
    for name in list(study["candidates"]) if arguments.tune is None else arguments.tune:
        study["candidates"][f"{name}-tuned"] = study["candidates"][name] | {"finetune": TUNING}
    for name in arguments.longer:
        study["candidates"][f"{name}-tuned-longer"] = study["candidates"][name] | {"finetune": LONGER}
    for name in arguments.sequence:
        study["candidates"][f"{name}-sequence"] = study["candidates"][name] | {"finetune": SEQUENCE}
    results = lf.run(study, arguments.runs / "multi30k").results
    rows = [row(result) for result in (results["baseline"], *results["candidates"])]
    print(f"{'':28} {'added':>12} {'removed':>9} {'R2':>6} {'BLEU':>6}  difference")
    for one in rows:
        known = [site["r2"] for site in one["sites"] if site["r2"] is not None]
        gap = one["difference"]
        print(
            f"{one['name']:28} {one['added']:>12,} {one['removed']:>9,} "
            f"{sum(known) / len(known) if known else float('nan'):6.3f} {one['quality']['mean']:6.2f}  "
            + ("" if gap is None else f"{gap['mean']:+.2f} ({gap['low']:+.2f} to {gap['high']:+.2f})")
        )
    if arguments.out:
        kept = ("environment", "signatures", "decode", "data", "study")
        write_atomically(arguments.out, to_json({key: results[key] for key in kept} | {"rows": rows}))


if __name__ == "__main__":
    main()
