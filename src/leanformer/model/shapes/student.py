"""What students of every shape share."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel

from leanformer.model.hf import AUTO_MAP
from leanformer.model.surgery import install


class Student(PreTrainedModel):
    """Mixed into a Hugging Face model: reduced as its configuration's ``plan`` says.

    A student is a model type of its own, so that no class that ignores the plan ever loads a part of it: transformers'
    ``Auto`` classes rebuild it where ``leanformer.auto`` is imported, and name that module where it is not.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.config.auto_map = dict(AUTO_MAP)
        install(self, config.plan or {}, take_over=False)
