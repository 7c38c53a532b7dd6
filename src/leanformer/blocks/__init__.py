"""What can stand at a site. Importing the package registers every block."""

from leanformer.blocks import basic, feed_forward, minimal_attention, mixer, pooling, slots, synthesizer  # noqa: F401
