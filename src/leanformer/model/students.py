"""Students: made from a model and a plan, saved and loaded."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

import leanformer.model.auto_classes  # noqa: F401  (transformers knows students wherever they are made or loaded)
from leanformer.blocks.kit.activity import Activity
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.files import add_to_directory
from leanformer.core.progress import quiet_libraries
from leanformer.model.directory import (
    SAFETENSORS,
    check_outline,
    find_directory,
    one_line,
    path_of,
    read_architecture,
    safetensors_files,
    stored_in,
)
from leanformer.model.family import Family, find_family
from leanformer.model.hf import attend_as, copy_attention_implementation
from leanformer.model.plan import Plan
from leanformer.model.seal import check_seal, seal
from leanformer.model.sizes import check_memory, outline
from leanformer.model.surgery import ResolvedPlan, combine, install, resolve, sites
from leanformer.model.vocabulary import kept_ids, trimmed_generation, trimmed_settings
from leanformer.model.weights import (
    cast_parameters,
    check_weights_are_there,
    device_and_dtype,
    same_weights_other_modules,
    take_tensors,
)


def reduce(model: PreTrainedModel, plan: Plan, activities: Mapping[str, Activity] | None = None) -> PreTrainedModel:
    """Makes the student that a plan describes.

    Every weight that the plan does not replace is kept; what it removes, norms included, is not among the student's
    parameters. New blocks are initialized from PyTorch's global random generator.

    Args:
        model: A Hugging Face model of a supported family, or a student. It is not changed.
        plan: Glob patterns over site names -> a block's name, or ``{"block": name, argument: value}``; later patterns
            override earlier ones.
        activities: Site -> what its heads or neurons do on data (``learn/activity.py``), for blocks that keep the most
            important of them. Without it they are judged by their weights. Studies and ``lf.distill`` look at data.

    Returns:
        A new model in the same precision, on the same device, in the same mode (training or evaluation), whose
        configuration carries the resolved plan.

    Raises:
        LeanformerError: The model is of no supported family, or something in the plan does not fit it.
    """
    family = find_family(model)
    check_weights_are_there(model)
    if activities is not None and not (
        isinstance(activities, Mapping) and all(isinstance(found, Activity) for found in activities.values())
    ):
        raise LeanformerError(
            f"activities: a mapping of site names to what find_activities gives, not {quoted(activities)}"
        )
    change = resolve(model, plan)
    config = student_config(family, model, change)
    check_memory(outline(family.student_model_class, config), "plan")
    # Its new blocks are made among the argument's own weights, so that the student's are the only copy.
    opened = same_weights_other_modules(model)
    install(opened, change, take_over=True, activities=activities)
    device, dtype = device_and_dtype(model)
    if family.is_found:
        student = outline(family.student_model_class, config)
        take_tensors(student, opened, copied=True)
        student.to(device)
        cast_parameters(student, dtype)
    else:
        # Random weights first, which are overwritten: they advance the global generator, so that what draws from it
        # next, a dropout or the next student, gets the same numbers as ever.
        student = family.student_model_class(config)
        student.load_state_dict(opened.state_dict())
        student.to(device=device, dtype=dtype)
    copy_attention_implementation(model, student)
    settle_generation(student, model, change)
    return student.train(model.training)


def outline_of_student(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """The student that a plan describes, without its weights: where only its structure matters.

    It is on the device "meta" and takes no memory for numbers. ``sites``, ``parameter_count`` and ``forward_flops``
    (``measure/cost.py``, with an example on that device, without a mask) give the same for it as for the student.
    Random generators are not changed.

    Args:
        model: As in ``reduce``; it may be an outline itself.
        plan: As in ``reduce``.

    Raises:
        LeanformerError: As in ``reduce``.
    """
    family = find_family(model)
    change = resolve(model, plan)
    student = outline(family.student_model_class, student_config(family, model, change))
    settle_generation(student, model, change)
    return student.train(model.training)


def student_config(family: Family, model: PreTrainedModel, change: ResolvedPlan) -> PreTrainedConfig:
    """A model's configuration with the changes of a plan, added to those that it has already."""
    settings = {
        key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")
    }
    settings["plan"] = combine(settings.get("plan") or {}, change)
    if (ids := kept_ids(change)) is not None:
        settings = trimmed_settings(settings, ids)
    config = family.student_config_class(**settings)
    attend_as(config, model)  # some architectures choose a class of attention by it when they are made
    return config


def settle_generation(student: PreTrainedModel, model: PreTrainedModel, change: ResolvedPlan) -> None:
    """Gives a student that writes text the generation settings of its model, limited to what its blocks can read."""
    if not student.can_generate():
        return
    ids, settings = kept_ids(change), model.generation_config
    student.generation_config = copy.deepcopy(settings) if ids is None else trimmed_generation(settings, ids)
    _, limit = length_limits(student)
    if limit is not None:
        # One more than the decoder can read: the last token that is written is never read.
        student.generation_config.max_length = min(limit + 1, model.generation_config.max_length or limit + 1)


