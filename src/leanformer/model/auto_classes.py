"""Registers students with transformers' ``Auto`` classes, when it is imported."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedConfig

from leanformer.model.family import FAMILIES, family_of
from leanformer.model.hf import AUTO_CLASSES, STUDENT_PREFIX, classes_of, configuration_of_type, make_configurations


def _configuration_of_students(model_type: str) -> type[PreTrainedConfig] | None:
    """The configuration of the students of an architecture, which become known with it.

    Args:
        model_type: A model type that transformers does not know.

    Returns:
        None where it is no type of students.
    """
    if not model_type.startswith(STUDENT_PREFIX):
        return None
    own = configuration_of_type(model_type.removeprefix(STUDENT_PREFIX))
    if own is None:
        return None
    found = None
    for auto_class in AUTO_CLASSES:
        model_classes = classes_of(auto_class, own)
        if not model_classes:
            continue
        family = family_of(model_classes[0])
        found = family.student_config_class
        auto_class.register(found, family.student_model_class, exist_ok=True)
    return found


for _family in FAMILIES.values():
    AutoConfig.register(_family.student_config_class.model_type, _family.student_config_class, exist_ok=True)
    _family.auto_class.register(_family.student_config_class, _family.student_model_class, exist_ok=True)
make_configurations(_configuration_of_students)
