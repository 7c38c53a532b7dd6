"""The windows of attentions: how far a token reads, as a model's configuration says it."""

from __future__ import annotations

from typing import Any

from torch import nn

from leanformer.model.finding import facts
from leanformer.model.hf import STUDENT_PREFIX


def max_distance(attention: nn.Module, config: Any, number: int, causal: bool) -> int | None:
    """How far apart tokens may be that an attention lets read each other; None: it has no window.

    A decoder's window counts the token itself, one of both directions is how far a token reads either way: so
    transformers masks them (``masking_utils``).

    Args:
        attention: A self-attention.
        config: The configuration of the model that it is in.
        number: Its layer's number there.
        causal: Whether a token reads no later ones.
    """
    inclusive = facts.WINDOWED_CLASSES.get(type(attention).__name__)
    if inclusive is not None:
        return int(getattr(config, inclusive))
    kind = str(config.model_type).removeprefix(STUDENT_PREFIX)
    key = facts.WINDOW if kind in facts.WINDOWS_EVERYWHERE else _window_key(config, number)
    window = None if key is None else getattr(config, key, None)
    if not window:  # some write 0 for none
        return None
    return int(window) - (1 if causal or kind in facts.NARROW_WINDOWS else 0)


def _window_key(config: Any, number: int) -> str | None:
    """The key of the configuration that says how wide the window of a layer is; None where it has none."""
    for types, windows in facts.WINDOWS_BY_LAYER.items():
        of_layers = getattr(config, types, None)
        if of_layers:
            return windows.get(of_layers[number]) if number < len(of_layers) else None
    return facts.WINDOW
