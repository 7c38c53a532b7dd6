"""The commands: typed functions, no logic.

A command imports what it needs when it runs, so that one that only runs an exported model starts at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from leanformer.core import bounds
from leanformer.core.errors import LeanformerError, printable
from leanformer.core.extras import not_installed, require
from leanformer.core.machine import keep_freed_memory
from leanformer.core.stopping import Stopped, end, ignore_signals

# Errors of the disk or of access rights, which a user can mend; any other OSError is our bug and keeps its traceback.
USERS_OS_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG)
UsageError: Any = typer.BadParameter.__base__  # of typer's own copy of click

Device = Literal["auto", "cpu", "cuda", "mps"]
EngineDevice = Literal["auto", "cpu", "cuda", "mps", "tensorrt", "directml", "coreml"]
"""Exported models have the engine's devices, and all others PyTorch's."""

NOTHING_RECOMMENDED = 5
"""The exit code of a study that ran to its end but has no model to recommend, because trainings failed."""
VERDICTS = {"accept": 0, "reject": 3, "undecided": 4}
"""The exit codes of commands that decide: ``run --gate``, ``confirm``, ``compare``. A mistake in the input is 2."""


class Commands(TyperGroup):
    """The commands. A user's mistake ends a command with one line and exit code 2, a signal to stop with one line."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Runs the command line and flushes the output here, where a closed pipe is still handled."""
        try:
            try:
                return super().main(*arguments, **settings)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except BrokenPipeError:
            _end_at_closed_pipe()

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Parses the options before the command's name; of these, only that for completion writes files."""
        try:
            return super().make_context(*arguments, **settings)
        except UsageError as error:
            _misused(error)
        except BrokenPipeError:  # whoever read the help closed the pipe; ``main`` ends quietly
            raise
        except OSError as error:
            _refuse(LeanformerError(f"completion cannot be installed: {error.filename}: {error.strerror}"))

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _misused(error, ctx.invoked_subcommand)
        except LeanformerError as error:
            _refuse(error)
        except ModuleNotFoundError as error:
            missing = not_installed(error, f"leanformer {ctx.invoked_subcommand}")
            if missing is None:
                raise
            _refuse(missing)
        except BrokenPipeError:
            _end_at_closed_pipe()
        except (Stopped, KeyboardInterrupt) as stopped:
            ignore_signals()
            goes_on = "; run the same command again to go on" if ctx.invoked_subcommand == "run" else ""
            why = stopped if isinstance(stopped, Stopped) else Stopped(signal.SIGINT)
            end(f"{why}{goes_on}", int(why.code or 0))
        except OSError as error:
            if error.errno not in USERS_OS_ERRORS:
                raise
            _refuse(LeanformerError(f"{error.filename or 'a file'}: {error.strerror}"))


def _end_at_closed_pipe() -> NoReturn:
    """Ends quietly when the reader, such as ``head``, has closed the pipe; Python then writes the rest to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _refuse(error: LeanformerError) -> NoReturn:
    print(f"leanformer: error: {error}", file=sys.stderr)
    sys.exit(2)


def _misused(error: Any, name: str | None = None) -> NoReturn:
    """Ends with one line for a command line that cannot be parsed; it names the help to read.

    Args:
        error: What is wrong.
        name: The command, if it is known.
    """
    if type(error).__name__ == "NoArgsIsHelpError":  # not a mistake: typer shows the help
        raise error
    if error.ctx is not None and error.ctx.parent is not None:  # the error of an option without its value
        name = error.ctx.info_name
    command = "leanformer" if name is None else f"leanformer {name}"
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    _refuse(LeanformerError(f"{message}; see {command} --help"))


def _given(text: str) -> str:
    """Refuses an empty argument, as an unset shell variable gives it."""
    if not text:
        raise typer.BadParameter("it is empty, as an unset shell variable is; give a value")
    return text


def _path(text: str) -> Path:
    """A path, with ``~`` expanded, also where the shell did not expand it."""
    return Path(os.path.expanduser(_given(text)))


def _margin(text: str) -> float | str:
    """A margin: a number, or a share of the baseline's errors such as ``10%``."""
    given = _given(text)
    try:
        return float(given)
    except ValueError:
        return given


