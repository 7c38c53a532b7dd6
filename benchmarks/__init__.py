"""The measured claims, one command each, run from the repository's root:

    python -m benchmarks                          lists the benchmarks
    python -m benchmarks NAME                     runs one and writes benchmarks/results/NAME.json
    python -m benchmarks NAME --quick             the same on tiny settings: shows that it runs, and measures nothing
    python -m benchmarks page                     writes docs/benchmarks.md and its plots from the results files

To add a benchmark, write one module ``benchmarks/NAME.py`` and put its name in ``NAMES`` below. The module's docstring
says what is measured and how; its first line is what the list shows. It ends with its one public name::

    BENCHMARK = Benchmark(
        name="NAME",                     # the module's name
        title="Training speed",          # the heading on the page
        quick={"rounds": 1},             # what --quick sets, where the command line does not; with built-in data, on
                                         # one core at most a minute or two, a few seconds where it can be
        add_arguments=add_arguments,     # (parser) -> None: its own options, with the full form's defaults
        measure=measure,                 # (arguments) -> dict: its figures, as plain data, with all seeds
        section=section,                 # (result) -> str: tables and text in Markdown, every figure from the result
        summary=summary,                 # (result) -> str: one sentence in plain words, for the top of the page
        verdicts=verdicts,               # (result) -> list[Verdict]: what reductions of a whole model cost, likewise
        stated=stated,                   # (result) -> Figures of again.py: what a second run, kept in results/again, is
                                         # compared by
        variant=variant,                 # (result) -> str: what tells it from others of its benchmark, by default the
                                         # machine
        plot=plot,                       # (result) -> Panels or Differences of plots.py: what is drawn above the tables
    )

All else is common (``room.py``): the options --quick, --out, --threads, the result file with command, date, machine
and versions, one line and exit code 2 for a mistake (raise ``LeanformerError``; for a library that this benchmark
alone needs and that is not installed, one that says ``pip install ...``: the tests then skip it). ``measuring.py``
times things in turn, ``processes.py`` gives them processes of their own, ``forms.py`` builds the models that several
benchmarks measure, ``stacked.py`` trains several models of one shape as one, ``drawing.py`` alone needs matplotlib.
``section`` must work on every file that is there, and on the file that --quick writes; a sentence that holds for some
figures only must be chosen by them.
"""

NAMES = (
    "training_speed",
    "attention_kernels",
    "minimal",
    "mnist_blocks",
    "ablation",
    "multi30k",
    "small_blocks",
    "tuning",
    "lengths",
    "decoding",
    "attention_ablation",
    "teaching",
    "decoder_block",
    "peers_training",
    "peers_teaching",
    "peers_translation",
    "peers_pruning",
    "growth",
    "simulate_decisions",
    "simulate_bleu",
)
"""The benchmarks, in the page's order; each is a module of this package."""
