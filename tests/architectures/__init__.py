"""Many architectures of transformers, tiny: what makes each, and what each is called with."""
