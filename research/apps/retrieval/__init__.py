"""Retrieval-augmented generation: documents, chunks, a store of vectors and text, retrieval, prompts with citations."""
