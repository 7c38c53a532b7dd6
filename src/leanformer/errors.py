"""The one exception that a user's mistake raises."""


class LeanformerError(Exception):
    """A mistake in what the user gave: a study, a plan, data, a model or a run directory.

    Its message is one line that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with code 2; in Python it is raised as it is.
    """
