"""The measured claims, one command each, run from the repository's root:

    python -m benchmarks                          lists the benchmarks
    python -m benchmarks NAME                     runs one and writes benchmarks/results/NAME.json
    python -m benchmarks NAME --quick             the same on tiny settings: shows that it runs, and measures nothing
    python -m benchmarks page                     writes the tables and figures of docs/benchmarks from the results

The packages: ``speed``, ``quality``, ``peers`` and ``decisions`` hold the benchmarks, ``kit`` what they share.

To add a benchmark, write one module in the package where its question belongs. Its docstring says what is measured and
how; its first line is what the list shows. It ends with its one public name::

    BENCHMARK = register(
        "speed",                             # the package
        Benchmark(
            name="NAME",                     # its command's, its result file's and its page's
            quick={"rounds": 1},             # what --quick sets, where the command line does not; with built-in data,
                                             # on one core at most a minute or two, a few seconds where it can be
            add_arguments=add_arguments,     # (parser) -> None: its own options, with the full form's defaults
            measure=measure,                 # (arguments) -> dict: its figures, as plain data, with all seeds
            tables=tables,                   # (result) -> {name: Markdown}: the tables of its page
            verdicts=verdicts,               # (result) -> list[Verdict]: what reductions of a whole model cost
            stated=stated,                   # (result) -> Figures of kit/again.py: what a second run, kept in
                                             # results/again, is compared by
            plot=plot,                       # (result) -> Panels or Differences of kit/plots.py: its figure
        ),
    )

The last three are for who needs them. All else is common (``kit/benchmark.py``): the options --quick, --out, --threads,
the result file with command, date, machine and versions, one line and exit code 2 for a mistake (raise
``LeanformerError``; for a library that this benchmark alone needs and that is not installed, one that says ``pip
install ...``: the tests then skip it). ``kit/measuring.py`` times things in turn, ``kit/processes.py`` gives them
processes of their own, ``kit/forms.py`` builds the models that several benchmarks measure, ``stacked.py`` trains
several models of one shape as one, ``kit/drawing.py`` alone needs matplotlib. ``tables`` must work on every file that
is there, and on the file that --quick writes.

Its page is ``docs/benchmarks/NAME.md``, and its line stands in ``docs/benchmarks.md``. Words are by hand: what was
asked, what came out, on what machine, how sure it is, what it does not say. Tables are written between two comments
(``kit/pages.py``); a single figure that the words need is a row of the table ``figures``. Tests hold that every table
stands on a page, and that every number in words stands in a table of the page or in the settings of its run. What no
results file holds, such as others' figures, is named in a comment, ``<!-- by hand: 94.45 -->``; whose numbers a page
repeats in ``<!-- numbers of: second_runs -->``.
"""
