"""The axis legend and the aliases that every module uses.

B batch · T query or sequence length · S key/value or source length · D model width · F feed-forward width ·
N query heads · K key/value heads · H head size · G = N/K · V vocabulary · L layers · P positions in a table
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
Params: TypeAlias = Mapping[str, Any]
"""A nested dict of weights; a weight is an array or a struct node that knows how to do `ops.linear(w, x)`."""
Batch: TypeAlias = Mapping[str, Array]
"""Named arrays of one batch; `tokens` is required, the rest is described in `models/model.py`."""
