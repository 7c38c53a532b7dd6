"""What studies write into results.json, for the tests of the report: of images and of text, failed, hostile, old."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from leanformer.results.schema import rows_of

LAYERS, D_MODEL, TEST = 6, 64, 719
ATTENTION, MLP, NORM = 4 * (D_MODEL**2 + D_MODEL), 2 * 4 * D_MODEL**2 + 5 * D_MODEL, 2 * D_MODEL
OTHER = 2_698
SCRIPT = "<script>window.broken = true</script>"


def example_row(
    name: str,
    accuracy: float,
    attention: dict[str, Any] | None,
    attention_parameters: int,
    mlp: bool,
    decision: str | None,
    speed: float,
    seeds: int = 3,
    classes: int = 10,
) -> dict[str, Any]:
    """One model's row, as a study of the digits with a small ViT writes it."""
    random = np.random.default_rng(sum(map(ord, name)))
    changes: list[dict[str, Any]] = []
    for layer in range(LAYERS):
        for kind, block, arguments, changed, before, after in (
            (
                "self_attention",
                "minimal_attention" if attention else "attention",
                attention or {},
                attention is not None,
                ATTENTION + NORM,
                attention_parameters + NORM,
            ),
            ("mlp", "mlp" if mlp else "none", {}, not mlp, MLP + NORM, MLP + NORM if mlp else 0),
        ):
            changes.append(
                {
                    "site": f"encoder.{layer}.{kind}",
                    "kind": kind,
                    "block": block,
                    "arguments": arguments,
                    "changed": changed,
                    "parameters_before": before,
                    "parameters_after": after,
                    # The norm stays where an attention is exchanged.
                    "removed": before - (NORM if after else 0) if changed else 0,
                    "added": after - (NORM if after else 0) if changed else 0,
                    "r2": None,
                    "r2_per_seed": [],
                }
            )
    by_kind: dict[str, int] = {
        "self_attention": sum(change["parameters_after"] for change in changes if change["kind"] == "self_attention"),
        "mlp": sum(change["parameters_after"] for change in changes if change["kind"] == "mlp"),
        "pooling": 0,
        "other": OTHER,
    }
    parameters = sum(by_kind.values())
    whole = LAYERS * (ATTENTION + MLP + 2 * NORM) + OTHER
    spread = random.normal(0, 0.003, seeds)
    per_seed = [accuracy + float(shift) for shift in spread - spread.mean()]
    mean, gap = accuracy, accuracy - 0.974
    width = 0.004 if decision == "accept" else 0.007
    return {
        "name": name,
        "method": "scratch",
        "status": "ok",
        "plan": {"*.mlp": "none"},
        "changes": changes,
        "seeds": list(range(seeds)),
        "learning_rate": 0.003,
        "learning_rate_search": [
            {"learning_rate": 0.001, "status": "ok", "accuracy": accuracy - 0.02, "loss": 0.13},
            {"learning_rate": 0.003, "status": "ok", "accuracy": accuracy, "loss": 0.11},
            {"learning_rate": 0.01, "status": "failed", "accuracy": None, "loss": None},
        ],
        "parameters": parameters,
        "parameters_ratio": parameters / whole,
        "parameters_by_kind": by_kind,
        "flops_per_example": parameters * 34,
        "flops_ratio": parameters / whole,
        "q_ratio": 970 * classes / parameters,
        "quality": {"mean": mean, "low": mean - 0.012, "high": mean + 0.012, "per_seed": per_seed},
        "difference": None if decision is None else {"mean": gap, "low": gap - width, "high": gap + width},
        "scope": "seeds and examples" if seeds > 1 else "one trained pair",
        "decided_seed": None,
        "accepted_at": None,
        "artifact": None,
        "recipe": None,
        "robustness": None,
        "teaching": None,
        "per_class": [
            {
                "class": str(number),
                "examples": TEST // classes,
                "accuracy": min(1.0, accuracy + float(shift)),
                "difference": 0.0 if decision is None else gap + float(shift),
            }
            for number, shift in enumerate(np.round(random.normal(0, 0.015, classes), 4))
        ],
        "curves": [
            {
                "seed": seed,
                "epochs": [
                    {
                        "epoch": epoch,
                        "train_loss": 2.3 * float(np.exp(-epoch / 7)) + 0.02 + float(random.uniform(0, 0.02)),
                        "validation_loss": 2.2 * float(np.exp(-epoch / 8)) + 0.1 + float(random.uniform(0, 0.03)),
                        "validation_accuracy": accuracy
                        - 0.8 * float(np.exp(-epoch / 5))
                        - float(random.uniform(0, 0.03)),
                    }
                    for epoch in range(1, 41)
                ],
            }
            for seed in range(seeds)
        ],
        "train_seconds": 14.2 / speed,
        "train_examples_per_second": 2_730 * speed,
        "latency_ms": {"p50": 1.93 / speed**0.6, "p95": 2.31 / speed**0.6},
        "throughput_per_second": 7_410 * speed,
        "peak_memory_mb": 21.4 / speed**0.5,
        "speeds": [],
        "cost_ratios": None,
        "bytes": 4 * parameters + 3_000,
        "train_peak_memory_mb": 154.2 / speed,
        "mcnemar": []
        if decision is None
        else [
            {"seed": seed, "baseline_only": 11 + seed, "candidate_only": 7, "p_value": 0.48} for seed in range(seeds)
        ],
        "decision": decision,
        "reason": {
            None: "what the others are compared with",
            "accept": "A drop of 1 point or more is ruled out.",
            "reject": "It loses more than 1 point.",
            "undecided": "Its interval holds the margin.",
        }[decision],
        "p_value": {None: None, "accept": 0.003, "reject": 0.98, "undecided": 0.09}[decision],
        "p_adjusted": {None: None, "accept": 0.021, "reject": 1.0, "undecided": 0.36}[decision],
        "more_seeds": 4 if decision == "undecided" else None,
        "more_examples": 2_300 if decision == "undecided" else None,
        "failures": [],
        "rollbacks": [],
        "trials": [f"trials/{name}/seed-{seed}" for seed in range(seeds)],
    }


