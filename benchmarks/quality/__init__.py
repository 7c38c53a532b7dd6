"""What a reduction costs in accuracy or BLEU."""
