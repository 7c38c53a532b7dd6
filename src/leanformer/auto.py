"""Registers students with transformers' ``Auto`` classes: ``import leanformer.auto`` is all there is to do.

``AutoConfig``, ``AutoModelForImageClassification``, ``AutoModelForSeq2SeqLM`` and what is built on them (``pipeline``)
then load students from their directories as they load any model. ``lf.reduce`` and ``lf.load`` do the same.
"""

from __future__ import annotations

from transformers import AutoConfig

from leanformer.model.families import FAMILIES

for _family in FAMILIES.values():
    AutoConfig.register(_family.student_config_class.model_type, _family.student_config_class, exist_ok=True)
    _family.auto_class.register(_family.student_config_class, _family.student_model_class, exist_ok=True)
