"""What can stand at a site. Importing the package registers every block."""

from leanformer.blocks import (  # noqa: F401
    average,
    basic,
    feed_forward,
    linear_attention,
    minimal_attention,
    mixer,
    pooling,
    slots,
    synthesizer,
)
