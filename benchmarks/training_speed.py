"""Training speed of the extreme form against Hugging Face's own ViT of the same shape and batch, in one run.

    python benchmarks/training_speed.py --data ../shared/data/mnist --out benchmarks/results/training_speed.json

Shape: d=64, 6 layers, patch 7, MLP of ratio 4. The extreme form has collapsed queries and keys, no values, no output
projection and no MLP. Both go through leanformer's own training step (forward, backward, clipping, AdamW), with the
same batches. In each round every model is measured in turn; the ratio is taken round by round, and the median kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config import ImageDataConfig, ImageTrainConfig
from leanformer.data.batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.files import write_atomically
from leanformer.learn.train import TrainingStep, make_accelerator, settle_precision
from leanformer.machine import environment, pick_device
from leanformer.model.baseline import fresh_model
from leanformer.model.surgery import parameter_count
from leanformer.progress import quiet_libraries
from leanformer.rundir import to_json

EXTREME: dict[str, Any] = {
    "*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "none"},
    "*.mlp": "none",
}


def make_models(heads: int) -> dict[str, PreTrainedModel]:
    """Hugging Face's ViT with its default and its eager attention, and the extreme form of it."""
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 6,
        "num_attention_heads": heads,
        "intermediate_size": 256,
        "patch_size": 7,
        "image_size": 28,
        "num_channels": 1,
        "num_labels": 10,
    }
    baseline = fresh_model("vit", shape)
    eager = fresh_model("vit", {**shape, "attn_implementation": "eager"})
    return {
        f"ViT, {heads} heads": baseline,
        f"ViT, {heads} heads, eager attention": eager,
        f"extreme, {heads} heads": lf.reduce(baseline, EXTREME),
    }


def main() -> None:
    """Measures, prints a table, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="an image data set, such as a local copy of MNIST")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a model and round")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    config = ImageTrainConfig(batch_size=arguments.batch_size)
    precision = settle_precision(config.precision, device)
    accelerator = make_accelerator(precision, device)
    with quiet_libraries():
        data = load_images(ImageDataConfig(source=arguments.data, image_size=28), device, None, None)
        batches = ImageBatches(data, arguments.batch_size, (), data.mean, data.std)
        models = {**make_models(1), **make_models(4)}
        steps = {
            name: TrainingStep(model.to(device).train(), config, 1e-3, accelerator) for name, model in models.items()
        }
        speeds: dict[str, list[float]] = {name: [] for name in models}
        for done in range(-1, arguments.repeats):  # the first round warms up
            for name, step in steps.items():
                examples = 0
                started = time.perf_counter()
                for number, batch in enumerate(batches.training(seed=0, epoch=0)):
                    if number == arguments.steps:
                        break
                    loss = step(batch)
                    examples += len(batch["labels"])
                loss.item()  # waits for the device
                if done >= 0:
                    speeds[name].append(examples / (time.perf_counter() - started))
    rows = []
    for name in models:
        heads = 4 if "4 heads" in name else 1
        baseline = speeds[f"ViT, {heads} heads"]
        eager = speeds[f"ViT, {heads} heads, eager attention"]
        rows.append(
            {
                "model": name,
                "parameters": parameter_count(models[name]),
                "images_per_second": statistics.median(speeds[name]),
                "ratio_to_vit": statistics.median(a / b for a, b in zip(speeds[name], baseline, strict=True)),
                "ratio_to_eager_vit": statistics.median(a / b for a, b in zip(speeds[name], eager, strict=True)),
                "rounds": speeds[name],
            }
        )
        print(
            f"{name:32} {rows[-1]['parameters']:>8,} parameters  {rows[-1]['images_per_second']:>8,.0f} images/s  "
            f"{rows[-1]['ratio_to_vit']:.2f} x ViT, {rows[-1]['ratio_to_eager_vit']:.2f} x eager ViT"
        )
    if arguments.out:
        result = {
            "batch_size": arguments.batch_size,
            "data": Path(arguments.data).name,
            "environment": environment(device, precision),
            "rows": rows,
        }
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