def _two_seeds(text: str) -> tuple[int, int]:
    """Two seeds, as ``0:1``."""
    old, mark, new = _given(text).partition(":")
    if not mark or not all(seed.isascii() and seed.isdigit() and len(seed) <= 10 for seed in (old, new)):
        raise typer.BadParameter("give the seeds of the old and of the new model, such as 0:1")
    return int(old), int(new)


def _columns(**names: str | None) -> dict[str, str] | None:
    """What columns of files of predictions hold -> their names, of those that were given; None where none was."""
    return {key: name for key, name in names.items() if name is not None} or None


def _column(option: str, what: str) -> Any:
    """An option that names a column of files of predictions."""
    return typer.Option(option, parser=_given, metavar="COLUMN", help=f"In files of predictions, the column of {what}.")


IdColumn = Annotated[str | None, _column("--id", "the examples' ids")]
LabelColumn = Annotated[str | None, _column("--label", "classes or references")]
PredictionColumn = Annotated[str | None, _column("--prediction", "predicted classes or texts")]
SeedColumn = Annotated[str | None, _column("--seed", "seeds")]
GroupColumn = Annotated[str | None, _column("--group", "groups: examples that are not independent")]
WeightColumn = Annotated[str | None, _column("--weight", "the examples' weights")]
SourceColumn = Annotated[str | None, _column("--source", "source texts")]
Tokenizer = Annotated[
    str,
    typer.Option(
        parser=_given,
        metavar="NAME",
        help="For scores of texts in files: sacreBLEU's tokenizer, such as 13a, zh or char; auto takes what suits "
        "the references' script.",
    ),
]

app = typer.Typer(
    cls=Commands,
    help="Finds the smallest transformer that still does your job, proves it, and ships it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"leanformer {version('leanformer')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    study: Annotated[Path, typer.Argument(parser=_path, help="The study's YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="The run directory; by default runs/ and the study's name."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as train.epochs=5. May be repeated."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, max=bounds.JOBS, help="Trainings that run at a time, each in its own process.")
    ] = 1,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Exit with 0 only if a smaller model is recommended; 3: all candidates are rejected, 4: undecided.",
        ),
    ] = False,
) -> None:
    """Run a study: train, measure, decide, report. Steps that are done are not run again."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.config.reader import read_study

    # Read before PyTorch is imported, which takes seconds: a mistake in the file shows at once.
    settings = read_study(study, set_ or ())
    require("torch")
    print(f"{settings.name}: starting", file=sys.stderr, flush=True)
    if jobs > 1:
        from leanformer.study.executors import import_ahead

        import_ahead(["leanformer.study.side_by_side"])

    from leanformer.report.summary import decision_lines, results_table
    from leanformer.study import run as main_job

    result = main_job.run(settings, out, jobs=jobs)
    console = Console()
    console.print(results_table(result.results))
    headline, *lines = decision_lines(result.results)
    console.print(Text(printable(headline)))
    for warned in result.results["warnings"]:
        console.print(Text(printable(f"Warning: {warned['sentence']} [{warned['code']}]"), style="yellow"))
    for line in lines:
        console.print(Text(printable(line)))
    if result.results["ship"] is not None:
        console.print(Text(printable(f"model:  {result.directory / result.results['ship']}")), soft_wrap=True)
    if result.results["shipped"] is not None:
        console.print(Text(printable(f"shipped: {result.directory / result.results['shipped']}")), soft_wrap=True)
    console.print(Text(printable(f"report: {result.report}")), soft_wrap=True)
    if result.recommended is None:
        raise typer.Exit(NOTHING_RECOMMENDED)
    if gate:
        raise typer.Exit(VERDICTS[result.verdict])


@app.command()
def sites(
    model: Annotated[
        str,
        typer.Argument(parser=_given, help="A family (vit, deit, marian, bart), a model directory, or a hub id."),
    ],
) -> None:
    """List the sites of a model: the names that a plan's patterns match."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from leanformer.core.progress import quiet_libraries
    from leanformer.model.baseline import fresh_model
    from leanformer.model.family import FAMILIES
    from leanformer.model.students import load
    from leanformer.model.surgery import sites as find_sites
    from leanformer.model.weights import parameter_count

    with quiet_libraries():
        found = fresh_model(model, {}) if model in FAMILIES else load(model)
    table = Table("site", "block", "parameters", box=None)
    table.columns[2].justify = "right"
    for site in find_sites(found):
        table.add_row(Text(site.name), Text(printable(site.block)), f"{site.parameters:,}")
    console = Console()
    console.print(table)
    console.print(f"{type(found).__name__}: {parameter_count(found):,} parameters")