def example_results(seeds: int = 3, classes: int = 10) -> dict[str, Any]:
    """What a study of the digits with eight candidates writes."""

    def form(qk: str, vo: str, heads: int = 1) -> dict[str, Any]:
        return {"qk": qk, "vo": vo, "heads": heads}

    collapsed, symmetric = D_MODEL**2, D_MODEL * (D_MODEL + 1) // 2
    recipes: list[tuple[str, float, dict[str, Any] | None, int, bool, str, float]] = [
        ("no-mlp", 0.9718, None, ATTENTION, False, "accept", 2.1),
        ("collapsed-qk", 0.9731, form("collapsed", "separate"), 3 * collapsed, True, "accept", 1.1),
        ("collapsed", 0.9690, form("collapsed", "collapsed"), 2 * collapsed, False, "undecided", 3.2),
        ("collapsed-no-vo", 0.9571, form("collapsed", "none"), collapsed, False, "reject", 5.3),
        ("symmetric", 0.9402, form("symmetric", "none"), symmetric, False, "reject", 4.9),
        ("four-heads", 0.9705, form("collapsed", "none", 4), collapsed, False, "accept", 5.1),
        ("four-heads-symmetric", 0.9686, form("symmetric", "none", 4), symmetric, False, "undecided", 4.7),
        ("collapsed-attention-whole-mlp", 0.9722, form("separate", "none", 4), 2 * collapsed, True, "accept", 1.3),
    ]
    baseline = example_row("baseline", 0.974, None, ATTENTION, True, None, 1.0, seeds, classes)
    return {
        "format": 1,
        "name": "digits",
        "task": "image-classification",
        "metric": "accuracy",
        "accept": {"metric": "accuracy", "max_drop": 0.01, "max_ratio": None, "confidence": 0.95},
        "prefer": "parameters",
        "seeds": list(range(seeds)),
        "data": {
            "source": "digits",
            "train": 970,
            "validation": 108,
            "test": TEST,
            "groups": None,
            "classes": [str(number) for number in range(classes)],
            "channels": 1,
            "height": 8,
            "width": 8,
            "storage": "memory",
            "notes": ["no test split: 40 % of all examples set aside, seed 0"],
        },
        "warnings": [],
        "corruptions": [],
        "looks": None,
        "picked": None,
        "cross_validation": None,
        "baseline": baseline,
        "candidates": [example_row(*recipe, seeds, classes) for recipe in recipes],
        "recommended": "four-heads",
        "recommendation": "Ship four-heads, the cheapest accepted candidate by parameters.",
        "ship": "trials/four-heads/seed-1/model",
        "shipped": None,
        "environment": {
            "leanformer": "0.1.0",
            "torch": "2.13.0",
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64",
            "processor": "AMD EPYC 7B13",
            "device": "cpu",
            "threads": 2,
            "precision": "float32",
        },
        "method": {
            "interval": "Intervals account for both kinds of chance, which test examples and which seeds.",
            "cost": "All models in one process on one machine, measured in turn in each of 5 rounds; medians.",
        },
        "study": {
            "name": "digits",
            "data": {"source": "digits"},
            "candidates": {recipe[0]: {"plan": {"*.mlp": "none"}} for recipe in recipes},
            "train": {"epochs": 40, "learning_rate": [0.001, 0.003, 0.01]},
        },
    }


