"""The shapes that families have: what image classifiers share, what translators share, and their students."""
