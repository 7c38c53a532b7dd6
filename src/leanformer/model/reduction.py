"""``leanformer reduce``: from a model's directory to a student's, without a copy of the weights in memory."""

from __future__ import annotations

import os

from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.conversion import copy_companions, free_directory
from leanformer.model.directory import find_directory, path_of
from leanformer.model.family import find_family
from leanformer.model.hf import copy_attention_implementation
from leanformer.model.plan import Plan
from leanformer.model.sizes import outline
from leanformer.model.students import load, save, settle_generation, student_config
from leanformer.model.surgery import install, resolve
from leanformer.model.weights import take_tensors


def reduce_directory(source: str | os.PathLike[str], plan: Plan, out: str | os.PathLike[str]) -> PreTrainedModel:
    """Writes the student that a plan makes of a model's directory, with the tokenizer's or image processor's files.

    The weights that stay are never copied in memory: they are read from the model's file when they are written. Blocks
    are new, or start from the model's weights where the plan says so; nothing is trained.

    Args:
        source: A model's directory, or a hub id.
        plan: As of ``lf.reduce``.
        out: The directory to make; it must not exist, or be empty.

    Returns:
        The student, on weights that are shared with the file of ``source``: load it from ``out`` to train it.

    Raises:
        LeanformerError: There is no such model, the plan does not fit it, or ``out`` is in use or cannot be written.
    """
    name = path_of(source)
    target = free_directory(out)
    model = load(name)
    family = find_family(model)
    change = resolve(model, plan)
    if not change:
        raise LeanformerError("the plan changes nothing in this model; copy its directory instead")
    student = outline(family.student_model_class, student_config(family, model, change))
    install(model, change, take_over=True)
    take_tensors(student, model)
    copy_attention_implementation(model, student)
    settle_generation(student, model, change)
    save(student.eval(), target)
    copy_companions(find_directory(name, []), target)
    return student