def failed(row: dict[str, Any], reason: str = "the loss is not finite") -> None:
    """Makes a row what a study writes of a candidate whose first seed failed in its third epoch."""
    row |= {
        "status": "failed",
        "decision": "reject",
        "reason": f"Its training failed with seed 0: {reason}.",
        "failures": [{"seed": 0, "reason": reason}],
        "rollbacks": [
            {
                "seed": 0,
                "what": "the loss or its gradient was not finite at epoch 3, step 2: back to the last good state, "
                "learning rate 0.001",
            }
        ],
    }
    row |= {key: [] for key in ("per_class", "mcnemar", "paired_bootstrap", "by_length", "examples") if key in row}
    row["curves"][0]["epochs"] = row["curves"][0]["epochs"][:3]
    for key in (
        "quality",
        "difference",
        "p_value",
        "p_adjusted",
        "more_seeds",
        "more_examples",
        "train_seconds",
        "train_examples_per_second",
        "latency_ms",
        "throughput_per_second",
        "peak_memory_mb",
        "train_peak_memory_mb",
        "tokens_per_second",
        "ms_per_token",
        "scores",
    ):
        if key in row:
            row[key] = None


def hostile_results() -> dict[str, Any]:
    """Twelve candidates with long and hostile names, a hundred classes, one failed candidate, missing costs."""
    results = example_results(classes=100)
    originals = results["candidates"]
    results["candidates"] = []
    for number in range(12):
        row = copy.deepcopy(originals[number % len(originals)])
        row["name"] = f"a-name-as-long-as-names-get-when-every-argument-of-the-plan-stands-in-it-{number}"
        results["candidates"].append(row)
    results["candidates"][0]["name"] = SCRIPT
    results["candidates"][1]["name"] = "<img src=x onerror='window.broken=true'>\u202e%{y}"
    for row in rows_of(results):
        row["reason"] = SCRIPT
        for entry in row["per_class"]:
            entry["class"] = f"</script>{SCRIPT} {entry['class']}"
    results["study"]["note"] = f"</pre>{SCRIPT}"
    results["data"]["notes"].append(SCRIPT)
    results["recommended"] = SCRIPT
    failed(results["candidates"][2], reason=f"</td>{SCRIPT}")
    results["candidates"][3] |= {"latency_ms": None, "train_seconds": None, "flops_per_example": None}
    results["candidates"][4]["curves"][0]["epochs"] = []
    return results


