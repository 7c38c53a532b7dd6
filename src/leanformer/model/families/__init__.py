"""The adapters to Hugging Face architectures, one in each module, which registers itself (``model/family.py``)."""