@app.command()
def convert(
    model: Annotated[
        str,
        typer.Argument(parser=_given, help="A model's directory with pytorch_model.bin, or a hub id."),
    ],
    out: Annotated[Path, typer.Argument(parser=_path, help="The directory to write; new or empty.")],
) -> None:
    """Write a model's pickled weights as safetensors. No pickled code is run."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.core.progress import quiet_libraries
    from leanformer.model.conversion import convert as convert_model

    with quiet_libraries():
        written = convert_model(model, out)
    Console().print(Text(printable(f"model: {written}")), soft_wrap=True)


@app.command("reduce")
def reduce_model(
    model: Annotated[str, typer.Argument(parser=_given, help="A model's directory, or a hub id.")],
    out: Annotated[Path, typer.Argument(parser=_path, help="The directory to write; new or empty.")],
    plan: Annotated[
        Path, typer.Option(parser=_path, metavar="FILE", help="The plan, in YAML: sites with their blocks.")
    ],
) -> None:
    """Write the student that a plan makes of a model. Nothing is trained."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.config.reader import read_plan
    from leanformer.core.progress import quiet_libraries
    from leanformer.model.reduction import reduce_directory
    from leanformer.model.weights import parameter_count

    changes = read_plan(plan)
    with quiet_libraries():
        student = reduce_directory(model, changes, out)
    told = f"student: {out} ({parameter_count(student):,} parameters)"
    Console().print(Text(printable(told)), soft_wrap=True)


@app.command()
def push(
    model: Annotated[
        str, typer.Argument(parser=_given, help="A run directory, whose recommended model is taken; or a model's.")
    ],
    repository: Annotated[str, typer.Argument(parser=_given, metavar="OWNER/NAME", help="The repository on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a model on the Hugging Face hub, with its card and with the file by which transformers loads it."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.study.publishing import push_to_hub

    address = push_to_hub(model, repository, private)
    Console().print(Text(printable(f"model: {address}")), soft_wrap=True)


@app.command()
def translate(
    model: Annotated[
        str,
        typer.Argument(
            parser=_given,
            help="An exported translator, another one's directory (with its tokenizer), or a hub id.",
        ),
    ],
    text: Annotated[
        Path | None,
        typer.Argument(parser=_path, help="A UTF-8 file, one sentence a line; by default standard input."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="Where to write the lines; by default standard output."),
    ] = None,
    beam: Annotated[int, typer.Option(min=1, max=bounds.BEAM, help="Hypotheses per sentence; 1 is greedy.")] = 1,
    batch_tokens: Annotated[
        int, typer.Option(min=1, max=bounds.BATCH, help="Subwords per batch, padding included.")
    ] = 4096,
    max_tokens: Annotated[int, typer.Option(min=1, max=bounds.TOKENS, help="Longest translation in subwords.")] = 256,
    device: Annotated[EngineDevice, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=bounds.THREADS, help="CPU threads; by default the engine's choice.")
    ] = None,
) -> None:
    """Translate lines of text, one translation a line."""
    from leanformer.serve.translate import translate_lines

    translate_lines(model, text, out, beam, batch_tokens, max_tokens, device, threads)


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(parser=_given, help="An exported model, another model's directory, or a hub id.")
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=_path,
            metavar="INPUT...",
            help="Image files, or folders of them; for models of texts files of lines or JSON Lines, by default "
            "standard input.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="Where to write the lines; by default standard output."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, max=bounds.COUNT, help="Classes to write, the most probable first; by default all."),
    ] = None,
    format_: Annotated[
        Literal["jsonl", "lines"],
        typer.Option("--format", help="A JSON object a line; or plain lines: class, probability; or translation."),
    ] = "jsonl",
    key: Annotated[
        str | None,
        typer.Option(parser=_given, metavar="KEY", help="Where objects hold their text; by default at text or source."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=bounds.BATCH, help="Images or texts that are computed at once.")
    ] = 32,
    device: Annotated[EngineDevice, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=bounds.THREADS, help="CPU threads; by default the engine's choice.")
    ] = None,
) -> None:
    """Classify images or texts, or translate sentences: one line of JSON each."""
    from leanformer.serve.predict import predict as predict_inputs

    predict_inputs(model, inputs or [], out, batch, top, format_, key, device, threads)


