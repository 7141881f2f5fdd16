"""`idgen train distil`: a base model and its identity adapter → a LoRA that draws in four steps."""
