"""How the built-in model is made: corpus, tokenizer, model, training, evaluation, export. Not shipped in the wheel."""
