"""``python -m leanformer``: the command where its script is not on the path."""

from leanformer.cli import main

if __name__ == "__main__":
    main()
