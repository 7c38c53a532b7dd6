"""What is noticed in images as they are decoded, and the warnings that follow from it.

Images that show nothing, frames that are not read, and images that are in two splits are not errors of a single file: a
study runs with them, but its results may mislead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from leanformer.core.warning import StudyWarning
from leanformer.data.image_files import has_transparency, is_sixteen_bit

Watch = Literal["plain", "exact", "near"]
"""``plain``: whether an image shows anything; ``exact``: also a hash of its pixels; ``near``: also of its look."""

PLAIN, HIDDEN, FRAMES, DEEP, CUT = 1, 2, 4, 8, 16
"""Flags: of one color; with shapes in its transparency; with more frames; of 16 bits; of 16 bits in color, cut to 8."""
FLAGS, PIXELS, LOOK = 0, 1, 2  # columns
WITH_FRAMES = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})
"""Formats whose other frames are images too; in other formats they are previews, layers or smaller copies."""
NEAR = 4  # bits of 64 in which near duplicates differ at most
BLOCK = 2**22  # pairs of images that are compared at once


def look_at(image: Image.Image, pixels: NDArray[np.uint8], cut: bool, watch: Watch) -> tuple[int, int, int]:
    """Inspects one image.

    Args:
        image: the opened image file.
        pixels: (C, H, W) as the model gets them.
        cut: whether bits of its colors were lost when it was loaded.
        watch: what to look for.

    Returns:
        Flags; a hash of the pixels; and 64 bits that say where neighboring parts get brighter (0 where not asked for).
    """
    flags = 0
    if bool((pixels == pixels[:, :1, :1]).all()):
        flags |= PLAIN
        if has_transparency(image) and len(set(image.convert("RGBA").getchannel("A").getextrema())) > 1:
            flags |= HIDDEN
    if image.format in WITH_FRAMES and getattr(image, "is_animated", False):
        flags |= FRAMES
    if is_sixteen_bit(image):
        flags |= DEEP
    if cut:
        flags |= CUT
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=8).digest() if watch != "plain" else bytes(8)
    look = _difference_hash(pixels) if watch == "near" else bytes(8)
    return flags, int.from_bytes(digest, "little", signed=True), int.from_bytes(look, "little", signed=True)


def _difference_hash(pixels: NDArray[np.uint8]) -> bytes:
    """64 bits: for an image of 9x8 grey values, whether each is brighter than its neighbor on the left."""
    grey = Image.fromarray(pixels.mean(axis=0).astype(np.uint8)).resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(grey)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


Place = Callable[[str, int], str]
"""An example's role and number -> where it comes from."""


def judge(
    seen: Mapping[str, Tensor], labels: Mapping[str, Tensor], classes: tuple[str, ...], watch: Watch, place: Place
) -> tuple[list[str], list[StudyWarning]]:
    """Notes and warnings on what was seen.

    Args:
        seen: (n, 3) of each role, as ``look_at`` gives it; ``train`` is there, the others may be.
        labels: (n,) class numbers.
        classes: their names.
        watch: what was looked for.
        place: names an example.
    """
    warnings = _image_warnings(seen, place)
    if watch == "plain":
        return [], warnings
    held_out = [role for role in ("validation", "test") if role in seen]
    leaks = [warning for role in held_out for warning in _leaks(seen["train"], seen[role], role, watch, place)]
    exact = any(warning.code == "leaked-images" for warning in leaks)
    notes = [] if exact else [f"no {' or '.join(held_out)} image is pixel for pixel in the training split"]
    conflict = _conflict(seen["train"], labels["train"], classes, place)
    return notes, [*warnings, *leaks, *([conflict] if conflict else [])]


def _image_warnings(seen: Mapping[str, Tensor], place: Place) -> list[StudyWarning]:
    warnings = []
    for flag, code in ((PLAIN, "constant-images"), (FRAMES, "several-frames"), (CUT, "cut-colors")):
        found = [
            (role, int(index)) for role, facts in seen.items() for index in (facts[:, FLAGS] & flag).nonzero().flatten()
        ]
        if not found:
            continue
        role, index = found[0]
        total = sum(map(len, seen.values()))
        such = f"{len(found):,} of {total:,}, such as {place(role, index)}"
        if flag == PLAIN:
            sentence = f"images of one color everywhere: {such}; {_cause(int(seen[role][index, FLAGS]))}"
        elif flag == CUT:
            sentence = (
                f"images in color of 16 bits a channel, of which the upper 8 are read: {such}; convert them to 8 bits "
                "by the range that they use"
            )
        else:
            sentence = f"images with several frames, of which the first is read: {such}; give each frame a file"
        warnings.append(StudyWarning(code, sentence, len(found)))
    return warnings


