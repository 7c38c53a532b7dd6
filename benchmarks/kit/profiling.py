"""Where the time goes: the shares of kinds of operators, by PyTorch's profiler."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from torch.profiler import ProfilerActivity, profile, record_function

WHOLE = "measured"
KINDS = {
    "products": ("mm", "linear"),
    "attention kernels and softmax": ("scaled_dot_product", "softmax"),
    "layer norms": ("layer_norm",),
    "copies (cat, copy, gather, fill)": ("cat", "copy", "index", "gather", "fill", "clone", "zero", "ones", "full"),
}
"""Kinds of operators -> parts of their names; the first that fits."""
TRAINING_KINDS = {**KINDS, "optimizer and clipping": ("adam", "foreach")}
OTHER, AROUND = "other operators", "around the operators"


def time_by_kind(action: Callable[[], object], kinds: Mapping[str, tuple[str, ...]] = KINDS) -> dict[str, float]:
    """The shares of kinds of operators, and of what is around them (Python, autograd), in an action's time on the CPU.

    The profiler slows small operators down more than large ones.

    Args:
        action: Called once.
        kinds: Names -> parts of operators' names.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells standard error of each start and stop
    with profile(activities=[ProfilerActivity.CPU]) as record, record_function(WHOLE):
        action()
    spent = dict.fromkeys((*kinds, OTHER, AROUND), 0.0)
    for event in record.key_averages():
        fits = (kind for kind, parts in kinds.items() if any(part in event.key for part in parts))
        outside = event.key == WHOLE or "::" not in event.key or event.key.startswith("autograd::")
        spent[AROUND if outside else next(fits, OTHER)] += event.self_cpu_time_total
    return {kind: own / sum(spent.values()) for kind, own in spent.items()}


def in_percent(what: str, shares: Mapping[str, float]) -> dict[str, str]:
    """Rows of a table of figures, the largest share first, nothing below a percent.

    Args:
        what: Whose time it is.
        shares: Kind of operator -> its part of the time.
    """
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return {f"{what}: {kind}": f"{100 * share:.0f} %" for kind, share in ordered if share >= 0.01}