def without_baseline() -> dict[str, Any]:
    results = example_results() | {
        "recommended": None,
        "ship": None,
        "shipped": None,
        "recommendation": "Nothing can be recommended: the baseline failed.",
    }
    failed(results["baseline"])
    results["baseline"] |= {"decision": None, "reason": "what the others are compared with"}
    for row in results["candidates"]:
        row |= {"decision": "undecided", "difference": None, "mcnemar": [], "p_value": None, "p_adjusted": None}
        row |= {"more_seeds": None, "more_examples": None, "reason": "There is nothing to compare with."}
        for entry in row["per_class"]:
            entry["difference"] = None
    return results


def old_results() -> dict[str, Any]:
    """What a study of the digits wrote before candidates could be distilled."""
    results = example_results()
    for row in rows_of(results):
        del row["teaching"]
        for change in row["changes"]:
            for key in ("removed", "added", "r2", "r2_per_seed"):
                del change[key]
    return results


# Translation

WIDE, FEED_FORWARD, LENGTH = 128, 512, 50
PROJECTION, WIDE_NORM = WIDE**2 + WIDE, 2 * WIDE
ATTENTION_SITE, MLP_SITE = 4 * PROJECTION + WIDE_NORM, 2 * WIDE * FEED_FORWARD + FEED_FORWARD + WIDE + WIDE_NORM
STACKS = {"encoder": ("self_attention",), "decoder": ("self_attention", "cross_attention")}
EMBEDDINGS = 1_024_000
SENTENCES = [
    (
        "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
        "A man in an orange hat starring at something.",
        "A man with an orange hat staring at something.",
        "A man in an orange hat standing at something.",
    ),
    (
        "Leute reparieren das Dach eines Hauses.",
        "People are fixing the roof of a house.",
        "People are fixing the roof of a house.",
        "People are on the roof of a house of a house of a house.",
    ),
    (
        "Eine Gruppe von Menschen steht vor einem Iglu, während ein Junge mit einem Schlitten den Hang hinunterfährt.",
        "A group of people standing in front of an igloo while a boy on a red sled goes down the slope.",
        "A group of people stand in front of an igloo while a boy with a red sled goes down the slope.",
        "",
    ),
]

Put = dict[str, tuple[str, dict[str, Any], int]]
"""Stack and kind of a site -> block, arguments, and the block's own parameters a layer."""


def feed_forward(size: str, hidden: int, parameters: int, **arguments: Any) -> tuple[str, dict[str, Any], int]:
    """The block as a plan puts it, in the sizes that results.json has written out."""
    written = {"size": size, "hidden": hidden, "max_length": LENGTH, "per_head": False, "reads": None, **arguments}
    return "feed_forward", written, parameters


def translation_changes(put: Put, explained: float, seeds: int) -> list[dict[str, Any]]:
    """Site by site, three layers a stack; what a wider site took along is empty and does not count as changed."""
    changes = []
    for stack, attentions in STACKS.items():
        for layer in range(3):
            whole = len(attentions) * ATTENTION_SITE + MLP_SITE
            kinds = {kind: ATTENTION_SITE for one in attentions for kind in (one, f"{one}_sublayer")}
            for kind, before in {**kinds, "mlp": MLP_SITE, "layer": whole}.items():
                block, arguments, parameters = put.get(f"{stack}.{kind}", (None, {}, 0))
                wider = {f"{stack}.layer", f"{stack}.{kind}_sublayer"} & set(put)
                inner = (
                    sum(put[f"{stack}.{one}"][2] for one in kinds if f"{stack}.{one}" in put) if kind == "layer" else 0
                )
                # The output projection and the norm stay where an attention alone is replaced.
                kept = PROJECTION + WIDE_NORM if kind in attentions and block else 0
                r2 = [explained - 0.04 * layer - 0.002 * seed for seed in range(seeds)]
                changes.append(
                    {
                        "site": f"{stack}.{layer}.{kind}",
                        "kind": kind,
                        "block": block or ("none" if wider else kind.partition("_")[2] or kind),
                        "arguments": arguments,
                        "changed": block is not None,
                        "parameters_before": before,
                        "parameters_after": parameters + kept if block else 0 if wider else before + inner,
                        "removed": before - kept if block else 0,
                        "added": parameters if block else 0,
                        "r2": sum(r2) / seeds if block else None,
                        "r2_per_seed": r2 if block else [],
                    }
                )
    return changes


