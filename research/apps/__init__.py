"""Applications around a model: they know text in and text out, never JAX."""
