"""Registers students with transformers' ``Auto`` classes, when it is imported."""

from __future__ import annotations

from transformers import AutoConfig

from leanformer.model.family import FAMILIES

for _family in FAMILIES.values():
    AutoConfig.register(_family.student_config_class.model_type, _family.student_config_class, exist_ok=True)
    _family.auto_class.register(_family.student_config_class, _family.student_model_class, exist_ok=True)