def _cause(flags: int) -> str:
    if flags & HIDDEN:
        return "what they show is in the transparency, which is dropped; put the shapes on a background"
    if flags & (DEEP | CUT):
        return "their values of 16 bits are small for the range that is read; scale all alike"
    if flags & FRAMES:
        return "their first frame is blank, and no other is read; give the frame that shows something"
    return "a model can learn nothing from them; check the files, or remove them"


def _leaks(train: Tensor, held_out: Tensor, role: str, watch: Watch, place: Place) -> list[StudyWarning]:
    """The warnings about images of another split that are in the training split, exactly or nearly."""
    known, own = train.numpy(), held_out.numpy()
    exact = np.isin(own[:, PIXELS], known[:, PIXELS])
    warnings = []
    if exact.any():
        index = int(np.flatnonzero(exact)[0])
        twin = int(np.flatnonzero(known[:, PIXELS] == own[index, PIXELS])[0])
        warnings.append(
            StudyWarning(
                "leaked-images",
                f"{role} images that are pixel for pixel in the training split: {int(exact.sum()):,} of {len(own):,}, "
                f"such as {place(role, index)}, which is {place('train', twin)}; remove them from one of the two",
                int(exact.sum()),
            )
        )
    if watch == "near":
        twins = _near(known, own, exact)
        if (count := int((twins >= 0).sum())) > 0:
            index = int(np.flatnonzero(twins >= 0)[0])
            warnings.append(
                StudyWarning(
                    "near-duplicates",
                    f"{role} images that look like one of the training split: {count:,} of {len(own):,}, such as "
                    f"{place(role, index)}, which looks like {place('train', int(twins[index]))}; look at some, and "
                    "keep images that were taken together in one split",
                    count,
                )
            )
    return warnings


def _near(known: NDArray[np.int64], own: NDArray[np.int64], exact: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) the number of the training image that each one looks most like; -1 for none, and for exact duplicates."""
    twins = np.full(len(own), -1)
    shown = np.flatnonzero(known[:, FLAGS] & PLAIN == 0)  # images of one color all look alike
    asked = np.flatnonzero((own[:, FLAGS] & PLAIN == 0) & ~exact)
    if not len(shown):
        return twins
    looks = known[shown, LOOK].view(np.uint64)
    for part in np.array_split(asked, -(-len(asked) * len(looks) // BLOCK) or 1):
        differing = np.bitwise_count(own[part, LOOK].view(np.uint64)[:, None] ^ looks)  # (part, shown)
        if len(part):
            best = differing.argmin(axis=1)
            alike = differing[np.arange(len(part)), best] <= NEAR
            twins[part[alike]] = shown[best[alike]]
    return twins


def _conflict(train: Tensor, labels: Tensor, classes: tuple[str, ...], place: Place) -> StudyWarning | None:
    """The warning about training images that are the same and have different classes."""
    _, image = np.unique(train.numpy()[:, PIXELS], return_inverse=True)  # equal numbers for equal images
    numbers = labels.cpu().numpy()
    order = np.lexsort((numbers, image))
    same = image[order][1:] == image[order][:-1]
    breaks = same & (numbers[order][1:] != numbers[order][:-1])
    if not breaks.any():
        return None
    first = int(np.flatnonzero(breaks)[0])
    left, right = int(order[first]), int(order[first + 1])
    count = int(np.isin(image, image[order][1:][breaks]).sum())
    return StudyWarning(
        "conflicting-labels",
        f"training images that are pixel for pixel the same and of different classes: {count:,} of {len(numbers):,}, "
        f"such as {place('train', left)} ({classes[numbers[left]]!r}) and {place('train', right)} "
        f"({classes[numbers[right]]!r}); correct the labels",
        count,
    )
