"""The steps of an inspection: linear maps, probes, and what the model loses when a site is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import AttentionWeights, BlockModule, HeadsModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.config.base import DistillConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.events import Reporter
from leanformer.learn.activity import find_activities
from leanformer.learn.lessons import Explained, Lesson, answer, teachable, teaching_config, teaching_loss
from leanformer.learn.observe import Observed, Seen, frozen_copy
from leanformer.learn.probes import HeadsProbe, LeastSquares, LinearModule, features
from leanformer.learn.step import make_accelerator, settle_precision
from leanformer.learn.train import train
from leanformer.measure.attention import HeadSpread, weights_of
from leanformer.model.family import Family, find_family
from leanformer.model.plan import Choice, match
from leanformer.model.students import reduce
from leanformer.model.surgery import build, module_at, put, resolve, sites, without_layers
from leanformer.results.inspection import best_probe
from leanformer.tasks.base import Task

KINDS = ("self_attention", "cross_attention", "mlp")


PROBES: dict[str, dict[str, Any]] = {
    "slots": {"block": "slots", "slots": 16, "gate": "linear"},
    "synthesizer": {"block": "synthesizer", "source_score": "linear"},
    "mixer": {"block": "mixer"},
    "feed_forward": {"block": "feed_forward", "size": "S"},
    "mlp": {"block": "mlp", "hidden": 32},
}
"""The default probes by name, each tried where it can stand; ``max_length`` follows from the data."""


KEPT = "this block stands there already; give it arguments, or take another block"


def choice_at(site: Site, entry: Mapping[str, Any]) -> Choice:
    """A probe's block at a site.

    Raises:
        LeanformerError: The block cannot stand there, or stands there already.
    """
    choice = match({site.name: entry}, [site])[site.name]
    if choice.block.keeps(choice.arguments):
        raise LeanformerError(KEPT)
    return choice


def inspected_sites(model: PreTrainedModel) -> list[Site]:
    """The sites that can be inspected."""
    return [site for site in sites(model) if site.kind in KINDS and site.block != "none"]


class Inspector:
    """One inspection, step by step."""

    def __init__(
        self,
        task: Task,
        trained: PreTrainedModel,
        probes: Mapping[str, Mapping[str, Any]] | None,
        teach: DistillConfig,
        reporter: Reporter,
    ) -> None:
        self.task = task
        self.trained = trained
        self.opened = frozen_copy(reduce(trained, {}))
        self.config = teach
        self.reporter = reporter
        self.given_probes = PROBES if probes is None else probes
        self.probes = {name: dict(entry) for name, entry in self.given_probes.items()}
        self.family: Family = find_family(self.opened)
        self.sites = inspected_sites(self.opened)
        if not self.sites:
            raise LeanformerError("inspect: the model has neither an attention nor an MLP to inspect")
        self.attentions: dict[str, AttentionWeights] = {}
        for site in self.sites:
            weights = self.family.attention_weights(self._module(site))
            if weights is not None:
                self.attentions[site.name] = weights
        self.lessons: dict[tuple[str, str], Lesson] = {}
        self.linear: dict[str, torch.Tensor] = {}
        self.spreads: dict[str, HeadSpread] = {}
        self.explained: dict[tuple[str, str], float] = {}
        self.by_head: dict[tuple[str, str], list[float]] = {}
        self.changes: dict[tuple[str, str], dict[str, float]] = {}
        self.quality: dict[str, float] = {}
        self.layers: dict[str, list[dict[str, Any]]] = {}
        self.longest = 1

    def _module(self, site: Site) -> nn.Module:
        module = module_at(self.opened, site.name)
        assert module is not None
        return module

    def _heads(self, site: Site) -> int | None:
        """The number of heads that the recorded tensors keep apart; None where an output projection mixes them."""
        if site.name in self.attentions:
            return self.attentions[site.name].num_heads
        module = self._module(site)
        return module.heads_in_output if isinstance(module, BlockModule) else None

    def _wanted(self) -> list[tuple[str, Any]]:
        outputs: list[tuple[str, Any]] = [(site.name, "output") for site in self.sites]
        return outputs + [(name, "heads") for name in self.attentions]

    @torch.no_grad()
    def _read(
        self, batches: Iterable[Mapping[str, torch.Tensor]], look: Callable[[Site, Seen, torch.Tensor | None], object]
    ) -> None:
        """Lets the model read batches, and calls ``look`` for each site with the mask of its tokens."""
        with Observed(self.opened, self._wanted()) as observed:
            for batch in batches:
                seen = observed.read(dict(batch))
                for site in self.sites:
                    look(site, seen, seen.mask_at(site))

    def fit(self) -> None:
        """Fits linear maps on the training split; measures them, and how attention spreads, on held-out examples."""
        fits = {(site.name, "output"): LeastSquares() for site in self.sites}
        fits |= {(name, "heads"): LeastSquares() for name in self.attentions}

        def add(site: Site, seen: Seen, mask: torch.Tensor | None) -> None:
            given = _real(_features(site, seen, mask), mask)
            self.longest = max(self.longest, _tokens(site, seen))
            for target in ("output", "heads"):
                if (site.name, target) in fits:
                    fits[site.name, target].add(given, _real(seen.targets[site.name, target], mask))

        self.reporter.say(f"{self.reporter.study}: fitting linear maps at {len(self.sites)} sites", style="dim")
        self._read(self.task.teaching_batches(1).training(seed=0, epoch=0), add)
        maps = {key: fit.solve() for key, fit in fits.items()}
        self.linear = {name: weight for (name, target), weight in maps.items() if target == "output"}
        whole = {site.name: Explained() for site in self.sites}
        heads = {name: Explained() for name in self.attentions}

        def measure(site: Site, seen: Seen, mask: torch.Tensor | None) -> None:
            given = _real(_features(site, seen, mask), mask)
            self.longest = max(self.longest, _tokens(site, seen))
            whole[site.name].add(given @ maps[site.name, "output"], _real(seen.targets[site.name, "output"], mask))
            if site.name in heads:
                target = _real(seen.targets[site.name, "heads"], mask)
                heads[site.name].add(given @ maps[site.name, "heads"], target)
            self._spread(site, seen, mask)

        self._read(self.task.validation_batches(), measure)
        for site in self.sites:
            self.explained[site.name, "linear"] = whole[site.name].r2()
            count = self._heads(site)
            if count is not None:
                self.by_head[site.name, "linear"] = heads.get(site.name, whole[site.name]).r2_by(count)

    def _spread(self, site: Site, seen: Seen, mask: torch.Tensor | None) -> None:
        weights = weights_of(self.family, site, self._module(site), _inputs(site, seen, mask))
        if weights is not None:
            causal = site.causal and not site.reads_source
            spread = self.spreads.setdefault(site.name, HeadSpread(causal))
            spread.add(weights, mask, seen.source_mask if site.reads_source else mask)

    def teach(self) -> None:
        """Teaches all probes together, and measures them on held-out data."""
        self._make_lessons()
        lessons = list(self.lessons.values())
        if not lessons:
            return
        precision = settle_precision("float32", self.task.device)
        self.reporter.start(f"teaching {len(lessons)} probes", self.config.epochs)
        with Observed(self.opened, [(lesson.site.name, lesson.target) for lesson in lessons]) as observed:
            train(
                teachable(lessons),
                self.task.teaching_batches(self.config.batch_multiple),
                teaching_config(self.config),
                self.config.learning_rate,
                0,
                _Progress(self.reporter, self.config.epochs),
                make_accelerator(precision, self.task.device),
                loss=teaching_loss(observed, lessons),
            )
        self.reporter.done(" ")
        whole = {key: Explained() for key in self.lessons}
        heads = {key: Explained() for key in self.lessons}

        def measure(site: Site, seen: Seen, mask: torch.Tensor | None) -> None:
            for (name, probe), lesson in self.lessons.items():
                if name != site.name:
                    continue
                given, target = answer(lesson, seen)
                heads[name, probe].add(given, target)
                if lesson.target == "heads":
                    given = _real(lesson.block(seen.inputs_at(site)), mask)
                    target = _real(seen.targets[name, "output"], mask)
                whole[name, probe].add(given, target)

        for lesson in lessons:
            lesson.block.eval()
        self._read(self.task.validation_batches(), measure)
        for (name, probe), lesson in self.lessons.items():
            self.explained[name, probe] = whole[name, probe].r2()
            count = self._heads(lesson.site)
            # A block's channels belong to heads where it was taught the heads, or where the site has no projection.
            if count is not None and (lesson.target == "heads" or name not in self.attentions):
                self.by_head[name, probe] = heads[name, probe].r2_by(count)

    def _make_lessons(self) -> None:
        resolved: dict[tuple[str, str], Mapping[str, Any]] = {}
        problems: dict[str, list[str]] = {probe: [] for probe in self.given_probes}
        for probe, entry in self.given_probes.items():
            for site in self.sites:
                try:
                    resolved[site.name, probe] = self._resolve(site, entry)
                except LeanformerError as error:
                    problems[probe].append(str(error))
        entries = [(name, entry) for (name, _), entry in resolved.items()]
        activities = find_activities(self.trained, entries, self.task.teaching_batches(1))
        for probe in self.given_probes:
            for number, site in enumerate(self.sites):
                if (site.name, probe) not in resolved:
                    continue
                torch.manual_seed(number)
                entry = resolved[site.name, probe]
                block = build(self.opened, site, entry, take_over=True, activity=activities.get(site.name))
                if block is None or not any(True for _ in block.parameters()):
                    continue
                if isinstance(block, HeadsModule) and block.output is not None and self._is_whole(site):
                    block = HeadsProbe(block, self.attentions[site.name])
                self.lessons[site.name, probe] = Lesson(f"{site.name} {probe}", site, block.to(self.task.device))
            if self.given_probes is not PROBES and not any(name == probe for _, name in self.lessons):
                first = problems[probe][0] if problems[probe] else "it has nothing to learn"
                raise LeanformerError(f"probe {probe}: {first}")

    def _is_whole(self, site: Site) -> bool:
        """Whether the model's own attention stands at a site, with as many channels in all heads as a token has."""
        return site.name in self.attentions and len(self.attentions[site.name].output) == site.d_model

    def _resolve(self, site: Site, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        written = choice_at(site, entry).arguments
        limited = getattr(written, "max_length", None) is not None
        needed = {"max_length": self.longest} if limited else {}
        return resolve(self.opened, {site.name: {**needed, **entry}})[site.name]

    @torch.no_grad()
    def replace(self) -> None:
        """Measures the model with one site at a time emptied, made linear, or replaced by a probe."""
        before = self.task.validate(self.opened, last=False)
        self.quality = before
        self.reporter.start(f"replacing one of {len(self.sites)} sites at a time", len(self.sites))
        for number, site in enumerate(self.sites):
            emptied = reduce(self.trained, {site.name: "none"}).eval()
            self.changes[site.name, "none"] = self._change(emptied, before)
            original = self._module(site)
            stand_ins: dict[str, nn.Module] = {"linear": LinearModule(site, self.linear[site.name])}
            stand_ins |= {probe: lesson.block for (name, probe), lesson in self.lessons.items() if name == site.name}
            for name, module in stand_ins.items():
                put(self.opened, site, module)
                self.changes[site.name, name] = self._change(self.opened, before)
            put(self.opened, site, original)
            self.reporter.step(number, 1, 1)
        self.reporter.done(" ")

    @torch.no_grad()
    def shrink(self) -> None:
        """Finds in which order the layers of each stack could go, down to one.

        Each time it is the layer without which, those before it being gone, the loss is least. A layer's own worth
        says less: of two that do the same, either can go alone.
        """
        stacks: dict[str, list[str]] = {}
        for site in sites(self.opened):
            if site.kind == "layer" and site.block != "none":
                stacks.setdefault(site.name.split(".")[0], []).append(site.name)
        self.layers = {stack: [] for stack in stacks}
        steps = sum(len(left) - 1 for left in stacks.values())
        if not steps:
            return
        self.reporter.start("leaving out one layer after the other", steps)
        for stack, left in stacks.items():
            gone: list[str] = []
            while len(left) > 1:
                changes = {}
                for name in left:
                    with without_layers(self.opened, [*gone, name]):
                        changes[name] = self._change(self.opened, self.quality)
                least = min(left, key=lambda name: changes[name]["loss"])
                left.remove(least)
                gone.append(least)
                keep = [int(name.split(".")[1]) for name in left]
                self.layers[stack].append({"left_out": least, "keep": keep, "change": changes[least]})
                self.reporter.step(sum(map(len, self.layers.values())) - 1, 1, 1)
        self.reporter.done(" ")

    def _change(self, model: PreTrainedModel, before: Mapping[str, float]) -> dict[str, float]:
        after = self.task.validate(model, last=False)
        return {key.removeprefix("validation_"): after[key] - before[key] for key in before}

    def results(self) -> dict[str, Any]:
        """The results, as ``inspection.json`` holds them."""
        tried = ["linear", *self.probes]
        rows = []
        for site in self.sites:
            spread = self.spreads.get(site.name)
            rows.append(
                {
                    "site": site.name,
                    "kind": site.kind,
                    "block": site.block,
                    "parameters": site.parameters,
                    "heads": self._heads(site),
                    "r2": {name: self.explained.get((site.name, name)) for name in tried},
                    "r2_by_head": {name: self.by_head.get((site.name, name)) for name in tried},
                    "probe_parameters": {
                        name: sum(parameter.numel() for parameter in lesson.block.parameters())
                        for (place, name), lesson in self.lessons.items()
                        if place == site.name
                    },
                    "entropy": None if spread is None else spread.entropy,
                    "effective_rank": None if spread is None else spread.effective_rank,
                    "tokens_read": None if spread is None else spread.tokens_read,
                    "replaced": {name: self.changes.get((site.name, name)) for name in ("none", *tried)},
                }
            )
        return {
            "quality": {key.removeprefix("validation_"): value for key, value in self.quality.items()},
            "sites": rows,
            "order": self._order(rows),
            "layers": self.layers,
        }

    def _order(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """The attentions that took a probe, the easiest first, by the model's loss with its best probe."""
        losses = {row["site"]: best_probe(row, self.probes) for row in rows if row["kind"] != "mlp"}
        found = {site: best[1] for site, best in losses.items() if best is not None}
        return sorted(found, key=lambda site: found[site])


class _Progress:
    """Shows the progress of teaching."""

    def __init__(self, reporter: Reporter, epochs: int) -> None:
        self._reporter = reporter
        self._epochs = epochs

    def validate(self, model: nn.Module, last: bool) -> dict[str, float]:
        return {}

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        self._reporter.step(epoch, step, steps_per_epoch)

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        self._reporter.epoch(record, self._epochs, examples_per_second, "")

    def rolled_back(self, reason: str) -> None:
        self._reporter.warn(reason)


def _features(site: Site, seen: Seen, mask: torch.Tensor | None) -> torch.Tensor:
    return features(site, _inputs(site, seen, mask))


def _inputs(site: Site, seen: Seen, mask: torch.Tensor | None) -> BlockInputs:
    return BlockInputs(seen.inputs[site.name], mask, seen.source, seen.source_mask)


def _tokens(site: Site, seen: Seen) -> int:
    tokens = seen.inputs[site.name].shape[1]
    return tokens if seen.source is None or not site.reads_source else max(tokens, seen.source.shape[1])


def _real(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(batch, tokens, channels) -> (real positions, channels)."""
    return states.flatten(0, 1) if mask is None else states[mask]