@app.command()
def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            parser=_given,
            metavar="DIR...",
            help="Exported models, other models' directories, or hub ids; the first is what the others are compared "
            "with.",
        ),
    ],
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=bounds.BATCH, help="Images or sentences of a call; by default 1 and 32. May be repeated."
        ),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            min=2,
            max=bounds.TOKENS,
            help="Subwords that each source is cut or repeated to, the end mark included; by default sentences are as "
            "they are. May be repeated.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="The sentences: a file of lines or JSON Lines, or a study file, whose test sentences are taken; by "
            "default number words.",
        ),
    ] = None,
    beam: Annotated[int, typer.Option(min=1, max=bounds.BEAM, help="Hypotheses per sentence; 1 is greedy.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, max=bounds.TOKENS, help="Longest translation in subwords.")] = 256,
    threads: Annotated[int, typer.Option(min=1, max=bounds.THREADS, help="CPU threads.")] = 1,
    rounds: Annotated[
        int, typer.Option(min=6, max=bounds.ROUNDS, help="Rounds over all models; fewer than 6 have no interval.")
    ] = 15,
    device: Annotated[EngineDevice, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="Where to write the times as JSON, for measure.from."),
    ] = None,
) -> None:
    """Time models and exported models in turn: latency and throughput, with intervals."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.report.bench import bench_tables, machine_line
    from leanformer.study.bench import bench as bench_models

    found = bench_models(
        models,
        batches=batch or (1, 32),
        lengths=length or (),
        data=data,
        beam=beam,
        max_tokens=max_tokens,
        threads=threads,
        rounds=rounds,
        device=device,
        out=out,
    )
    console = Console()
    for table in bench_tables(found):
        console.print(table)
    console.print(Text(printable(machine_line(found)), style="dim"))
    if out is not None:
        console.print(Text(printable(f"json: {out}")), soft_wrap=True)


@app.command()
def compare(
    old: Annotated[
        Path,
        typer.Argument(parser=_path, help="Predictions of the present model: a csv, tsv, jsonl or parquet file."),
    ],
    new: Annotated[
        list[Path],
        typer.Argument(
            parser=_path, metavar="NEW...", help="Predictions of the model that is to replace it, or of several."
        ),
    ],
    metric: Annotated[
        str | None, typer.Option(help="A metric of classes or texts; by default the share of right classes.")
    ] = None,
    max_drop: Annotated[
        Any,
        typer.Option(
            parser=_margin,
            metavar="MARGIN",
            help="What may be lost, such as 0.01 or 10%; by default the metric's own.",
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="The confidence of decisions and intervals.")] = 0.95,
    pair: Annotated[
        Any,
        typer.Option(
            parser=_two_seeds, metavar="OLD:NEW", help="Where files have seeds: the seeds of the two models to use."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path, metavar="DIR", help="Where comparison.json and comparison.html go; by default nowhere."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the decision alone, a line for each new file.")] = False,
    id_: IdColumn = None,
    label: LabelColumn = None,
    prediction: PredictionColumn = None,
    seed: SeedColumn = None,
    group: GroupColumn = None,
    weight: WeightColumn = None,
    source: SourceColumn = None,
    tokenizer: Tokenizer = "auto",
) -> None:
    """Decide whether a model may replace another, from their predictions. Exit codes: 0 accept, 3 reject, 4
    undecided, 2 bad input."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.report.comparison import comparison_table, decided_lines, further_lines
    from leanformer.study.compare import compare as compare_files

    columns = _columns(id=id_, label=label, prediction=prediction, seed=seed, group=group, weight=weight, source=source)
    found = compare_files(
        old,
        new,
        metric=metric,
        max_drop=max_drop,
        confidence=confidence,
        pair=pair,
        columns=columns,
        tokenizer=tokenizer,
        directory=out,
    )
    console = Console()
    if not quiet:
        console.print(comparison_table(found.results))
    for line in decided_lines(found.results) + ([] if quiet else further_lines(found.results)):
        console.print(Text(printable(line)), soft_wrap=quiet)
    if found.page is not None and not quiet:
        console.print(Text(printable(f"json: {found.json}")), soft_wrap=True)
        console.print(Text(printable(f"page: {found.page}")), soft_wrap=True)
    raise typer.Exit(VERDICTS[found.decision])


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(parser=_given, help="A trained model's directory, or a hub id.")],
    data: Annotated[
        str,
        typer.Argument(parser=_given, help="A data source, as in data.source, or a study file, whose data are used."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Where the page and the JSON go; by default inspections/ and the model's name.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of data, such as source_language=de. May be repeated."),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BLOCK", help="A probe instead of the default ones, such as 'lean={block: slots, rank: 8}'."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=bounds.EPOCHS, help="Epochs of the probes' teaching.")] = 6,
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU if there is one.")] = "auto",
) -> None:
    """Inspect a trained model: how much of each site and head is linear or can be replaced."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.config.reader import read_data, read_probes

    section = read_data(data, set_ or ())
    probes = read_probes(probe) if probe else None

    from leanformer.report.inspection import LEGEND, LEGEND_OF_LAYERS, inspection_table, layers_table
    from leanformer.study import inspect as inspection

    teach = inspection.TEACHING.model_copy(update={"epochs": epochs})
    found = inspection.inspect(model, section, out, probes, teach, device)
    console = Console()
    console.print(inspection_table(found.results))
    console.print(Text(LEGEND))
    layers = layers_table(found.results)
    if layers is not None:
        console.print(layers, Text(LEGEND_OF_LAYERS))
    console.print(Text(printable(f"json: {found.json}")), soft_wrap=True)
    console.print(Text(printable(f"page: {found.page}")), soft_wrap=True)


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            parser=_given, help="A run directory, whose recommended model is taken; a model's directory, or a hub id."
        ),
    ],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="onnx, or ctranslate2 for translators.")],
    precision: Annotated[str, typer.Option(metavar="PRECISION", help="float32, int8 or float16.")] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="The directory to write; by default exports/ and the names of model, format and precision.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            parser=_given,
            metavar="DATA",
            help="What it is compared on: a data source, or a study file; by default the data of the model's study.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A key of --data, such as source_language=de. May be repeated."
        ),
    ] = None,
) -> None:
    """Write a model for use without PyTorch, and check that it says the same there."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.config.reader import read_data

    if set_ and data is None:
        raise LeanformerError("--set: it sets keys of the data; give --data too")
    section = None if data is None else read_data(data, set_ or ())

    from leanformer.export.card import parity_line
    from leanformer.study import export as exporting

    written = exporting.export(model, to, precision, out, section)
    console = Console()
    console.print(Text(printable(f"exported: {written.directory} ({written.bytes:,} bytes)")), soft_wrap=True)
    console.print(Text(printable(f"parity: {parity_line(written.manifest)}")), soft_wrap=True)


@app.command("plan-test")
def plan_test(
    metric: Annotated[
        str | None,
        typer.Option(parser=_given, metavar="METRIC", help="By default that of studies of images, or the pilot's."),
    ] = None,
    quality: Annotated[
        float | None, typer.Option(min=0, help="The baseline's quality, in the metric's values, such as 0.95.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0, help="accept.max_drop; by default the metric's, or the pilot's."),
    ] = None,
    drop: Annotated[float, typer.Option(help="The candidate's true drop, for which the power is asked.")] = 0.0,
    disagree: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the examples that one model gets right and the other wrong; by default that of the "
            "baseline's errors.",
        ),
    ] = None,
    deviation: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="For metrics that are no share of right answers: standard deviation of an example's contribution.",
        ),
    ] = None,
    luck: Annotated[
        float | None,
        typer.Option(min=0, help="Standard deviation of a training's true quality from seed to seed."),
    ] = None,
    churn: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Part of the examples' variance that is another with each training; by default 0.5.",
        ),
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="For students beside their own teachers: the correlation of their qualities from seed to seed.",
        ),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Candidates decided together; by default 1, or the pilot's.")
    ] = None,
    looks: Annotated[
        int | None, typer.Option(min=1, max=5, help="Planned looks at the test split; by default 2, or the pilot's.")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(min=0.5, max=1, help="By default 0.95, or the pilot's."),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=1000,
            help="Trainings of each model; 1 is one trained pair. By default 1, 3, 5 and 10. May be repeated.",
        ),
    ] = None,
    group_size: Annotated[float, typer.Option(min=1, help="Examples in a group, on average; 1: no groups.")] = 1.0,
    intraclass: Annotated[
        float,
        typer.Option(min=0, max=1, help="Correlation of the differences within a group."),
    ] = 0.0,
    pilot: Annotated[
        list[Path] | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="What gives the variances: a run directory; or, given twice, the files of predictions of two models, "
            "the present one's first.",
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            parser=_given, metavar="NAME", help="The candidate of a run directory; by default the one that varies most."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="The directory for the page with the curves, and the JSON."),
    ] = None,
    id_: IdColumn = None,
    label: LabelColumn = None,
    prediction: PredictionColumn = None,
    seed: SeedColumn = None,
    group: GroupColumn = None,
    source: SourceColumn = None,
    tokenizer: Tokenizer = "auto",
) -> None:
    """Plan a test before anything is trained: how many examples and seeds a margin needs."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.report.power import power_table
    from leanformer.study.plan_test import plan_test as plan

    found = plan(
        metric=metric,
        quality=quality,
        margin=margin,
        drop=drop,
        disagree=disagree,
        deviation=deviation,
        luck=luck,
        churn=churn,
        correlation=correlation,
        candidates=candidates,
        looks=looks,
        confidence=confidence,
        seeds=seeds or None,
        group_size=group_size,
        intraclass=intraclass,
        pilot=pilot or None,
        candidate=candidate,
        columns=_columns(id=id_, label=label, prediction=prediction, seed=seed, group=group, source=source),
        tokenizer=tokenizer,
        directory=out,
    )
    console = Console()
    console.print(power_table(found.results))
    for name, path in (("json", found.json), ("page", found.page)):
        if path is not None:
            console.print(Text(printable(f"{name}: {path}")), soft_wrap=True)


@app.command()
def confirm(
    run: Annotated[Path, typer.Argument(parser=_path, help="The run directory of a study that ran to its end.")],
    data: Annotated[
        str,
        typer.Argument(
            parser=_given,
            metavar="NEW_DATA",
            help="A data source, as in data.source, or a study file, whose data are used; all labeled examples count.",
        ),
    ],
    candidate: Annotated[
        str | None,
        typer.Option(parser=_given, metavar="NAME", help="Another candidate than the recommended one."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of data, such as label_column=kind. May be repeated."),
    ] = None,
) -> None:
    """Test the recommended model once on data that nobody has seen. Exits with 0 accept, 3 reject, 4 undecided."""
    from rich.console import Console
    from rich.text import Text

    from leanformer.config.reader import read_data

    section = read_data(data, set_ or ())

    from leanformer.report.confirmation import confirmation_lines, confirmation_table
    from leanformer.study import confirm as confirming

    found = confirming.confirm(run, section, candidate)
    console = Console()
    console.print(confirmation_table(found.result))
    for warned in found.result["warnings"]:
        console.print(Text(printable(f"Warning: {warned['sentence']} [{warned['code']}]"), style="yellow"))
    for line in confirmation_lines(found.result):
        console.print(Text(printable(line)))
    console.print(Text(printable(f"result: {found.directory / 'result.json'}")), soft_wrap=True)
    raise typer.Exit(VERDICTS[found.decision])


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(parser=_path, help="A run directory.")],
) -> None:
    """Write report.html again from a run directory's results.json."""
    from leanformer.report.page import write_report

    print(printable(str(write_report(directory))))


def main() -> None:
    """Runs the commands; ``leanformer.__main__`` handles the signals around it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # or it looks through all installed packages for some
    keep_freed_memory()
    app(prog_name="leanformer")  # for python -m leanformer too: completion is installed for this name
