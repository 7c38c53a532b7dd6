"""What an exported model answers, where it is used: with numpy, pillow, tokenizers and the engine alone."""
