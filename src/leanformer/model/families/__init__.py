"""The adapters to Hugging Face architectures, one a module, each of which registers itself (``model/family.py``).

``image`` and ``seq2seq`` are the two shapes that there are, of families and of their students.
"""
