"""What students of every shape share."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.hf import AUTO_MAP
from leanformer.model.patches import read_color
from leanformer.model.portable.student_file import write_student_file
from leanformer.model.surgery import install


class Student(PreTrainedModel):
    """Mixed into a Hugging Face model: reduced as its configuration's ``plan`` says.

    A student is a model type of its own, so that no class that ignores the plan ever loads a part of it: transformers'
    ``Auto`` classes rebuild it where ``leanformer.auto`` is imported, and else from the file that it carries, if asked
    to run that.

    Attributes:
        sites: Where blocks stand, as they were told of their sites.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        read_color(self)
        self.sites = install(self, config.plan or {}, take_over=False)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **others: Any
    ) -> None:
        """As of every model of transformers; the file that the student carries is written too."""
        if is_main_process and not os.path.isfile(save_directory):
            try:
                write_student_file(self, self.sites, Path(save_directory))
            except LeanformerError as error:
                self.config.auto_map = dict(AUTO_MAP)
                warnings.warn(
                    f"the student carries no file by which transformers alone could load it: {error}", stacklevel=2
                )
        super().save_pretrained(save_directory, is_main_process=is_main_process, **others)
