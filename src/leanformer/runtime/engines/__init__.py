"""The engines that run exported models, a file an engine."""