def decoding(put: Put) -> dict[str, Any]:
    """What writing costs: what stands in place of attention in the decoder keeps 1,000 numbers, and saves a tenth."""
    replaced = sum(3 for site in put if site.startswith("decoder"))

    def state(source: int, target: int) -> dict[str, int]:
        kept = (6 - replaced) * (source + target) * WIDE
        return {"source_tokens": source, "target_tokens": target, "state_bytes": 4 * (kept + 1_000 * replaced)}

    flops = {"flops_per_source": 21_052_416, "flops_per_token": 3_900_000 - 130_000 * replaced}
    return {**state(14, 13), **flops, "longest": state(46, 50)}


def translation_row(
    name: str,
    bleu: float,
    put: Put,
    decision: str | None,
    speed: float,
    seeds: int,
    method: str = "distill",
    epochs: int = 0,
    explained: float = 0.97,
) -> dict[str, Any]:
    """One model's row, as a study of a small translator writes it.

    Args:
        epochs: Of the training, or of the tuning of what is distilled.
        explained: R² in the first layer; less in those behind it.
    """
    gap, chrf, exact = bleu - 29.75, bleu + 24.1, max(0.0, bleu - 25) / 100
    changes = translation_changes(put, explained if method == "distill" else 0.0, seeds)
    by_kind = {
        kind: sum(change["parameters_after"] for change in changes if change["kind"] == kind)
        for kind in ("self_attention", "cross_attention", "mlp")
    }
    by_kind |= {
        "layer": sum(
            change["parameters_after"] for change in changes if change["kind"] == "layer" and change["changed"]
        ),
        "other": EMBEDDINGS,
    }
    parameters, whole = sum(by_kind.values()), 9 * ATTENTION_SITE + 6 * MLP_SITE + EMBEDDINGS
    taught = [change for change in changes if change["changed"]] if method == "distill" else []
    width = 0.3 if decision == "accept" else 0.6

    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 1.1, "high": mean + 1.2}

    return {
        "name": name,
        "method": method,
        "status": "ok",
        # As the study writes it: the size alone.
        "plan": {
            site.replace(".", ".*.", 1): {"block": block}
            | {key: value for key, value in arguments.items() if key in ("size", "per_head", "slots")}
            for site, (block, arguments, _) in put.items()
        },
        "changes": [change | ({} if taught else {"r2": None, "r2_per_seed": []}) for change in changes],
        "seeds": list(range(seeds)),
        "learning_rate": 0.002 if method == "distill" else 0.001,
        "learning_rate_search": [],
        "parameters": parameters,
        "parameters_ratio": parameters / whole,
        "parameters_by_kind": by_kind,
        "flops_per_example": 21.0 * parameters,
        "flops_ratio": parameters / whole,
        "decoding": decoding(put),
        "q_ratio": None,
        "quality": {**interval(bleu), "per_seed": [bleu] * seeds},
        "difference": None if decision is None else {"mean": gap, "low": gap - width, "high": gap + width},
        "scope": "seeds and examples" if seeds > 1 else "one trained pair",
        "decided_seed": None,
        "accepted_at": None,
        "artifact": None,
        "recipe": None,
        "robustness": None,
        "speeds": [],
        "cost_ratios": None,
        "bytes": None,
        "teaching": {
            "seconds": 61.3,
            "blocks": len(taught),
            "epochs": 6,
            "curves": [
                {
                    "site": change["site"],
                    "block": change["block"],
                    "seed": seed,
                    "r2": [value - 0.9 * float(np.exp(-epoch)) for epoch in range(6)],
                }
                for change in taught
                for seed, value in enumerate(change["r2_per_seed"])
            ],
        }
        if taught
        else None,
        "per_class": [],
        "mcnemar": [],
        "scores": {
            "bleu": {**interval(bleu), "per_seed": [bleu] * seeds},
            "chrf": {**interval(chrf), "per_seed": [chrf] * seeds},
            "exact_match": {"mean": exact, "per_seed": [exact] * seeds},
        },
        "paired_bootstrap": []
        if decision is None
        else [
            {"seed": seed, "difference": {"mean": gap, "low": gap - 0.5, "high": gap + 0.4}, "p_value": 0.012}
            for seed in range(seeds)
        ],
        "by_length": [
            {
                "low": low,
                "high": high,
                "sentences": sentences,
                "score": bleu - 0.1 * low,
                "difference": None if decision is None else gap * (0.6 + low / 20),
            }
            for low, high, sentences in ((1, 5, 41), (6, 10, 388), (11, 15, 402), (16, 20, 131), (21, None, 38))
        ],
        "examples": []
        if decision is None
        else [
            {
                "source": source,
                "reference": reference,
                "baseline": baseline,
                "candidate": candidate,
                "baseline_score": 71.24,
                "candidate_score": 33.0,
            }
            for source, reference, baseline, candidate in SENTENCES
        ],
        "curves": [
            {
                "seed": seed,
                "epochs": [
                    {
                        "epoch": epoch,
                        "train_loss": 2.9 + 5 * rest,
                        "validation_loss": 2.1 + 4 * rest + 0.02 * seed,
                        "validation_token_accuracy": 0.61 - 0.5 * rest,
                    }
                    | ({"validation_bleu": bleu + 0.4} if epoch == epochs else {})
                    for epoch in range(1, epochs + 1)
                    # What was taught begins near the end.
                    for rest in [float(np.exp(-epoch / 4)) * (0.2 if taught else 1)]
                ],
            }
            for seed in range(seeds)
        ],
        "train_seconds": 61.3 + 70.0 * epochs,
        "train_examples_per_second": 431 * speed,
        "latency_ms": {"p50": 48.2 / speed, "p95": 61.0 / speed},
        "throughput_per_second": 212 * speed,
        "tokens_per_second": 2_790 * speed,
        "ms_per_token": {"one": 48.2 / speed / 13, "batch": 1000 / (2_790 * speed)},
        "peak_memory_mb": 18.2 * parameters / whole,
        "train_peak_memory_mb": 512.5,
        "decision": decision,
        "reason": "what the others are compared with" if decision is None else f"{gap:+.2f} BLEU.",
        "p_value": {None: None, "accept": 0.004, "reject": 0.99, "undecided": 0.12}[decision],
        "p_adjusted": {None: None, "accept": 0.024, "reject": 1.0, "undecided": 0.41}[decision],
        "more_seeds": 5 if decision == "undecided" and seeds > 1 else None,
        "more_examples": 1_700 if decision == "undecided" else None,
        "failures": [],
        "rollbacks": [],
        "trials": [f"trials/{name}/seed-{seed}" for seed in range(seeds)],
    }


