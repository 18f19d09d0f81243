"""Lifecycle: the whole life of a language model in JAX and Flax, as pure functions on trees of weights."""
