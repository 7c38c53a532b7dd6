"""The file that a student carries, ``modeling_leanformer.py``: by it transformers alone loads the student."""
