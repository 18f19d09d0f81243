"""A loss function per stage of a model's life: model and objective go in, `loss_fn(params, batch, rng)` comes out."""
