"""The adapters to Hugging Face architectures, one a module. Each registers itself.

``base`` is what every family says of itself; ``image`` and ``seq2seq`` are the two shapes that there are, of families
and of their students.
"""

from leanformer.model.families.base import FAMILIES, Family, find_family

__all__ = ["FAMILIES", "Family", "find_family"]