def translation_results(seeds: int = 3) -> dict[str, Any]:
    """What a study of a small translator with ten candidates writes; the ninth failed."""
    encoder_s, encoder_m = feed_forward("S", 50, 659_350), feed_forward("M", 800, 10_261_600)
    decoder_s, decoder_m = feed_forward("S", 50, 339_478), feed_forward("M", 800, 5_237_728)
    cross_s = feed_forward("S", 100, 1_952_300, reads="prefix")
    heads_s = feed_forward("S", 400, 23_158_400, per_head=True)
    encoder, decoder, cross = "encoder.self_attention", "decoder.self_attention", "decoder.cross_attention"
    recipes: list[tuple[Any, ...]] = [
        ("encoder-S", 29.23, {encoder: encoder_s}, "undecided", 1.05),
        ("encoder-M", 29.61, {encoder: encoder_m}, "accept", 0.87),
        ("encoder-S-heads", 29.7, {encoder: heads_s}, "accept", 0.62),
        ("encoder-layers-S", 28.4, {"encoder.layer": encoder_s}, "reject", 1.3),
        ("decoder-S", 26.12, {"decoder.self_attention_sublayer": decoder_s}, "reject", 1.21, seeds, "distill", 0, 0.81),
        ("cross-S", 5.53, {cross: cross_s}, "reject", 1.4, seeds, "distill", 0, 0.42),
        ("cross-slots", 28.84, {cross: ("slots", {"slots": 16}, 49_408)}, "undecided", 1.5),
        ("both-M-tuned", 29.4, {encoder: encoder_m, decoder: decoder_m}, "accept", 0.9, seeds, "distill", 3),
        ("all-S", 4.9, {encoder: encoder_s, decoder: decoder_s, cross: cross_s}, "reject", 1.6),
        ("no-mlp", 27.9, {"encoder.mlp": ("none", {}, 0)}, "reject", 1.4, seeds, "scratch", 12),
    ]
    candidates = [translation_row(*(recipe if len(recipe) > 5 else (*recipe, seeds))) for recipe in recipes]
    failed(candidates[8])
    candidates[8] |= {"teaching": None}
    candidates[8]["changes"] = [change | {"r2": None, "r2_per_seed": []} for change in candidates[8]["changes"]]
    return example_results(seeds) | {
        "name": "multi30k",
        "task": "translation",
        "metric": "bleu",
        "accept": {"metric": "bleu", "max_drop": 0.5, "max_ratio": None, "confidence": 0.95},
        "prefer": "latency",
        "data": {
            "source": "multi30k",
            "source_language": "de",
            "target_language": "en",
            "train": 29_000,
            "validation": 1_014,
            "test": 1_000,
            "groups": None,
            "notes": ["tokenizer: 8,000 subwords"],
        },
        "signatures": {
            "bleu": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
            "chrf": "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0",
        },
        "decode": {"beam": 5, "max_tokens": 50, "batch_tokens": 4096},
        "method": {
            "interval": "Intervals account for both kinds of chance, which test sentences and which seeds.",
            "cost": "All models in one process on one machine, measured in turn in each of 3 rounds; medians.",
        },
        "baseline": translation_row("baseline", 29.75, {}, None, 1.0, seeds, "scratch", 12),
        "candidates": candidates,
        "recommended": "both-M-tuned",
        "recommendation": "Ship both-M-tuned, the cheapest accepted candidate by latency.",
        "ship": "trials/both-M-tuned/seed-0/model",
        "shipped": None,
        "study": {"name": "multi30k", "task": "translation", "data": {"source": "multi30k"}},
    }


