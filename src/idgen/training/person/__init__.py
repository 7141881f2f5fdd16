"""`idgen train person`: photos of one person → a LoRA, pseudo-words, or both."""
