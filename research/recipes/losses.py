"""The loss that a config names in its section `loss`, and whether the rest of the config goes with it.

Without a name it is the objective of the data: next tokens, masked tokens, ... A loss of judged answers has a name and
options of its own (`beta`, `tau`, `center`, ...); one that compares with a reference says where it is:

    {"name": "dpo", "beta": 0.1, "reference": "batch"}

`reference`: "adapter" (the base below what `peft` attaches), "copy" (frozen weights beside those that learn) or "batch"
(computed once before training and kept in the run's folder); without it "adapter" where there is `peft`, else "batch".
`reference_from`: other weights of the same architecture, given as `init_from` is; empty: what training begins with.

"distill" learns the objective of the data and what a teacher says of it (`recipes.distill`), whose frozen weights stand
beside those that learn:

    {"name": "distill", "teacher": "runs/base/checkpoints", "alpha": 0.5, "temperature": 2.0, "beta": 0.0}
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax

from research import weights
from research.core import tree
from research.core.names import meant
from research.data.build import OBJECTIVES, PREFERENCES, DataConfig
from research.models import Model, ModelConfig
from research.recipes.distill import distillation_loss
from research.recipes.dpo import ALONE, BESIDE_A_REFERENCE, REFERENCES, check_options, preference_loss
from research.recipes.kto import kto_loss
from research.recipes.pretrain import language_model_loss
from research.recipes.reward import pairwise_loss
from research.training.step import LossFn

OF_PAIRS, OF_SINGLES = ("preference", "preference_seq2seq"), ("unpaired", "unpaired_seq2seq")
LOSSES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*BESIDE_A_REFERENCE, *ALONE, "reward"), OF_PAIRS),
    "kto": OF_SINGLES,
    "distill": tuple(name for name in OBJECTIVES if name not in PREFERENCES),
}
"""name -> the objectives of the data whose rows it learns from."""
_COMPARES = (*BESIDE_A_REFERENCE, "kto")
# What may differ between a policy and its reference: it changes no log-probability.
_FREE = (
    *("family", "max_length", "init_std", "pooling", "head_dense", "head_bias", "n_labels"),
    *("embed_dropout", "attention_dropout", "residual_dropout"),
    *("pad_id", "bos_id", "eos_id", "decoder_start_id"),
)


@dataclass(frozen=True)
class Chosen:
    """What a section `loss` says. reference, teacher: empty where the loss has none."""

    name: str = ""
    reference: str = ""
    reference_from: str = ""
    adapter: str | None = None
    teacher: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def choose(config: Mapping[str, Any]) -> Chosen:
    """The loss of a config (see `recipes.assemble.DEFAULTS`).

    Raises:
      ValueError: an unknown loss or reference, data that it does not learn from, or a reference that the recipe moves.
    """
    given = dict(config["loss"].items())
    name = given.pop("name", "")
    if not name and given:
        raise ValueError(f"loss.name is missing beside {sorted(given)}; have {sorted(LOSSES)}")
    if name and name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}{meant(name, LOSSES)}; have {sorted(LOSSES)}")
    _check_data(name, config["data"])
    if name not in _COMPARES:
        if extra := sorted({"reference", "reference_from", "adapter"} & set(given)):
            raise ValueError(f"{name!r} has no reference; given loss.{extra[0]}")
        teacher = given.pop("teacher", "") if name == "distill" else ""
        if name == "distill" and not teacher:
            raise ValueError(
                "loss 'distill' needs loss.teacher: a Hugging Face folder or hub id, or a run's checkpoints"
            )
        return Chosen(name, teacher=teacher, options=given)
    reference = given.pop("reference", "") or ("adapter" if config["peft"] else "batch")
    origin, adapter = given.pop("reference_from", ""), given.pop("adapter", "") or None
    if reference not in REFERENCES:
        raise ValueError(f"unknown reference {reference!r}{meant(reference, REFERENCES)}; have {sorted(REFERENCES)}")
    if reference == "adapter" and not config["peft"]:
        raise ValueError(
            "reference 'adapter' is the base below what peft attaches, and there is no peft: all that learns needs "
            "'copy' or 'batch'"
        )
    if reference == "copy" and config["peft"]:
        raise ValueError("reference 'copy' is for training without peft; the base below adapters is there already")
    if reference == "adapter" and origin:
        raise ValueError("reference 'adapter' is the base of this run; reference_from needs 'copy' or 'batch'")
    if adapter and reference != "adapter":
        raise ValueError(f"loss.adapter says what reference 'adapter' takes off; given with {reference!r}")
    return Chosen(name, reference, origin, adapter, options=given)


def _check_data(name: str, data: Mapping[str, Any]) -> None:
    for section in data["mix"].values() if "mix" in data else [data]:
        objective = DataConfig.of(section).objective
        if not name and objective in PREFERENCES:
            fitting = sorted(loss for loss, takes in LOSSES.items() if objective in takes)
            raise ValueError(f"objective {objective!r} needs a loss: set loss.name to one of {fitting}")
        if name and objective not in LOSSES[name]:
            raise ValueError(f"loss {name!r} learns from the objectives {LOSSES[name]}; given {objective!r}")


def make(
    chosen: Chosen, model: Model, *, chunk: int, parts: Sequence[str] = (), teacher: Model | None = None
) -> LossFn:
    """The loss function.

    Raises:
      ValueError: an option that the loss has not, one that is no number, or a model that it cannot train.
    """
    for option, value in chosen.options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"loss.{option} is a number; given {value!r}")
    if not chosen.name:
        return language_model_loss(model, chunk=chunk, parts=parts)
    if chosen.name == "distill":
        check_options("distill", _taught, chosen.options)
        return _taught(model, teacher, chunk, **chosen.options)
    if chosen.name == "reward":
        check_options("reward", pairwise_loss, chosen.options)
        return pairwise_loss(model, **chosen.options)
    beside: dict[str, Any] = {"reference": chosen.reference, "adapter": chosen.adapter} if chosen.reference else {}
    if chosen.name == "kto":
        return kto_loss(model, chunk=chunk, **beside, **chosen.options)
    return preference_loss(model, chosen.name, chunk=chunk, **beside, **chosen.options)


def _taught(
    model: Model, teacher: Model | None, chunk: int, *, alpha: float = 0.5, temperature: float = 2.0, beta: float = 0.0
) -> LossFn:
    return distillation_loss(model, teacher, alpha=alpha, temperature=temperature, beta=beta, chunk=chunk)


def check_reference(policy: ModelConfig, reference: ModelConfig) -> None:
    """Refuses a reference of another architecture, naming what differs."""
    ours, theirs = asdict(policy), asdict(reference)
    differ = [name for name in ours if ours[name] != theirs[name] and name not in _FREE]
    if other := [f"{name} {theirs[name]!r} ({ours[name]!r})" for name in differ]:
        raise ValueError(f"the reference has another architecture than the policy (in brackets): {', '.join(other)}")


def check_stays(learns: Any, adapter: str | None) -> None:
    """Refuses a recipe that trains what is below the adapters, for the reference would move with it.

    Args:
      learns: a tree of booleans, with the adapters (`weights.trainable`).
    """
    moves = sorted(path for path, on in tree.paths(weights.strip(learns, adapter)).items() if on)
    if moves:
        raise ValueError(
            f"reference 'adapter' is what is below the adapters, and peft trains {tree.generic(moves[0])!r} there; "
            "use reference 'batch'"
        )


def beside_frozen(
    begin_with: Any, shapes: Any, learns: Any, frozen: Any, names: tuple[str, str] = ("policy", "reference")
) -> tuple[Any, Any, Any]:
    """(what a run begins with, its shapes, which of it learns) with frozen weights in the tree.

    Args:
      begin_with, frozen: trees of weights, or functions that make one. learns: None for all that it begins with.
    """
    theirs = jax.eval_shape(frozen) if callable(frozen) else frozen
    both = dict(zip(names, (begin_with, frozen), strict=True))
    made = lambda: {name: part() if callable(part) else part for name, part in both.items()}  # noqa: E731
    learns = jax.tree.map(lambda _: True, shapes) if learns is None else learns
    masks = dict(zip(names, (learns, jax.tree.map(lambda _: False, theirs)), strict=True))
    lazy = callable(begin_with) or callable(frozen)
    return made if lazy else made(), dict(zip(names, (shapes, theirs), strict=True)), masks
