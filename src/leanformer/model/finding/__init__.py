"""Finds where an architecture has its attention and its MLPs, from transformers' own tables and the tree of modules."""
