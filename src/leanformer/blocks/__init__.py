"""What can stand at a site. Importing the package registers every block."""

from leanformer.blocks import basic, minimal_attention, pooling  # noqa: F401
