"""The adapters to Hugging Face architectures, one in each module, which registers itself (``model/family.py``).

``image`` and ``seq2seq`` are the two shapes of families and of their students.
"""
