"""What studies write into results.json, for the tests of the report: plain, failed, hostile."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

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
        "accept": {"metric": "accuracy", "max_drop": 0.01, "confidence": 0.95},
        "prefer": "parameters",
        "seeds": list(range(seeds)),
        "data": {
            "source": "digits",
            "train": 970,
            "validation": 108,
            "test": TEST,
            "classes": [str(number) for number in range(classes)],
            "channels": 1,
            "height": 8,
            "width": 8,
            "storage": "memory",
            "notes": ["no test split: 40 % of all examples set aside, seed 0"],
        },
        "baseline": baseline,
        "candidates": [example_row(*recipe, seeds, classes) for recipe in recipes],
        "recommended": "four-heads",
        "recommendation": "Ship four-heads, the cheapest accepted candidate by parameters.",
        "ship": "trials/four-heads/seed-1/model",
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
        "rollbacks": [{"seed": 0, "what": "not finite at epoch 3, step 2: back to the last good state, rate 0.001"}],
        "per_class": [],
        "mcnemar": [],
    }
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
    ):
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
    for row in (results["baseline"], *results["candidates"]):
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
