"""Registers students with transformers' ``Auto`` classes: ``import leanformer.auto`` is all there is to do.

``AutoConfig``, ``AutoModelForImageClassification``, ``AutoModelForSeq2SeqLM`` and what is built on them (``pipeline``)
then load students from their directories as they load any model. ``lf.reduce`` and ``lf.load`` do the same.
"""

import leanformer.model.auto_classes  # noqa: F401
