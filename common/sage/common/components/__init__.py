"""Parts that applications are made of; `sage_embedding` turns texts into vectors."""
