"""What models of each kind are called with: random, always the same, and padded where a model reads a mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from transformers import PretrainedConfig

Inputs = dict[str, torch.Tensor]


class Draw:
    """Draws tensors for a batch of sequences, the same for the same seed.

    Args:
        config: The configuration of the model that reads them.
        batch: Number of sequences.
        length: Number of tokens, or of frames of sound, in the longest sequence.
        seed: Of the random numbers.
    """

    def __init__(self, config: PretrainedConfig, batch: int, length: int, seed: int) -> None:
        self.config, self.batch, self.length = config, batch, length
        self.generator = torch.Generator().manual_seed(seed)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, (self.batch, *shape), generator=self.generator)

    def numbers(self, *shape: int) -> torch.Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator)

    def words(self, length: int) -> torch.Tensor:
        """Tokens that are not special: in every vocabulary here those are 0, 1, 2 and, for images, 98."""
        return self.integers(3, 98, length)  # (batch, length)

    def mask(self, length: int) -> torch.Tensor:
        """Ones; the last sequence is a third shorter than the others, and has zeros at its end."""
        mask = torch.ones(self.batch, length, dtype=torch.long)
        mask[-1, length - length // 3 :] = 0
        return mask  # (batch, length)

    def words_and_mask(self, padded_on_the_left: bool = False) -> Inputs:
        mask = self.mask(self.length)
        if padded_on_the_left:
            mask = mask.flip(1)
        return {"input_ids": self.words(self.length) * mask, "attention_mask": mask}  # padding is token 0

    def sound(self, name: str, length: int, *shape: int) -> Inputs:
        return {name: self.numbers(length, *shape), "attention_mask": self.mask(length)}

    def written(self) -> Inputs:
        """What a decoder has written so far, which is shorter than what the encoder read."""
        return {"decoder_input_ids": self.words(self.length - 2)}

    def image_size(self) -> int:
        size = getattr(self.config, "image_size", 32)
        return size if isinstance(size, int) else size[0]

    def patches(self) -> int:
        """Number of patches along one side of an image."""
        return self.image_size() // self.config.patch_size


def text(draw: Draw) -> Inputs:
    return draw.words_and_mask()


def text_with_boxes(draw: Draw) -> Inputs:
    corners = draw.integers(0, 30, draw.length, 2)
    boxes = torch.cat((corners, corners + draw.integers(1, 30, draw.length, 2)), dim=-1)  # left, top, right, bottom
    return {**text(draw), "bbox": boxes}


def text_with_image(draw: Draw) -> Inputs:
    return {**text(draw), **image(draw)}


def text_to_continue(draw: Draw) -> Inputs:
    return draw.words_and_mask(padded_on_the_left=True)


def images_in_text_to_continue(draw: Draw) -> Inputs:
    """Before the text stands an image, with one token for each of its patches."""
    images = Draw(draw.config.vision_config, draw.batch, draw.length, draw.generator.initial_seed())
    words = text_to_continue(draw)
    places = torch.full((draw.batch, images.patches() ** 2), draw.config.image_token_id)
    return {
        "input_ids": torch.cat((places, words["input_ids"]), dim=1),
        "attention_mask": torch.cat((torch.ones_like(places), words["attention_mask"]), dim=1),
        **image(images),
    }


def text_to_text(draw: Draw) -> Inputs:
    return {**text(draw), **draw.written()}


def image(draw: Draw) -> Inputs:
    return {"pixel_values": draw.numbers(3, draw.image_size(), draw.image_size())}


def image_with_noise(draw: Draw) -> Inputs:
    """The noise says which patches are masked."""
    return {**image(draw), "noise": draw.numbers(draw.patches() ** 2)}


def patches(draw: Draw) -> Inputs:
    """Images of different sizes, cut into patches; the last image has one row of patches fewer."""
    side = draw.patches()
    shapes = torch.full((draw.batch, 2), side)
    shapes[-1, 0] -= 1
    mask = torch.ones(draw.batch, side**2, dtype=torch.long)
    mask[-1, -side:] = 0
    pixels = draw.numbers(side**2, 3 * draw.config.patch_size**2)
    return {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def video(draw: Draw) -> Inputs:
    return {"pixel_values": draw.numbers(draw.config.num_frames, 3, draw.image_size(), draw.image_size())}


def sound_wave(draw: Draw) -> Inputs:
    samples = draw.length * math.prod(draw.config.conv_stride) * getattr(draw.config, "squeeze_factor", 1)
    return draw.sound("input_values", samples)


def sound_wave_to_text(draw: Draw) -> Inputs:
    return {**draw.sound("input_values", draw.length * 384 + 512), **draw.written()}  # strides of 64, 3 and 2


def spectrum(draw: Draw) -> Inputs:
    return {"input_values": draw.numbers(draw.config.max_length, draw.config.num_mel_bins)}


def sound_frames(draw: Draw) -> Inputs:
    return draw.sound("input_features", draw.length, draw.config.feature_projection_input_dim)


def sound_frames_to_text(draw: Draw) -> Inputs:
    frames = 2**draw.config.num_conv_layers * draw.length
    return {**draw.sound("input_features", frames, draw.config.input_feat_per_channel), **draw.written()}


def whole_spectrum_to_text(draw: Draw) -> Inputs:
    """The sound has always the same length, and no mask."""
    frames = 2 * draw.config.max_source_positions
    return {"input_features": draw.numbers(draw.config.num_mel_bins, frames), **draw.written()}


def series(draw: Draw) -> Inputs:
    config = draw.config
    past, future = config.context_length + max(config.lags_sequence), config.prediction_length
    return {
        "past_values": draw.numbers(past),
        "past_time_features": draw.numbers(past, config.num_time_features),
        "past_observed_mask": draw.mask(past).flip(1),
        "future_values": draw.numbers(future),
        "future_time_features": draw.numbers(future, config.num_time_features),
    }


def series_in_patches(draw: Draw) -> Inputs:
    return {"past_values": draw.numbers(draw.config.context_length, draw.config.num_input_channels)}


KINDS: dict[str, Callable[[Draw], Inputs]] = {
    kind.__name__: kind
    for kind in (
        text,
        text_with_boxes,
        text_with_image,
        text_to_continue,
        images_in_text_to_continue,
        text_to_text,
        image,
        image_with_noise,
        patches,
        video,
        sound_wave,
        sound_wave_to_text,
        spectrum,
        sound_frames,
        sound_frames_to_text,
        whole_spectrum_to_text,
        series,
        series_in_patches,
    )
}
"""The kinds of the catalogue."""