def hostile_translation() -> dict[str, Any]:
    """Sentences, languages, sites and signatures that would like to be part of the page."""
    results = translation_results()
    results["data"] |= {"source_language": f'"{SCRIPT}', "target_language": "'><img src=x>", "notes": [SCRIPT]}
    results["signatures"]["bleu"] = SCRIPT
    for row in results["candidates"]:
        row["name"] = f"{SCRIPT} {row['name']}"
        for example in row["examples"]:
            example |= {"source": SCRIPT, "reference": f"</dd>{SCRIPT}", "candidate": f"<b>{SCRIPT}%{{y}}"}
        for change in row["changes"]:
            change["block"] = f"{change['block']}<img src=x>" if change["block"] == "slots" else change["block"]
    results["recommended"] = results["candidates"][7]["name"]
    return results


def without_translation_baseline() -> dict[str, Any]:
    results = translation_results() | {
        "recommended": None,
        "ship": None,
        "shipped": None,
        "recommendation": "Nothing can be recommended: the baseline failed.",
    }
    for row in rows_of(results):
        failed(row)
        row |= {"teaching": None, "curves": [{"seed": seed, "epochs": []} for seed in range(3)], "rollbacks": []}
        row["changes"] = [change | {"r2": None, "r2_per_seed": []} for change in row["changes"]]
    return results


