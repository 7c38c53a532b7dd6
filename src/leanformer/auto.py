"""Registers students with transformers' ``Auto`` classes: ``import leanformer.auto`` is all there is to do.

``AutoConfig``, ``AutoModelForImageClassification``, ``AutoModelForSeq2SeqLM`` and what is built on them (``pipeline``)
then load students from their directories as they load any model. ``lf.reduce`` and ``lf.load`` do the same.
"""

from __future__ import annotations

from transformers import AutoConfig

from leanformer.model.families import FAMILIES
from leanformer.model.student_models import STUDENTS

for _name, (_config_class, _model_class) in STUDENTS.items():
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
    FAMILIES[_name].auto_class.register(_config_class, _model_class, exist_ok=True)
