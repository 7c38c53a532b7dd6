"""What the baselines of studies of classifiers share: a head, which is the trained one or new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leanformer.core.errors import LeanformerError
from leanformer.model.baseline import Baseline
from leanformer.model.heads import class_names


class ClassifierBaseline(Baseline):
    """The baseline of a study of classifiers; see ``Baseline``.

    Attributes:
        new_head: Whether a trained model's head is replaced by one for the data's classes.
    """

    new_head: bool

    @property
    def keeps_weights(self) -> bool:
        """Whether trials start from trained weights, so that examples must be prepared as these were trained on."""
        return self.trained is not None and not self.fresh

    @property
    def head(self) -> tuple[str, tuple[str, ...]] | None:
        """A trained head's source, and the names of its outputs in their order; None where the head is new."""
        if not self.keeps_weights or self.new_head:
            return None
        assert self.trained is not None
        return self.source, class_names(self.trained.config)

    def check_classes(self, config: Any, classes: Sequence[str]) -> None:
        """Checks that the model has as many classes as the data.

        Raises:
            LeanformerError: It has not.
        """
        if config.num_labels != len(classes):
            hint = ", or give it a new head: baseline.head: new" if self.trained is not None else ""
            raise LeanformerError(
                f"baseline.model: {self.source} has {config.num_labels} classes, the data have {len(classes)}; take "
                f"data or a model with as many{hint}"
            )