def exported_results() -> dict[str, Any]:
    """What a study of the digits writes whose models are exported to ONNX, in float32 and in int8."""
    results = example_results()
    rows = []
    for row in rows_of(results):
        quality = row["quality"]
        whole = {key: row[key] for key in ("latency_ms", "throughput_per_second", "peak_memory_mb")}
        exported = row | {
            "artifact": {
                "format": "onnx",
                "precision": "float32",
                "directory": f"exports/{row['name']}/onnx-float32/exported",
                "seed": 1,
                "before": {**quality, "per_seed": [quality["mean"]]},
                "agreement": 1.0,
                "compared": 1_000,
                "largest_difference": 3.1e-6,
            },
            "quality": {**quality, "per_seed": [quality["mean"]]},
            "recipe": {"quality": quality}
            | {key: row[key] for key in ("difference", "scope", "decision", "reason", "p_value", "p_adjusted")}
            | {key: row[key] for key in ("more_seeds", "more_examples")}
            | {"accepted_at": None, "broken_at_most": None},
            "speeds": [
                {"runtime": "onnx", "ms_per_token": None, "tokens_per_second": None, **whole},
                {"runtime": "torch", "ms_per_token": None, "tokens_per_second": None, **whole},
            ],
            "scope": "one trained pair",
        }
        rows.append(exported)
        if row["name"] in ("baseline", "four-heads"):
            int8 = copy.deepcopy(exported) | {"name": f"{row['name']}-int8", "recipe": None}
            int8["artifact"] |= {"precision": "int8", "agreement": 0.9923, "largest_difference": None}
            int8["bytes"] = row["bytes"] // 4
            if row["name"] == "baseline":
                template = results["candidates"][0]
                int8 |= {key: template[key] for key in ("decision", "difference", "reason", "p_value", "p_adjusted")}
            rows.append(int8)
    return results | {
        "baseline": rows[0],
        "candidates": rows[1:],
        "shipped": "exports/four-heads/onnx-float32/exported",
    }


def decided_results(look: int = 1) -> dict[str, Any]:
    """The digits, decided on the one model of each candidate that ships, at a look of two planned ones."""
    results = example_results()
    for row in rows_of(results):
        accepted = 1 if row["decision"] == "accept" else None
        row["recipe"] = {
            "quality": row["quality"],
            **{key: row[key] for key in ("difference", "decision", "reason", "p_value", "p_adjusted", "more_seeds")},
            "more_examples": None,
            "scope": "seeds and examples",
            "accepted_at": accepted,
            "broken_at_most": 0.6316,
        }
        row |= {
            "quality": {**row["quality"], "per_seed": [row["quality"]["mean"]]},
            "scope": "one trained pair",
            "decided_seed": 2,
            "more_seeds": None,
            "accepted_at": accepted,
        }
    names = [row["name"] for row in results["candidates"]]
    taken = {"date": "2026-11-30", "candidates": names, "seeds": [0, 1, 2], "max_drop": 0.01}
    return results | {
        "looks": {
            "number": look,
            "planned": 2,
            "error": 0.025,
            "candidates": len(names),
            "history": [{"number": number, **taken} for number in range(1, look + 1)],
        },
        "picked": {"difference": {"mean": -0.0035, "low": -0.0091, "high": 0.0021}, "candidates": len(names)},
    }


def robust_results() -> dict[str, Any]:
    """What a study of the digits writes that measured robustness; the second candidate failed."""
    results = example_results()
    failed(results["candidates"][1])
    results["corruptions"] = [
        {"name": name, "meaning": f"{name} of a moderate severity"}
        for name in ("blur", "darker", "jpeg", "lighter", "noise", "shift")
    ]
    for row in rows_of(results):
        if row["status"] == "failed":
            continue
        is_baseline = row is results["baseline"]
        quality = row["quality"]["mean"]
        row["robustness"] = [
            {
                "corruption": corruption["name"],
                "quality": quality - 0.01 * number,
                "loss": -0.01 * number,
                "difference": None if is_baseline else {"mean": -0.02, "low": -0.031, "high": -0.009},
                "extra_loss": None if is_baseline else {"mean": -0.015, "low": -0.026, "high": -0.004},
                "p_value": None if is_baseline else 0.001 * number,
                "loses_more": None if is_baseline else number == 1,
            }
            for number, corruption in enumerate(results["corruptions"], start=1)
        ]
    return results