def length_limits(model: PreTrainedModel) -> tuple[int | None, int | None]:
    """Most tokens of a source and of a target that the blocks of a student can read; None where none has a limit."""
    plan = getattr(model.config, "plan", None) or {}
    source, target = [], []
    for site in sites(model):
        limit = plan.get(site.name, {}).get("max_length")
        if limit is not None:
            if site.causal:
                target.append(limit)
            if site.reads_source or not site.causal:
                source.append(limit)
    return min(source, default=None), min(target, default=None)


def save(model: PreTrainedModel, directory: str | os.PathLike[str]) -> None:
    """Writes a model's configuration (with its plan) and weights: ``config.json`` and ``model.safetensors``.

    Both are written beside the target first, flushed to the disk and then moved into it, so that neither a full disk
    nor a power cut leaves a half-written model. Other files in the directory stay. The weights carry their own SHA-256,
    which ``load`` checks.

    Args:
        model: A Hugging Face model of a supported family, or a student.
        directory: Made where it is missing.

    Raises:
        LeanformerError: The model is none of these, a weight is not a number, or the directory cannot be written.
    """
    find_family(model)
    check_weights_are_there(model)
    target = Path(path_of(directory, "directory"))
    if target.name in ("", ".."):
        target = Path(os.path.abspath(target))
    check_finite(model, f"{directory}: the model is not saved")
    if target == target.parent or (os.path.lexists(target) and not os.path.isdir(target)):
        raise LeanformerError(f"{directory}: the model cannot be written: not a directory; choose another place")

    def fill(temporary: Path) -> None:
        model.save_pretrained(temporary)
        for file in temporary.glob("*.safetensors"):
            seal(file)

    try:
        add_to_directory(target, fill)
    # The last two are raised for contradictory settings, of generation and of the configuration.
    except (SafetensorError, ValueError, StrictDataclassError) as error:
        raise LeanformerError(f"{directory}: the model cannot be written: {one_line(error)}") from error


def check_finite(model: PreTrainedModel, where: str) -> None:
    """Checks that every weight is a finite number, and no buffer holds NaN (a bias may exclude a token by infinity).

    Args:
        model: The model.
        where: How the error begins.

    Raises:
        LeanformerError: It names the first tensor.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        bad = ~tensor.isfinite() if name in parameters else tensor.isnan()
        if bad.any():
            first = tensor[bad][0].item()
            raise LeanformerError(
                f"{where}: {int(bad.sum()):,} of the {tensor.numel():,} numbers of {name} are not finite ({first}); "
                "take earlier weights"
            )


def load(source: str | os.PathLike[str]) -> PreTrainedModel:
    """Loads a student, or a model of a supported family, in evaluation mode.

    Only configuration and safetensors are read: code in the directory never runs, and no question is asked.

    Args:
        source: A directory written by ``save`` or ``save_pretrained``, or a hub id.

    Returns:
        The model with exactly the saved weights, in their precision: if they have several, the one that holds all.

    Raises:
        LeanformerError: There is no such model, it is damaged or of no supported family, its weights are not
            safetensors, are not finite, or do not fit its configuration.
    """
    name = path_of(source)
    directory = find_directory(name, [SAFETENSORS[0], SAFETENSORS[1], "model-*.safetensors"])
    try:
        architecture = read_architecture(directory)
        files = safetensors_files(directory, name)
        stored = stored_in(files)
        check_outline(architecture, stored.numbers)
        for file in files:
            check_seal(file)
        with quiet_libraries():  # transformers prints what does not fit; check_fit says it in a line
            model, info = architecture.model_class.from_pretrained(
                str(directory),
                config=architecture.config,
                dtype=stored.precision,  # whatever the configuration says: nothing is rounded
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except Exception as error:  # of many types: a configuration may say anything
        raise LeanformerError(f"{name}: not a model that can be loaded: {one_line(error)}") from error
    check_fit(info, name)
    check_finite(model, name)
    return model.eval()


def check_fit(info: Mapping[str, Collection[Any]], where: str) -> None:
    """Checks what transformers reports about loading.

    Args:
        info: Its ``output_loading_info``.
        where: How the error begins.

    Raises:
        LeanformerError: Weights and configuration do not fit each other.
    """
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            first = sorted(str(key) for key in info[what])[0]
            raise LeanformerError(
                f"{where}: the weights do not fit the configuration: {len(info[what])} {what.replace('_', ' ')}, "
                f"such as {first}"
            )
