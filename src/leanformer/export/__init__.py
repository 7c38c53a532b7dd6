"""Exporting models to the forms of other engines, a file a format."""
